"""The sweep: every cell as if trained alone, the choice by rule, on val."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import NETWORKS

from isorobust.common.runtime import derive_seed
from isorobust.errors import UserError
from isorobust.networks.zoo import build
from isorobust.objectives.settings import CrossEntropy, Noise, Tuned, with_choice
from isorobust.sweep.grid import Cell, choose, sweep
from isorobust.sweep.settings import SweepSettings
from isorobust.training.fit import fit
from isorobust.training.settings import TrainingSettings

PLAIN, NOISE = CrossEntropy(objective="cross-entropy"), Noise(objective="noise", sigma=0.2)
BLOCK = Tuned(twin_of="baseline", isometry_grid={"beta": [0.1, 1.0], "layers": ["last", "all"]})
NOISY = Tuned(twin_of="noise", grid={"sigma": [0.1, 0.4]}, isometry_grid={"beta": [0.1, 1.0]})
TRAINING = TrainingSettings(epochs=3, batch_size=50, learning_rate=3e-3)
OPTIONS = {"seeds": [0, 1], "images": 40, "min_clean": 0.0, "norm": "linf", "eps": 0.05, "steps": 3}


def swept(splits, base=PLAIN, block=BLOCK, **more):
    options = SweepSettings(**{**OPTIONS, **more})
    device = torch.device("cpu")
    return sweep(splits.train, splits.val, NETWORKS["tanh-mlp"], base, block, TRAINING, options, device, "arms.tuned")


@pytest.mark.parametrize(
    ("base", "block", "names"),
    [(PLAIN, BLOCK, ["beta", "layers"]), (NOISE, NOISY, ["sigma", "beta"])],
    ids=["beta and layers", "noise, as many networks as an image is wide"],
)
def test_each_cell_is_what_it_is_when_trained_alone(splits, base, block, names):
    result = swept(splits, base, block)
    first, last = (block.grid | block.isometry_grid)[names[0]], block.isometry_grid[names[1]]
    assert [(cell.choice["objective"] | cell.choice["isometry"]) for cell in result.cells] == [
        {names[0]: a, names[1]: b} for a in first for b in last
    ]
    for cell in result.cells:
        networks = [build(NETWORKS["tanh-mlp"], (1, 8, 8), 5, derive_seed(s, "weights")) for s in (0, 1)]
        alone = fit(networks, [0, 1], splits.train, splits.val, with_choice(base, cell.choice, "x"), TRAINING)
        assert np.array_equal(alone.val_correct, cell.clean)
        assert cell.robust.shape == (2, 40) and not (cell.robust & ~cell.clean[:, :40]).any()
    header, rows = result.table()
    assert header == [*names, "val_clean", "val_pgd", "chosen"] and sum(row[-1] for row in rows) == 1
    assert result.metrics()["chosen"] == result.cells[result.chosen].choice


def cell(clean, robust):
    return Cell({}, np.arange(10)[None] < 10 * clean, np.arange(10)[None] < 10 * robust)


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ([(0.9, 0.1), (0.8, 0.6), (0.5, 0.9)], (1, True)),
        ([(0.8, 0.3), (0.9, 0.3)], (0, True)),
        ([(0.3, 0.3), (0.6, 0.1)], (1, False)),
    ],
    ids=["most robust of the clean enough", "tie", "none clean enough"],
)
def test_the_choice_follows_the_rule(cells, expected):
    assert choose([cell(*one) for one in cells], min_clean=0.7) == expected


def test_more_images_than_val_has_are_refused(splits):
    with pytest.raises(UserError, match="sweep.images: found 61; allowed: at most 60"):
        swept(splits, images=61)
