"""What every stage stands on, one dependency of all of them: parameters, result files, runtime, intervals."""
