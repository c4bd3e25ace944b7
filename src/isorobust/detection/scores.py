"""The scores and attacks of detection by name, and the AUROC from the arrays that the stage writes."""

from __future__ import annotations

import numpy as np

from isorobust.ranking import auroc_by_image

# All but the first two are controls.
SCORES = ("barrier", "fitted", "ends", "endpoint-loss", "max-softmax", "fitted-loss", "unusual-loss")
UNSEEN = ("pgd", "apgd-ce", "square", "fab", "cw", "deepfool", "matched")
ADAPTIVE = ("adaptive-barrier", "adaptive-fitted")
FPR = 0.05  # of clean inputs, at the threshold


def auroc_values(arrays: dict[str, np.ndarray], attack: str, score: str) -> np.ndarray:
    """`[S, N]`, whose mean is the mean AUROC over seeds; see `auroc_by_image`."""
    parts = zip(arrays[f"score/clean/{score}"], arrays[f"score/{attack}/{score}"], arrays["right"], arrays[f"fooled/{attack}"])
    return np.stack([auroc_by_image(*part) for part in parts])
