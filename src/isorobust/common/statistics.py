"""Rates and paired differences with intervals that account for seeds and samples at once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

LEVEL = 0.95
ANY_NUMBER = (-np.inf, np.inf)


class Estimate(NamedTuple):
    """A value with its interval; n is the number of test samples."""

    value: float
    lo: float
    hi: float
    n: int

    def as_dict(self) -> dict[str, float | int]:
        return dict(zip(self._fields, (float(self.value), float(self.lo), float(self.hi), int(self.n))))


def rate(flags: np.ndarray, level: float = LEVEL) -> Estimate:
    """Share of true flags `[S, N]` (seeds by samples) in [0, 1], for new seeds and new samples alike.

    The variance is that of the crossed design (`crossed_variance`), its degrees of freedom are
    Satterthwaite's. The interval is Wilson's with the sample size that this variance amounts to, so
    it keeps its width near 0 and 1 and stays inside [0, 1].
    """
    flags = _matrix(flags).astype(float)
    return share(flags, flags.size, level)


def share(values: np.ndarray, most: int, level: float = LEVEL) -> Estimate:
    """As `rate`, for values `[S, N]` whose mean is a share without being flags themselves; `most`: flags behind it."""
    values = _matrix(values)
    variance, freedom = crossed_variance(values)
    return _wilson(values.mean(), variance, freedom, most, values.shape[1], level)


def rate_of_own(flags: np.ndarray, counted: np.ndarray | None = None, level: float = LEVEL) -> Estimate:
    """Share of true flags `[S, P]` where every seed has samples of its own, among those that count (`[S, P]`, or all).

    The variance of this ratio over all seeds is that of the seeds' residuals, `S / (S - 1) sum(r_s^2) / n^2`, with S - 1
    degrees of freedom; the interval is Wilson's. n is the number of samples that count, over all seeds.
    Errors: ValueError if none counts.
    """
    flags = _matrix(flags).astype(bool)
    counted = np.ones_like(flags) if counted is None else _matrix(counted).astype(bool)
    sizes = counted.sum(axis=1)
    count = int(sizes.sum())
    if not count:
        raise ValueError("no sample counts")
    hits = (flags & counted).sum(axis=1)
    value, seeds = hits.sum() / count, int((sizes > 0).sum())
    if seeds == 1:
        return rate_of_one(int(hits.sum()), count, level)
    residuals = (hits - value * sizes)[sizes > 0]
    variance = seeds / (seeds - 1) * float((residuals**2).sum()) / count**2
    return _wilson(value, variance, seeds - 1, count, count, level)


def difference_of_own(
    flags: np.ndarray,
    counted: np.ndarray,
    reference: np.ndarray,
    reference_counted: np.ndarray,
    level: float = LEVEL,
) -> Estimate | None:
    """Share of true flags less that of `reference`, all `[S, P]`, where every seed has samples of its own; the seeds are paired.

    Student's t over the seeds' differences, of those that have samples that count on both sides: None without such. From
    one seed, and when all differ by the same, the samples limit what can be said: Newcombe's interval of two shares of
    samples of their own (Statistics in Medicine 17, 1998, method 10). n is the lesser number of samples.
    """
    sides = [(_matrix(a).astype(bool), _matrix(b).astype(bool)) for a, b in ((flags, counted), (reference, reference_counted))]
    used = sides[0][1].any(axis=1) & sides[1][1].any(axis=1)
    if not used.any():
        return None
    shares = [(a & b)[used].sum(axis=1) / b[used].sum(axis=1) for a, b in sides]
    count = min(int(b[used].sum()) for _, b in sides)
    changes = shares[0] - shares[1]
    value, lo, hi = mean_over_seeds(changes, level)
    if np.ptp(changes) < 1e-12:  # rounding of equal shares
        a, b = (rate_of_one(int((flags & kept)[used].sum()), int(kept[used].sum()), level) for flags, kept in sides)
        down, up = np.hypot(a.value - a.lo, b.hi - b.value), np.hypot(a.hi - a.value, b.value - b.lo)
        return Estimate(value, max(-1.0, value - down), min(1.0, value + up), count)
    return Estimate(value, max(-1.0, lo), min(1.0, hi), count)


def rate_of_one(hits: int, count: int, level: float = LEVEL) -> Estimate:
    """Share of `hits` among `count` samples, with Wilson's interval."""
    value = hits / count
    return _wilson(value, value * (1 - value) / count, np.inf, count, count, level)


def _wilson(value: float, variance: float, freedom: float, most: int, count: int, level: float) -> Estimate:
    """Wilson's interval of a share with this variance, for the sample size that it amounts to, at most `most`.

    Without any variance (all right or all wrong) the `count` samples alone limit what can be said.
    """
    effective = count if variance <= 0 else min(value * (1 - value) / variance, most)
    t = _quantile(level, freedom if variance > 0 else np.inf)
    center = (value + t**2 / (2 * effective)) / (1 + t**2 / effective)
    half = t / (1 + t**2 / effective) * np.sqrt(value * (1 - value) / effective + t**2 / (4 * effective**2))
    return Estimate(value, max(0.0, min(center - half, value)), min(1.0, max(center + half, value)), count)


