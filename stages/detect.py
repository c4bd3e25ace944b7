"""Detect one arm's adversarial images by paths to them: `python -m stages.detect ARM MODEL DATA_DIR RESULT_DIR`."""

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
    detection: object
    device: str = "auto"
    threads: int = 0


def load(params: Params) -> Settings:
    """All that this stage reads of params.yaml."""
    data = params.get("data", "name")
    if params.get("recipes", data, "detection") == SKIP:
        return Settings(data, SKIP)
    from isorobust.detection.settings import DetectionSettings

    block = params.recipe(DetectionSettings, data, "detection")
    return Settings(data, block, params.get("device"), params.block(int, "threads"))


def detect(arm: str, model: Path, data: Path, results: Path) -> tracking.Record | None:
    settings = load(Params.read())
    metrics, arrays = results / f"{arm}.json", results / f"{arm}.npz"
    if settings.detection == SKIP or arm not in settings.detection.arms or skipped.is_skipped(model):
        return skipped.write_measured(metrics, arrays)
    from isorobust.common import artifacts
    from isorobust.common.runtime import describe, prepare
    from isorobust.common.splits import read_split
    from isorobust.connectivity.arms import networks
    from isorobust.connectivity.settings import UNTRAINED
    from isorobust.detection.measure import measure
    from isorobust.networks.checkpoint import Checkpoint

    device = prepare(settings.device, settings.threads)
    checkpoint, trained = Checkpoint.read(model), arm != UNTRAINED
    splits = [
        checkpoint.check_split(read_split(path), path) for path in (data / f"{name}.npz" for name in ("train", "val", "test"))
    ]
    chosen = networks(checkpoint, settings.detection.seeds, trained)
    numbers, found = measure(chosen, *splits, settings.detection, device, trained)
    artifacts.write_measured(metrics, numbers, arrays, found)
    return tracking.Record("detect", arm, settings.data, metrics, facts=describe(device))


if __name__ == "__main__":
    name, *paths = base.arguments(__doc__)
    base.run("detect", name, lambda: detect(name, *map(Path, paths)), names=MEASURED)
