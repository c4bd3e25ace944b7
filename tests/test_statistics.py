"""Intervals: coverage by simulation, closed forms, edges."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from isorobust.common.statistics import (
    crossed_variance,
    difference,
    difference_of_own,
    interval_over_seeds,
    mean,
    mean_over_seeds,
    rate,
    rate_of_own,
)
from isorobust.detection.measure import _shares

SEEDS, SAMPLES, TRIALS = 5, 400, 2000
SPREADS = {"no seed spread": 0.0, "small seed spread": 0.1, "large seed spread": 0.5}


def draw(rng, spread, shift=0.0, samples=None):
    """Correctness `[S, N]` of a probit model with seed, sample and own parts; the sample part can be shared."""
    seed = spread * rng.standard_normal((SEEDS, 1))
    samples = rng.standard_normal((1, SAMPLES)) if samples is None else samples
    return (shift + seed + samples + rng.standard_normal((SEEDS, SAMPLES))) > 0, samples


def truth(spread, shift):
    return stats.norm.cdf(shift / np.sqrt(2 + spread**2))


@pytest.mark.slow
@pytest.mark.parametrize("spread", SPREADS.values(), ids=SPREADS.keys())
def test_rate_intervals_cover_95_percent(rng, spread):
    hits = 0
    for _ in range(TRIALS):
        interval = rate(draw(rng, spread, 0.3)[0])
        hits += interval.lo <= truth(spread, 0.3) <= interval.hi
    assert 0.93 <= hits / TRIALS <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("spread", SPREADS.values(), ids=SPREADS.keys())
def test_paired_difference_intervals_cover_95_percent(rng, spread):
    hits, expected = 0, truth(spread, 0.3) - truth(spread, 0.2)
    for _ in range(TRIALS):
        first, samples = draw(rng, spread, 0.3)
        second, _ = draw(rng, spread, 0.2, samples)
        interval = difference(first, second)
        hits += interval.lo <= expected <= interval.hi
    assert 0.93 <= hits / TRIALS <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "least"), [(2, 0.87), (3, 0.91)], ids=["two seeds", "three seeds"])
@pytest.mark.parametrize("spread", SPREADS.values(), ids=SPREADS.keys())
def test_few_seeds_cost_coverage(rng, monkeypatch, seeds, least, spread):
    monkeypatch.setattr("test_statistics.SEEDS", seeds)
    rates, differences, trials = 0, 0, 1000
    for _ in range(trials):
        first, samples = draw(rng, spread, 0.3)
        second, _ = draw(rng, spread, 0.2, samples)
        interval, paired = rate(first), difference(first, second)
        rates += interval.lo <= truth(spread, 0.3) <= interval.hi
        differences += paired.lo <= truth(spread, 0.3) - truth(spread, 0.2) <= paired.hi
    assert least <= rates / trials <= 0.975
    assert least <= differences / trials <= 0.965


def own(rng, level, sizes, spread=0.4):
    """Flags `[S, P]` of samples that each seed has for itself, and which count."""
    seed = spread * rng.standard_normal((SEEDS, 1))
    flags = level + seed + rng.standard_normal((SEEDS, max(sizes))) > 0
    return flags, np.arange(max(sizes)) < np.array(sizes)[:, None]


@pytest.mark.slow
@pytest.mark.parametrize("level", [0.0, 1.5], ids=["about half", "about 92 %"])
@pytest.mark.parametrize("sizes", [[100] * 5, [40, 60, 80, 90, 100]], ids=["as many each", "different numbers"])
def test_rate_intervals_cover_where_seeds_have_samples_of_their_own(rng, level, sizes):
    expected, hits = stats.norm.cdf(level / np.sqrt(1 + 0.4**2)), 0
    for _ in range(TRIALS):
        interval = rate_of_own(*own(rng, level, sizes))
        hits += interval.lo <= expected <= interval.hi
    assert 0.92 <= hits / TRIALS <= 0.98


def test_one_seed_of_own_samples_gives_the_wilson_interval(rng):
    flags = rng.random((1, 60)) < 0.7
    interval = rate_of_own(flags)
    reference = stats.binomtest(int(flags.sum()), 60).proportion_ci(method="wilson")
    assert (interval.lo, interval.hi) == pytest.approx((reference.low, reference.high), abs=1e-6) and interval.n == 60


def test_a_share_of_own_samples_is_over_those_that_count():
    flags = np.array([[1, 1, 0, 1], [1, 0, 0, 0], [1, 1, 1, 1]], bool)
    counted = np.array([[1, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0]], bool)
    interval = rate_of_own(flags, counted)
    assert interval.value == pytest.approx(3 / 5) and interval.n == 5 and 0 <= interval.lo < 3 / 5 < interval.hi <= 1
    with pytest.raises(ValueError, match="no sample counts"):
        rate_of_own(flags, np.zeros_like(counted))


def test_all_of_own_samples_right_are_as_many_as_all_seeds_have():
    interval = rate_of_own(np.ones((3, 20), bool))
    assert interval.lo == pytest.approx(stats.binomtest(60, 60).proportion_ci(method="wilson").low, abs=1e-6)


def test_a_difference_of_own_samples_is_students_over_seeds():
    first, second = np.array([[1, 1, 0], [1, 0, 0]], bool), np.array([[1, 0, 0], [1, 0, 0]], bool)
    everyone = np.ones_like(first)
    found = difference_of_own(first, everyone, second, everyone)
    assert found[:3] == pytest.approx((1 / 6, -1.0, 1.0)) and found.n == 6
    same = difference_of_own(first, everyone, first, everyone)
    assert same.value == 0 and same.hi == -same.lo > 0
    assert difference_of_own(first, np.zeros_like(first), second, everyone) is None


@pytest.mark.parametrize("seeds", [1, 5])
def test_equal_differences_leave_the_interval_of_the_samples(seeds):
    """Newcombe's own example, 56 of 70 against 48 of 80: 0.2 [0.0524, 0.3339]; rounding of equal shares is no spread."""
    sizes = (70, 80) if seeds == 1 else (10, 10)
    hits = (56, 48) if seeds == 1 else (8, 6)
    (first, second), most = ([np.arange(max(sizes)) < n for n in part] for part in (hits, sizes))
    sides = [np.tile(one, (seeds, 1)) for one in (first, most[0], second, most[1])]
    found = difference_of_own(*sides)
    assert found.value == pytest.approx(0.2)
    if seeds == 1:
        assert (found.lo, found.hi) == pytest.approx((0.0524, 0.3339), abs=1e-4)
    assert found.hi - found.lo > 0.2


