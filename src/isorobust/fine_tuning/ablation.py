"""What each choice of the plug-in does: one number changed at a time, judged on val."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from isorobust.common.runtime import generator
from isorobust.common.splits import Split
from isorobust.common.statistics import rate
from isorobust.common.workers import spread
from isorobust.fine_tuning.settings import Ablation, ReclassifierSettings
from isorobust.fine_tuning.train import Numbers, fine_tune
from isorobust.networks.checkpoint import Checkpoint
from isorobust.objectives.losses import Batch, pgd_images
from isorobust.objectives.settings import Adversarial
from isorobust.reclassifier.checkpoint import PLUG_IN, plug_in
from isorobust.reclassifier.network import HybridPrototypeReclassifier, Mode
from isorobust.training.fit import Images
from isorobust.training.settings import TrainingSettings

HEADER = ["changed", "to", "clean", "clean_lo", "clean_hi", "pgd", "pgd_lo", "pgd_hi", "n"]


class _Setting(NamedTuple):
    """One row of the ablation: what was changed, to what, the numbers, and how a batch is classified."""

    changed: str
    to: str
    numbers: Numbers
    mode: Mode = "ste"


def _settings(own: Numbers, grid: Ablation) -> list[_Setting]:
    rows = [_Setting("nothing", "", own), _Setting("assignment", "soft, only where it is judged", own, "soft")]
    rows.append(_Setting("assignment", "soft, in fine-tuning too", own.model_copy(update={"soft": 1.0}), "soft"))
    rows.append(_Setting("prototypes", "dataset-level alone, only where it is judged", own, "ema"))  # in both: mix 1
    rows += [_Setting("mix", str(value), own.model_copy(update={"mix": value})) for value in grid.mix]
    rows += [_Setting("momentum", str(value), own.model_copy(update={"momentum": value})) for value in grid.momentum]
    for value in grid.temperature:
        fixed = own.model_copy(update={"temperature": value, "learned": 0.0})
        rows.append(_Setting("temperature", f"{value}, fixed", fixed))
    return rows


def ablate(
    base: Checkpoint,
    train: Split,
    val: Split,
    options: ReclassifierSettings,
    training: TrainingSettings,
    device: torch.device,
) -> tuple[list[str], list[list[Any]]]:
    """(header, rows): clean and PGD accuracy on val of every setting, each fine-tuned by itself from the base.

    PGD follows the FC head, and the l2 head with its gradient through the batch; right counts who is
    right under both. It chooses nothing: the numbers of the block stay. No rows where the block has no ablation.
    """
    grid = options.ablation
    if grid is None:
        return HEADER, []
    settings, seeds = _settings(Numbers.of(options), grid), base.seeds[: grid.seeds]
    tuned = fine_tune(base, seeds, [setting.numbers for setting in settings], train, val, options, training, device)
    split, size = val.first(min(grid.images, len(val.labels))), training.batch_size
    count = len(seeds)

    def judge(piece: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        i, j = piece
        numbers, number = settings[i].numbers, i * count + j
        spec = {**base.spec, "seeds": [seeds[j]], "reclassifier": {"mix": numbers.mix, "momentum": numbers.momentum}}
        one = Checkpoint(spec, {f"{PLUG_IN}/{name}": t[number : number + 1] for name, t in tuned.state.items()})
        return _judge(plug_in(one, seeds[j], device), settings[i].mode, split, size, grid, seeds[j])

    pieces = [(i, j) for i in range(len(settings)) for j in range(count)]
    judged, rows = dict(zip(pieces, spread(judge, pieces, device))), []
    for i, setting in enumerate(settings):
        estimates = [rate(np.stack(flags)) for flags in zip(*(judged[i, j] for j in range(count)))]
        rows.append([setting.changed, setting.to, *(float(x) for e in estimates for x in (e.value, e.lo, e.hi)), estimates[0].n])
    return HEADER, rows


def _judge(model: HybridPrototypeReclassifier, mode: Mode, split: Split, size: int, grid: Ablation, seed: int):
    """(right on the clean image, right under PGD too), bool `[n]` each, in batches of `size`."""
    attack = Adversarial(objective="adversarial", norm="linf", eps=grid.eps, steps=grid.steps)
    data = Images(split, model.prototypes.device, torch.float32)
    clean, robust = [], []
    for index in torch.arange(len(split.labels)).split(size):
        images, labels = data.take(index)
        batch = Batch(images[None], labels[None], [generator(seed, "ablation", int(index[0]))])
        attacked = [images]
        for surrogate in ("fc", mode):
            model.mode = surrogate
            attacked.append(pgd_images(lambda x: model(x[0])[None], batch, attack)[0])
        model.mode = mode
        with torch.no_grad():
            right = torch.stack([model(x).argmax(1) == labels for x in attacked])
        clean.append(right[0])
        robust.append(right.all(0))
    return torch.cat(clean).cpu().numpy(), torch.cat(robust).cpu().numpy()
