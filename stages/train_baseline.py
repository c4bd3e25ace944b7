"""Train the baseline, cross-entropy alone: `python -m stages.train_baseline DATA_DIR MODEL_DIR RESULT_DIR`."""

from stages import base
from stages.train import main

if __name__ == "__main__":
    main("baseline", *base.arguments(__doc__))