def test_the_difference_of_one_seeds_samples_covers(rng):
    """With Student's t there would be no interval at all."""
    kept, hits = np.ones((1, 50), bool), 0
    for _ in range(400):
        found = difference_of_own(rng.random((1, 50)) < 0.7, kept, rng.random((1, 50)) < 0.4, kept)
        hits += found.lo <= 0.3 <= found.hi
    assert 0.92 <= hits / 400


@pytest.mark.slow
@pytest.mark.parametrize("chance", [0.02, 0.05, 0.5, 0.98])
def test_shares_of_the_images_that_count_cover_near_the_ends_too(rng, chance):
    """Of 200 images of which 60 count, correlated over seeds: as detection's shares are."""
    hits, trials = 0, 1000
    counted = np.broadcast_to(np.arange(200) < 60, (SEEDS, 200))
    limit = stats.norm.ppf(chance)
    for _ in range(trials):
        images = rng.standard_normal((1, 200))
        flags = (images + rng.standard_normal((SEEDS, 200))) / np.sqrt(2) < limit
        interval = _shares(flags, counted)
        hits += interval.lo <= chance <= interval.hi
    assert 0.92 <= hits / trials


@pytest.mark.slow
def test_a_bootstrap_over_samples_would_not_cover(rng):
    """The planted failure: what the interval above is there for."""
    hits = 0
    for _ in range(300):
        flags = draw(rng, 0.5, 0.3)[0].mean(axis=0)
        means = [flags[rng.integers(0, SAMPLES, SAMPLES)].mean() for _ in range(200)]
        low, high = np.percentile(means, [2.5, 97.5])
        hits += low <= truth(0.5, 0.3) <= high
    assert hits / 300 < 0.6


