"""The l2-reclassifier with Hybrid Prototype Mixing and the Mixed Surrogate Attack on it."""
