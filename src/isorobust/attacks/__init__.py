"""Adversarial attacks, their evaluation per sample, and checks on the evaluation itself."""