def difference(flags: np.ndarray, reference: np.ndarray, level: float = LEVEL) -> Estimate:
    """Mean of flags - reference, both `[S, N]`, paired by seed and sample, clipped to [-1, 1].

    When no pair differs the interval is the exact one for a share of differing samples of 0.
    """
    flags, reference = _matrix(flags).astype(float), _matrix(reference).astype(float)
    if flags.shape != reference.shape:
        raise ValueError(f"paired flags must share their shape, found {flags.shape} and {reference.shape}")
    return mean(flags - reference, -1.0, 1.0, level=level)


def mean(values: np.ndarray, low: float, high: float, count: int | None = None, level: float = LEVEL) -> Estimate:
    """Mean of values `[S, N]` (seeds by samples) by `crossed_variance`, clipped to [low, high]; `count` as n, or N.

    Values that are all equal get the exact interval for a share of differing samples of 0, of samples that lie as far
    off as [low, high] allows, or by 1 where that is unbounded.
    """
    values = _matrix(values)
    value, count = values.mean(), count or values.shape[1]
    variance, freedom = crossed_variance(values)
    if variance > 0:
        half = _quantile(level, freedom) * np.sqrt(variance)
    else:
        farthest = max(high - value, value - low)
        half = (1 - ((1 - level) / 2) ** (1 / count)) * (farthest if np.isfinite(farthest) else 1)
    return Estimate(value, max(low, value - half), min(high, value + half), count)


def crossed_variance(values: np.ndarray) -> tuple[float, float]:
    """(variance of the grand mean, degrees of freedom) of values `[S, N]` with random seeds and random samples.

    For x_sn = mean + seed_s + sample_n + rest_sn:

        var = MS_seed / (S N) + MS_sample / (S N) - MS_rest / (S N)

    with the mean squares of the two-way layout without replicates. The difference of the last two,
    the samples' own variance, is taken as at least 0. Degrees of freedom are Satterthwaite's over
    the seed part (S - 1) and the sample part (N - 1). One seed leaves only the samples' variance.
    """
    seeds, samples = values.shape
    if samples < 2:
        return 0.0, np.inf
    if seeds == 1:
        return float(values.var(ddof=1) / samples), samples - 1
    mean, rows, columns = values.mean(), values.mean(axis=1), values.mean(axis=0)
    size = seeds * samples
    ms_seed = samples * ((rows - mean) ** 2).sum() / (seeds - 1)
    ms_sample = seeds * ((columns - mean) ** 2).sum() / (samples - 1)
    rest = values - rows[:, None] - columns[None, :] + mean
    ms_rest = (rest**2).sum() / ((seeds - 1) * (samples - 1))
    seed_part, sample_part = ms_seed / size, max(ms_sample - ms_rest, 0.0) / size
    total = seed_part + sample_part
    if total <= 1e-18:
        return 0.0, np.inf
    freedom = total**2 / (seed_part**2 / (seeds - 1) + sample_part**2 / (samples - 1))
    return float(total), float(freedom)


def mean_over_seeds(values: np.ndarray, level: float = LEVEL) -> tuple[float, float, float]:
    """(mean, lo, hi) of one number per seed `[S]`, Student's t; lo = hi = mean for a single seed."""
    values = np.asarray(values, dtype=float)
    mean = float(values.mean())
    if len(values) < 2:
        return mean, mean, mean
    half = float(_quantile(level, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return mean, mean - half, mean + half


def interval_over_seeds(values: np.ndarray, level: float = LEVEL) -> dict[str, float]:
    """`mean_over_seeds` as the `{value, lo, hi}` of result files."""
    return dict(zip(("value", "lo", "hi"), mean_over_seeds(values, level)))


def over_seeds(values: np.ndarray | list[float], low: float, high: float, count: int) -> dict[str, float | int]:
    """`mean_over_seeds` as `{value, lo, hi, n}`, its interval clipped to [low, high]; `count` as n, the samples of each seed."""
    value, lo, hi = mean_over_seeds(np.asarray(values))
    return Estimate(value, max(low, lo), min(high, hi), count).as_dict()


def _quantile(level: float, freedom: float) -> float:
    """Student's t; by `scipy.special`, because importing `scipy.stats` costs every stage half a second."""
    return float(stdtrit(freedom, (1 + level) / 2))


def _matrix(flags: np.ndarray) -> np.ndarray:
    flags = np.asarray(flags)
    if flags.ndim != 2 or not flags.size:
        raise ValueError(f"flags must be [seeds, samples] and not empty, found shape {list(flags.shape)}")
    return flags
