"""Fine-tuning the l2-reclassifier on a trained arm, and its ablation."""
