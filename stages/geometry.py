"""Measure how isometric one arm's representations are: `python -m stages.geometry ARM DATA_DIR MODEL_DIR RESULT_DIR`."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from isorobust import tracking
from isorobust.common import skipped
from isorobust.common.params import Params
from stages import base


class Settings(NamedTuple):
    data: str
    geometry: object
    device: str
    threads: int


def load(params: Params) -> Settings:
    """All that this stage reads of params.yaml."""
    from isorobust.geometry.settings import GeometrySettings

    data = params.get("data", "name")
    return Settings(data, params.recipe(GeometrySettings, data, "geometry"), params.get("device"), params.block(int, "threads"))


def geometry(arm: str, data: Path, models: Path, results: Path) -> tracking.Record | None:
    model, metrics, arrays = models / f"{arm}.safetensors", results / f"{arm}.json", results / f"{arm}.npz"
    if skipped.is_skipped(model):
        return skipped.write_measured(metrics, arrays)
    from isorobust.common import artifacts
    from isorobust.common.runtime import describe, prepare
    from isorobust.common.splits import read_split
    from isorobust.geometry.arm import measure_arm
    from isorobust.networks.checkpoint import Checkpoint

    settings = load(Params.read())
    device = prepare(settings.device, settings.threads)
    checkpoint = Checkpoint.read(model)
    test = checkpoint.check_split(read_split(data / "test.npz"), data / "test.npz")
    numbers, measured = measure_arm(checkpoint, test, settings.geometry, device)
    artifacts.write_measured(metrics, numbers, arrays, measured)
    return tracking.Record("geometry", arm, settings.data, metrics, facts=describe(device))


if __name__ == "__main__":
    name, *folders = base.arguments(__doc__)
    base.run("geometry", name, lambda: geometry(name, *map(Path, folders)))
