"""Measure connection by input dimension: `python -m stages.percolation DATA_DIR RESULT_DIR`."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from isorobust import tracking
from isorobust.common import artifacts, skipped
from isorobust.common.params import SKIP, Params
from stages import base


class Settings(NamedTuple):
    data: str
    percolation: object
    connectivity: object = None
    network: object = None
    training: object = None
    seeds: object = None
    device: str = "auto"
    threads: int = 0


def load(params: Params) -> Settings:
    """All that this stage reads of params.yaml."""
    data = params.get("data", "name")
    if params.get("recipes", data, "percolation") == SKIP:
        return Settings(data, SKIP)
    from isorobust.connectivity.settings import ConnectivitySettings
    from isorobust.networks.settings import NetworkSettings
    from isorobust.percolation.settings import PercolationSettings
    from isorobust.training.settings import Seeds, TrainingSettings

    return Settings(
        data,
        params.recipe(PercolationSettings, data, "percolation"),
        params.recipe(ConnectivitySettings, data, "connectivity"),
        params.block(NetworkSettings, "recipes", data, "network"),
        params.recipe(TrainingSettings, data, "training"),
        params.block(Seeds, "recipes", data, "seeds"),
        params.get("device"),
        params.block(int, "threads"),
    )


def percolation(data: Path, results: Path) -> tracking.Record | None:
    settings = load(Params.read())
    metrics = results / "percolation.json"
    if settings.percolation == SKIP:
        return artifacts.write_json(metrics, skipped.MARK)
    from isorobust.common.runtime import describe, prepare
    from isorobust.common.splits import read_split
    from isorobust.percolation.measure import percolation

    device = prepare(settings.device, settings.threads)
    numbers = percolation(
        *(read_split(data / f"{name}.npz") for name in ("train", "val", "test")),
        settings.network,
        settings.training,
        settings.seeds,
        settings.percolation,
        settings.connectivity,
        device,
    )
    artifacts.write_json(metrics, numbers)
    return tracking.Record("percolation", None, settings.data, metrics, facts=describe(device))


if __name__ == "__main__":
    base.run("percolation", None, lambda: percolation(*map(Path, base.arguments(__doc__))))
