"""Telling adversarial inputs by the loss along paths to them, and how far that carries."""
