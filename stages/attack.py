"""Attack one arm on the test images: `python -m stages.attack ARM DATA_DIR MODEL_DIR RESULT_DIR`."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from isorobust import tracking
from isorobust.common import skipped
from isorobust.common.params import Params
from stages import base

BASELINE = "baseline"  # the arm on which transfer images are made


class Settings(NamedTuple):
    data: str
    attack: object
    device: str
    threads: int


def load(params: Params) -> Settings:
    """All that this stage reads of params.yaml."""
    from isorobust.attacks.settings import AttackSettings

    data = params.get("data", "name")
    return Settings(data, params.recipe(AttackSettings, data, "attack"), params.get("device"), params.block(int, "threads"))


def attack(arm: str, data: Path, models: Path, results: Path) -> tracking.Record | None:
    model, metrics, verdicts = models / f"{arm}.safetensors", results / f"{arm}.json", results / f"{arm}.npz"
    if skipped.is_skipped(model):
        return skipped.write_attacked(metrics, verdicts)
    from isorobust.common import artifacts
    from isorobust.common.runtime import describe, prepare
    from isorobust.common.splits import read_split
    from isorobust.evaluation.arm import attack_arm
    from isorobust.evaluation.units import Store
    from isorobust.networks.checkpoint import Checkpoint

    settings = load(Params.read())
    device = prepare(settings.device, settings.threads)
    networks = [Checkpoint.read(path) for path in (model, models / f"{BASELINE}.safetensors")]
    test = read_split(data / "test.npz")
    for checkpoint in networks:
        checkpoint.check_split(test, data / "test.npz")
    numbers, arrays = attack_arm(
        *networks,
        test,
        settings.attack,
        Store(base.shared_state() / "units"),
        device,
        is_surrogate=arm == BASELINE,
    )
    artifacts.write_measured(metrics, numbers, verdicts, arrays)
    return tracking.Record("attack", arm, settings.data, metrics, facts=describe(device))


if __name__ == "__main__":
    name, *folders = base.arguments(__doc__)
    base.run("attack", name, lambda: attack(name, *map(Path, folders)))
