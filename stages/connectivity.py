"""Measure how inputs are connected in one arm: `python -m stages.connectivity ARM MODEL DATA_DIR RESULT_DIR`."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from isorobust import tracking
from isorobust.common import skipped
from isorobust.common.params import SKIP, Params
from isorobust.connectivity.settings import MEASURED
from stages import base


class Settings(NamedTuple):
    data: str
    connectivity: object
    device: str = "auto"
    threads: int = 0


def load(params: Params) -> Settings:
    """All that this stage reads of params.yaml."""
    data = params.get("data", "name")
    if params.get("recipes", data, "connectivity") == SKIP:
        return Settings(data, SKIP)
    from isorobust.connectivity.settings import ConnectivitySettings

    block = params.recipe(ConnectivitySettings, data, "connectivity")
    return Settings(data, block, params.get("device"), params.block(int, "threads"))


def connectivity(arm: str, model: Path, data: Path, results: Path) -> tracking.Record | None:
    settings = load(Params.read())
    metrics, arrays = results / f"{arm}.json", results / f"{arm}.npz"
    if settings.connectivity == SKIP or arm not in settings.connectivity.arms or skipped.is_skipped(model):
        return skipped.write_measured(metrics, arrays)
    from isorobust.common import artifacts
    from isorobust.common.runtime import describe, prepare
    from isorobust.common.splits import read_split
    from isorobust.connectivity.arms import networks
    from isorobust.connectivity.measure import measure
    from isorobust.connectivity.settings import UNTRAINED
    from isorobust.networks.checkpoint import Checkpoint

    device = prepare(settings.device, settings.threads)
    checkpoint, trained = Checkpoint.read(model), arm != UNTRAINED
    test = checkpoint.check_split(read_split(data / "test.npz"), data / "test.npz")
    chosen = networks(checkpoint, settings.connectivity.seeds, trained)
    numbers, found = measure(chosen, test, settings.connectivity, device, trained)
    artifacts.write_measured(metrics, numbers, arrays, found)
    return tracking.Record("connectivity", arm, settings.data, metrics, facts=describe(device))


if __name__ == "__main__":
    name, *paths = base.arguments(__doc__)
    base.run("connectivity", name, lambda: connectivity(name, *map(Path, paths)), names=MEASURED)
