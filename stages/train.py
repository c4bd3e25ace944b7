"""Train one arm on all its seeds: `python -m stages.train ARM DATA_DIR MODEL_DIR RESULT_DIR [SWEEP_DIR]`."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from isorobust import tracking
from isorobust.common import artifacts, skipped
from isorobust.common.params import SKIP, Params
from stages import base


class Settings(NamedTuple):
    data: str
    arm: object
    network: object = None
    training: object = None
    seeds: object = None
    device: str = "auto"
    threads: int = 0


def load(params: Params, arm: str, choice: dict | None = None) -> Settings:
    """All that this stage reads of params.yaml; `choice`: what the sweep chose for a tuned arm."""
    data = params.get("data", "name")
    blocks = params.arms(data, arm)
    if blocks[arm] == SKIP:
        return Settings(data, SKIP)
    from isorobust.networks.settings import NetworkSettings
    from isorobust.objectives.settings import resolve, twin_of
    from isorobust.training.settings import Seeds, TrainingSettings

    if (base := twin_of(blocks[arm])) is not None:
        blocks |= params.arms(data, base)
    return Settings(
        data,
        resolve(arm, blocks, lambda *path: params.where(data, "arms", path), choice),
        params.block(NetworkSettings, "recipes", data, "network"),
        params.recipe(TrainingSettings, data, "training"),
        params.block(Seeds, "recipes", data, "seeds"),
        params.get("device"),
        params.block(int, "threads"),
    )


def train(arm: str, data: Path, models: Path, results: Path, sweep: Path | None = None) -> tracking.Record | None:
    choice = None if sweep is None else artifacts.read_json(sweep / f"{arm}.json").get("chosen")
    settings = load(Params.read(), arm, choice)
    model, metrics, curves = models / f"{arm}.safetensors", results / f"{arm}.json", results / f"{arm}.csv"
    if settings.arm == SKIP:
        return skipped.write_trained(model, metrics, curves)
    from isorobust.common.runtime import describe, prepare
    from isorobust.common.splits import read_split
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


def main(arm: str, *folders: str) -> None:
    base.run("train", arm, lambda: train(arm, *map(Path, folders)))


if __name__ == "__main__":
    main(*base.arguments(__doc__))
