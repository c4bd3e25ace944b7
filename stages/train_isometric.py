"""Train the isometric arm: cross-entropy and the isometric term."""

from stages.train import main

if __name__ == "__main__":
    main("isometric")
