"""Paths through input space along which the loss stays low."""
