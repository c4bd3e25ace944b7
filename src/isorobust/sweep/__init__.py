"""Choosing a tuned arm's numbers on val."""
