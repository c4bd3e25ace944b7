"""Train, measure and draw one toy: `python -m stages.toys TOY RESULT_DIR METRIC_DIR`."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from isorobust import tracking
from isorobust.common import artifacts
from isorobust.common.params import Params
from stages import base


class Settings(NamedTuple):
    toy: object
    device: str
    threads: int


def load(params: Params, name: str) -> Settings:
    """All that this stage reads of params.yaml."""
    from isorobust.toys.settings import Toys

    kind = Toys.model_fields[name].annotation
    return Settings(params.block(kind, "toys", name), params.get("device"), params.block(int, "threads"))


def toy(name: str, results: Path, metrics: Path) -> tracking.Record:
    from isorobust.common.runtime import describe, prepare
    from isorobust.toys.plots import figures
    from isorobust.toys.study import measures, study

    settings = load(Params.read(), name)
    device = prepare(settings.device, settings.threads)
    done = study(name, settings.toy, device)
    files = {metrics / "summary.json": artifacts.json_bytes(measures(done))}  # before the figures, which need as many points
    files |= {results / "figures" / file: content for file, content in figures(done).items()}
    for path, content in files.items():
        artifacts.write_bytes(path, content)
    pictures = tuple(path for path in files if path.suffix == ".png")
    return tracking.Record("toys", None, name, metrics / "summary.json", extra=pictures, facts=describe(device))


if __name__ == "__main__":
    chosen, *folders = base.arguments(__doc__)
    base.run("toys", chosen, lambda: toy(chosen, *map(Path, folders)))
