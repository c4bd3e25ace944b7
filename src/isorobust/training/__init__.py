"""Training, which knows no method by name."""
