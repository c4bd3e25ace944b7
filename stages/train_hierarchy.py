"""Train the recipe's hierarchies on all seeds: `python -m stages.train_hierarchy DATA_DIR MODEL_DIR RESULT_DIR`."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from isorobust import tracking
from isorobust.common import skipped
from isorobust.common.params import SKIP, Params
from stages import base


class Settings(NamedTuple):
    data: str
    hierarchy: object
    training: object = None
    seeds: object = None
    device: str = "auto"
    threads: int = 0


def load(params: Params) -> Settings:
    """All that this stage reads of params.yaml."""
    data = params.get("data", "name")
    if params.get("recipes", data, "hierarchy") == SKIP:
        return Settings(data, SKIP)
    from isorobust.hierarchy.settings import HierarchySettings
    from isorobust.training.settings import Seeds, TrainingSettings

    return Settings(
        data,
        params.recipe(HierarchySettings, data, "hierarchy"),
        params.recipe(TrainingSettings, data, "training"),
        params.block(Seeds, "recipes", data, "seeds"),
        params.get("device"),
        params.block(int, "threads"),
    )


def train(data: Path, models: Path, results: Path) -> tracking.Record | None:
    settings = load(Params.read())
    model, metrics, curves = models / "hierarchy.safetensors", results / "train.json", results / "train.csv"
    if settings.hierarchy == SKIP:
        return skipped.write_trained(model, metrics, curves)
    from isorobust.common.runtime import describe, prepare
    from isorobust.common.splits import read_split
    from isorobust.hierarchy.train import train_hierarchies

    device = prepare(settings.device, settings.threads)
    trained = train_hierarchies(
        read_split(data / "train.npz"),
        read_split(data / "val.npz"),
        settings.hierarchy,
        settings.training,
        settings.seeds,
        device,
        where=f"params.yaml: recipes.{settings.data}.hierarchy",
        data=settings.data,
    )
    trained.write(model, metrics, curves)
    return tracking.Record("train-hierarchy", None, settings.data, metrics, curves, facts=describe(device))


if __name__ == "__main__":
    base.run("train-hierarchy", None, lambda: train(*map(Path, base.arguments(__doc__))))
