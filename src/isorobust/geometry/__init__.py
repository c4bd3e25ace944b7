"""How isometric a trained arm's representations are, and whether they are less so near decision boundaries."""
