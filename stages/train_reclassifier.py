"""Fine-tune the plug-in on a trained arm: `python -m stages.train_reclassifier NAME BASE DATA_DIR MODEL_DIR RESULT_DIR`."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from isorobust import tracking
from isorobust.common import artifacts, skipped
from isorobust.common.params import SKIP, Params
from stages import base


class Settings(NamedTuple):
    data: str
    reclassifier: object
    training: object = None
    device: str = "auto"
    threads: int = 0


def load(params: Params) -> Settings:
    """All that this stage reads of params.yaml."""
    data = params.get("data", "name")
    if params.get("recipes", data, "reclassifier") == SKIP:
        return Settings(data, SKIP)
    from isorobust.fine_tuning.settings import ReclassifierSettings
    from isorobust.training.settings import TrainingSettings

    return Settings(
        data,
        params.recipe(ReclassifierSettings, data, "reclassifier"),
        params.recipe(TrainingSettings, data, "training"),
        params.get("device"),
        params.block(int, "threads"),
    )


def train(name: str, base_model: Path, data: Path, models: Path, results: Path) -> tracking.Record | None:
    settings = load(Params.read())
    model, metrics, curves = models / f"{name}.safetensors", results / f"{name}.json", results / f"{name}.csv"
    ablation = results / f"{name}-ablation.csv"
    if settings.reclassifier == SKIP or name not in settings.reclassifier.arms or skipped.is_skipped(base_model):
        artifacts.write_csv(ablation, ["changed"], [])
        return skipped.write_trained(model, metrics, curves)
    from isorobust.common.runtime import describe, prepare
    from isorobust.common.splits import read_split
    from isorobust.fine_tuning.ablation import ablate
    from isorobust.fine_tuning.train import train_reclassifier
    from isorobust.networks.checkpoint import Checkpoint

    device = prepare(settings.device, settings.threads)
    checkpoint = Checkpoint.read(base_model)
    splits = (checkpoint.check_split(read_split(path), path) for path in (data / "train.npz", data / "val.npz"))
    given = checkpoint, *splits
    options = settings.reclassifier, settings.training, device
    trained, table = train_reclassifier(*given, *options, labels={"arm": name}), ablate(*given, *options)
    trained.write(model, metrics, curves)
    artifacts.write_csv(ablation, *table)
    return tracking.Record("train", name, settings.data, metrics, curves, (ablation,), describe(device))


if __name__ == "__main__":
    arm, *paths = base.arguments(__doc__)
    base.run("train", arm, lambda: train(arm, *map(Path, paths)), names="reclassifiers")
