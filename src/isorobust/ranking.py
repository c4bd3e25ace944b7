"""How well a score tells positives from negatives, image by image, so that intervals can follow."""

from __future__ import annotations

import numpy as np

from isorobust.common.statistics import ANY_NUMBER, over_seeds


def auroc(negative: np.ndarray, positive: np.ndarray) -> float:
    """Chance that a positive scores above a negative, ties half: the area under the ROC curve."""
    return float(_below(negative, positive).mean())


def _below(reference: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Share of `reference` below each score, ties half."""
    ordered = np.sort(reference)
    return (np.searchsorted(ordered, scores, "left") + np.searchsorted(ordered, scores, "right")) / (2 * len(ordered))


def auroc_by_image(negative: np.ndarray, positive: np.ndarray, clean: np.ndarray, fooled: np.ndarray) -> np.ndarray:
    """Values `[N]` whose mean is the AUROC and whose spread is that of its estimate (DeLong et al. 1988).

    negative, positive `[N]`: the scores of an image as it is and attacked; clean, fooled `[N]`: which
    of them count. An image that counts in neither has the AUROC itself as its value.
    """
    low, high = negative[clean], positive[fooled]
    above = _below(low, high)
    value = above.mean()
    values = np.full(len(negative), value)
    values[fooled] += (above - value) * len(values) / len(high)
    values[clean] += (1 - _below(high, low) - value) * len(values) / len(low)
    return values


def share_by_image(flags: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Values `[N]` whose mean is the share of true flags among the counted, and whose spread is that of its estimate."""
    share = flags[counted].mean()
    return np.where(counted, share + (flags - share) * len(flags) / counted.sum(), share)


def contrasts(
    seeds: list[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]], ranges: dict[str, tuple[float, float]]
) -> dict[str, dict[str, dict[str, float]]]:
    """Per feature: both means, their difference, effect size (Cohen's d) and AUROC, as `{value, lo, hi, n}` over seeds.

    seeds: for each the features of real and of adversarial inputs, name -> `[n]`; ranges: the least and
    the greatest value that a feature can have, to which the intervals of its means are clipped.
    """
    told: dict[str, dict[str, list[float]]] = {}
    count = max((len(next(iter(real.values()))) for real, _ in seeds), default=0)
    for real, adversarial in seeds:
        for name in real:
            row = told.setdefault(name, {"real": [], "adversarial": [], "difference": [], "effect": [], "auroc": []})
            spread = np.sqrt((real[name].var(ddof=1) + adversarial[name].var(ddof=1)) / 2)
            change = adversarial[name].mean() - real[name].mean()
            row["real"].append(real[name].mean())
            row["adversarial"].append(adversarial[name].mean())
            row["difference"].append(change)
            row["effect"].append(change / spread if spread > 0 else 0.0)
            row["auroc"].append(auroc(real[name], adversarial[name]))
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, row in told.items():
        low, high = ranges[name]
        limits = {"real": (low, high), "adversarial": (low, high), "difference": (low - high, high - low), "auroc": (0.0, 1.0)}
        found[name] = {key: over_seeds(values, *limits.get(key, ANY_NUMBER), count) for key, values in row.items()}
    return found
