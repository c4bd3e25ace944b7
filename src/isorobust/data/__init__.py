"""Data sets: where they come from, how they are split, how the split files are read."""
