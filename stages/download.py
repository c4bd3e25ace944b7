"""Make the splits of the data set `data.name`: `python -m stages.download DATA_DIR RESULT_DIR`."""

from __future__ import annotations

from pathlib import Path

from isorobust import tracking
from isorobust.common.params import Params
from isorobust.data.settings import DataSettings
from isorobust.errors import choose
from isorobust.progress import say
from stages import base


def load(params: Params) -> DataSettings:
    """All that this stage reads of params.yaml."""
    return params.block(DataSettings, "data")


def download(folder: Path, results: Path) -> tracking.Record:
    from isorobust.common import artifacts
    from isorobust.common.splits import write_split
    from isorobust.data.sources import make

    settings, metrics = load(Params.read()), results / "data.json"
    source = choose(settings.sets, settings.name, "params.yaml: data.name")
    splits = make(settings.name, source, base.shared_state() / "raw" / settings.name)
    for part, split in splits._asdict().items():
        say(f"{part}: {len(split.labels)} images {list(split.images.shape[1:])}, per class {split.class_counts()}")
        write_split(folder / f"{part}.npz", split)
    artifacts.write_json(metrics, splits.counts())
    return tracking.Record("download", None, settings.name, metrics)


if __name__ == "__main__":
    base.run("download", None, lambda: download(*map(Path, base.arguments(__doc__))))