def test_crossed_variance_equals_the_sums_of_squares_written_out():
    values = np.array([[1.0, 0, 1, 1], [0, 0, 1, 0], [1, 0, 1, 1]])
    s, n = values.shape
    mean = values.mean()
    seed = sum(n * (values[i].mean() - mean) ** 2 for i in range(s)) / (s - 1)
    sample = sum(s * (values[:, j].mean() - mean) ** 2 for j in range(n)) / (n - 1)
    rest = sum((values[i, j] - values[i].mean() - values[:, j].mean() + mean) ** 2 for i in range(s) for j in range(n)) / (
        (s - 1) * (n - 1)
    )
    assert crossed_variance(values)[0] == pytest.approx((seed + sample - rest) / (s * n))


def test_one_seed_gives_the_wilson_interval(rng):
    flags = rng.random((1, 300)) < 0.8
    interval = rate(flags)
    reference = stats.binomtest(int(flags.sum()), 300).proportion_ci(method="wilson")
    assert (interval.lo, interval.hi) == pytest.approx((reference.low, reference.high), abs=2e-3)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_all_right_or_all_wrong_keeps_a_width(value):
    interval = rate(np.full((5, 100), value == 1.0))
    assert interval.value == value
    assert 0 <= interval.lo <= interval.value <= interval.hi <= 1
    assert interval.hi - interval.lo == pytest.approx(0.037, abs=0.002)


def test_no_differing_pair_keeps_a_width():
    flags = np.ones((5, 100), bool)
    interval = difference(flags, flags)
    assert (interval.value, interval.lo, interval.hi) == pytest.approx((0, -0.036, 0.036), abs=1e-3)


@pytest.mark.parametrize(
    ("value", "low", "high", "lo", "hi"),
    [(2.0, 1, 3, 1.964, 2.036), (1.0, 1, 3, 1, 1.072), (0.0, -2, 2, -0.072, 0.072), (5.0, -np.inf, np.inf, 4.964, 5.036)],
    ids=["in the middle of its range", "at its end", "a difference of such", "without a range"],
)
def test_equal_values_keep_a_width_as_their_range_allows(value, low, high, lo, hi):
    interval = mean(np.full((3, 100), value), low, high)
    assert (interval.value, interval.lo, interval.hi) == pytest.approx((value, lo, hi), abs=1e-3)


def test_pairing_narrows_the_interval(rng):
    first, samples = draw(rng, 0.0, 0.3)
    second, _ = draw(rng, 0.0, 0.2, samples)
    unrelated, _ = draw(rng, 0.0, 0.2)
    paired, apart = difference(first, second), difference(first, unrelated)
    assert paired.hi - paired.lo < 0.8 * (apart.hi - apart.lo)


def test_intervals_stay_inside_their_range(rng):
    for p in (0.001, 0.01, 0.5, 0.99):
        interval = rate(rng.random((5, 50)) < p)
        assert 0 <= interval.lo <= interval.value <= interval.hi <= 1


def test_mean_over_seeds_is_students_interval():
    values = np.array([1.0, 2.0, 4.0])
    low, high = stats.t.interval(0.95, 2, loc=values.mean(), scale=stats.sem(values))
    assert mean_over_seeds(values) == pytest.approx((values.mean(), low, high))
    assert mean_over_seeds(values[:1]) == (1.0, 1.0, 1.0)
    assert list(interval_over_seeds(values).items()) == list(zip(("value", "lo", "hi"), mean_over_seeds(values)))


@pytest.mark.parametrize("flags", [np.ones(3), np.ones((0, 3)), np.ones((2, 3, 1))], ids=["1-d", "empty", "3-d"])
def test_flags_of_another_shape_are_refused(flags):
    with pytest.raises(ValueError, match="seeds, samples"):
        rate(flags)


def test_unpaired_shapes_are_refused():
    with pytest.raises(ValueError, match="share their shape"):
        difference(np.ones((2, 3)), np.ones((2, 4)))
