"""Attack one reclassifier on the test images: `python -m stages.attack_reclassifier NAME DATA_DIR MODEL_DIR RESULT_DIR`."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from isorobust import tracking
from isorobust.common import skipped
from isorobust.common.params import Params
from stages import base


class Settings(NamedTuple):
    data: str
    attack: object
    device: str
    threads: int


def load(params: Params) -> Settings:
    """All that this stage reads of params.yaml."""
    from isorobust.reclassifier.settings import ReclassifierAttack

    data = params.get("data", "name")
    block = params.recipe(ReclassifierAttack, data, "reclassifier-attack")
    return Settings(data, block, params.get("device"), params.block(int, "threads"))


def attack(name: str, data: Path, models: Path, results: Path) -> tracking.Record | None:
    model, metrics, verdicts = models / f"{name}.safetensors", results / f"{name}.json", results / f"{name}.npz"
    if skipped.is_skipped(model):
        return skipped.write_attacked(metrics, verdicts)
    from isorobust.common import artifacts
    from isorobust.common.runtime import describe, prepare
    from isorobust.common.splits import read_split
    from isorobust.evaluation.units import Store
    from isorobust.networks.checkpoint import Checkpoint
    from isorobust.reclassifier.attack import attack_reclassifier

    settings = load(Params.read())
    device = prepare(settings.device, settings.threads)
    checkpoint, store = Checkpoint.read(model), Store(base.shared_state() / "units")
    test = checkpoint.check_split(read_split(data / "test.npz"), data / "test.npz")
    numbers, arrays = attack_reclassifier(checkpoint, test, settings.attack, store, device)
    artifacts.write_measured(metrics, numbers, verdicts, arrays)
    return tracking.Record("attack", name, settings.data, metrics, facts=describe(device))


if __name__ == "__main__":
    name, *folders = base.arguments(__doc__)
    base.run("attack", name, lambda: attack(name, *map(Path, folders)))
