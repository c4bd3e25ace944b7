"""Attack the hierarchies level by level: `python -m stages.attack_hierarchy DATA_DIR MODEL_DIR RESULT_DIR`."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from isorobust import tracking
from isorobust.common import artifacts, skipped
from isorobust.common.params import Params
from stages import base

BASELINE = "baseline"  # the flat network that the hierarchies are held against


class Settings(NamedTuple):
    data: str
    attack: object
    device: str
    threads: int


def load(params: Params) -> Settings:
    """All that this stage reads of params.yaml."""
    from isorobust.hierarchy.attack_settings import LevelAttack

    data = params.get("data", "name")
    block = params.recipe(LevelAttack, data, "hierarchy-attack")
    return Settings(data, block, params.get("device"), params.block(int, "threads"))


def attack(data: Path, models: Path, results: Path) -> tracking.Record | None:
    model, metrics = models / "hierarchy.safetensors", results / "attack.json"
    if skipped.is_skipped(model):
        return artifacts.write_json(metrics, skipped.MARK)
    from isorobust.common.runtime import describe, prepare
    from isorobust.common.splits import read_split
    from isorobust.hierarchy.evaluate import attack_hierarchies
    from isorobust.networks.checkpoint import Checkpoint

    settings = load(Params.read())
    device = prepare(settings.device, settings.threads)
    networks = [Checkpoint.read(path) for path in (model, models / f"{BASELINE}.safetensors")]
    test = read_split(data / "test.npz")
    for checkpoint in networks:
        checkpoint.check_split(test, data / "test.npz")
    found = attack_hierarchies(
        *networks,
        test,
        settings.attack,
        device,
        where=f"params.yaml: recipes.{settings.data}.hierarchy-attack",
    )
    artifacts.write_json(metrics, found)
    return tracking.Record("attack-hierarchy", None, settings.data, metrics, facts=describe(device))


if __name__ == "__main__":
    base.run("attack-hierarchy", None, lambda: attack(*map(Path, base.arguments(__doc__))))
