"""Train the positive control, cross-entropy on PGD images: `python -m stages.train_adversarial DATA_DIR MODEL_DIR RESULT_DIR`."""

from stages import base
from stages.train import main

if __name__ == "__main__":
    main("adversarial", *base.arguments(__doc__))
