"""Train the positive control: cross-entropy on PGD images."""

from stages.train import main

if __name__ == "__main__":
    main("adversarial")
