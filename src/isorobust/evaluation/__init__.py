"""Every attack of a recipe on one arm: verdicts per sample and seed, resumable units, checks on the evaluation itself."""
