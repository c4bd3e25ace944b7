"""Arms side by side: intervals, paired differences, verdicts, tables and figures."""
