"""Train one arm on all its seeds: `python -m stages.train ARM DATA_DIR MODEL_DIR RESULT_DIR`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

from isorobust import skipped, tracking
from isorobust.params import SKIP, Params
from stages import base


class Settings(NamedTuple):
    data: str
    arm: object
    network: object = None
    training: object = None
    seeds: object = None
    device: str = "auto"
    threads: int = 0


def load(params: Params, arm: str) -> Settings:
    """All that this stage reads of params.yaml."""
    data = params.get("data", "name")
    if params.get("recipes", data, "arms", arm) == SKIP:
        return Settings(data, SKIP)
    from isorobust.networks.settings import NetworkSettings
    from isorobust.objectives.settings import ArmSettings
    from isorobust.training.settings import Seeds, TrainingSettings

    return Settings(
        data,
        params.block(ArmSettings, "recipes", data, "arms", arm),
        params.block(NetworkSettings, "recipes", data, "network"),
        params.block(TrainingSettings, "recipes", data, "training"),
        params.block(Seeds, "recipes", data, "seeds"),
        params.get("device"),
        params.block(int, "threads"),
    )


def train(arm: str, data: Path, models: Path, results: Path) -> tracking.Record | None:
    settings = load(Params.read(), arm)
    model, metrics, curves = models / f"{arm}.safetensors", results / f"{arm}.json", results / f"{arm}.csv"
    if settings.arm == SKIP:
        return skipped.write_trained(model, metrics, curves)
    from isorobust.data.splits import read_split
    from isorobust.runtime import describe, prepare
    from isorobust.training.arm import train_arm

    device = prepare(settings.device, settings.threads)
    trained = train_arm(
        read_split(data / "train.npz"),
        read_split(data / "val.npz"),
        settings.network,
        settings.arm,
        settings.training,
        settings.seeds,
        device,
        labels={"arm": arm, "data": settings.data},
    )
    trained.write(model, metrics, curves)
    return tracking.Record("train", arm, settings.data, metrics, curves, facts=describe(device))


def main(arm: str, argv: list[str] | None = None) -> None:
    data, models, results = map(Path, sys.argv[1:] if argv is None else argv)
    base.run("train", arm, lambda: train(arm, data, models, results))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
