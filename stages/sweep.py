"""Choose a tuned arm's numbers on val: `python -m stages.sweep ARM DATA_DIR RESULT_DIR`."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from isorobust import tracking
from isorobust.common import artifacts, skipped
from isorobust.common.params import SKIP, Params
from isorobust.errors import found
from stages import base


class Settings(NamedTuple):
    data: str
    block: object
    objective: object = None
    network: object = None
    training: object = None
    sweep: object = None
    device: str = "auto"
    threads: int = 0


def load(params: Params, arm: str) -> Settings:
    """All that this stage reads of params.yaml."""
    data = params.get("data", "name")
    blocks = params.arms(data, arm)
    if blocks[arm] == SKIP:
        return Settings(data, SKIP)
    from isorobust.networks.settings import NetworkSettings
    from isorobust.objectives.settings import Tuned, base_of, checked, twin_of
    from isorobust.sweep.settings import SweepSettings
    from isorobust.training.settings import TrainingSettings

    def where(*path: str) -> str:
        return params.where(data, "arms", path)

    block = checked(arm, blocks, where)
    if not isinstance(block, Tuned):
        raise found(where(arm), "a block without isometry_grid", "one with twin_of and isometry_grid, or skip")
    blocks |= params.arms(data, twin_of(blocks[arm]))
    return Settings(
        data,
        block,
        base_of(arm, blocks, where),
        params.block(NetworkSettings, "recipes", data, "network"),
        params.recipe(TrainingSettings, data, "training"),
        params.recipe(SweepSettings, data, "sweep"),
        params.get("device"),
        params.block(int, "threads"),
    )


def sweep(arm: str, data: Path, results: Path) -> tracking.Record | None:
    settings = load(Params.read(), arm)
    metrics, table = results / f"{arm}.json", results / f"{arm}.csv"
    if settings.block == SKIP:
        return skipped.write_swept(metrics, table)
    from isorobust.common.runtime import describe, prepare
    from isorobust.common.splits import read_split
    from isorobust.sweep.grid import sweep as run_sweep

    device = prepare(settings.device, settings.threads)
    swept = run_sweep(
        read_split(data / "train.npz"),
        read_split(data / "val.npz"),
        settings.network,
        settings.objective,
        settings.block,
        settings.training,
        settings.sweep,
        device,
        where=f"params.yaml: recipes.{settings.data}.arms.{arm}",
    )
    artifacts.write_json(metrics, swept.metrics())
    artifacts.write_csv(table, *swept.table())
    return tracking.Record("sweep", arm, settings.data, metrics, extra=(table,), facts=describe(device))


if __name__ == "__main__":
    name, *folders = base.arguments(__doc__)
    base.run("sweep", name, lambda: sweep(name, *map(Path, folders)))
