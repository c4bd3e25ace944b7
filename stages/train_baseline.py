"""Train the baseline: cross-entropy alone."""

from stages.train import main

if __name__ == "__main__":
    main("baseline")
