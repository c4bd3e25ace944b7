"""Whether inputs of a class connect because input space has many dimensions."""
