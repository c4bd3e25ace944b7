"""What every stage stands on, one dependency of all of them: parameters, splits, result files, runtime, intervals."""
