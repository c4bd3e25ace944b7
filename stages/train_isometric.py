"""Train cross-entropy with the isometric term: `python -m stages.train_isometric DATA_DIR MODEL_DIR RESULT_DIR`."""

from stages import base
from stages.train import main

if __name__ == "__main__":
    main("isometric", *base.arguments(__doc__))
