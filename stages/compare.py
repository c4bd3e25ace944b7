"""Compare the arms: `python -m stages.compare RESULT_DIR METRIC_DIR [PUBLISHED_DIR]`."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from isorobust import tracking
from isorobust.common.params import SKIP, Params
from isorobust.compare.settings import CompareSettings
from isorobust.connectivity.settings import ConnectivitySettings
from stages import base


class Settings(NamedTuple):
    data: str
    arms: dict  # the recipe's blocks, in the order of the list `arms`
    plug_ins: list[str]
    setup: dict  # the recipe's blocks `network` and `training`, which tables name
    compare: CompareSettings
    connectivity: object = None  # None: the recipe skips it


def load(params: Params) -> Settings:
    """All that this stage reads of params.yaml."""
    data = params.get("data", "name")
    blocks = params.arms(data)
    arms = {arm: blocks[arm] for arm in params.block(list[str], "arms")}
    plug_ins = list(params.block(dict[str, str], "reclassifiers"))
    setup = {"network": params.get("recipes", data, "network"), "training": params.recipe(dict, data, "training")}
    compared = params.recipe(CompareSettings, data, "compare")
    if params.get("recipes", data, "connectivity") == SKIP:
        return Settings(data, arms, plug_ins, setup, compared)
    return Settings(data, arms, plug_ins, setup, compared, params.recipe(ConnectivitySettings, data, "connectivity"))


def compare(results: Path, metrics: Path, published: Path | None = None) -> tracking.Record:
    """`published`: an earlier comparison, for what did not run here (isorobust.commands.extend)."""
    from isorobust.compare.publish import publish

    data, arms, plug_ins, setup, *settings = load(Params.read())
    publish(results, metrics, data, arms, plug_ins, setup, *settings, published=published)
    extra = (
        metrics / "compare.json",
        metrics / "report.md",
        *sorted(metrics.glob("*.png")),
        *sorted((results / "figures").glob("*.png")),
    )
    return tracking.Record("compare", None, data, metrics / "summary.json", extra=extra)


if __name__ == "__main__":
    base.run("compare", None, lambda: compare(*map(Path, base.arguments(__doc__))))
