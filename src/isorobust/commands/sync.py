"""Write the MLflow runs that are missing: `python -m isorobust.commands.sync`.

DVC's run cache restores outputs without running a stage, and a lost database loses runs; both are
healed from the metric files. Versions, threads and device are those of the data set's provenance.json;
without one they are not known and no tags are made up.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from isorobust import tracking
from isorobust.commands import cli
from isorobust.commands.provenance import FILE
from isorobust.common import artifacts
from isorobust.common.params import Params
from isorobust.errors import UserError
from isorobust.schema import validate
from isorobust.toys.settings import Toys


def records(metrics: Path = cli.METRICS, results: Path = cli.RESULTS) -> list[tracking.Record]:
    """One record per published result: the data, every arm's stages, and the comparison."""
    found = []
    for folder in sorted(path.parent for path in metrics.glob("*/compare.json")):
        data, made = folder.name, results / folder.name
        known = _readable(folder / FILE)
        own = {"facts": known.get("runtime", {}), "recipe": known.get("recipe")}
        for stage in ("train", "sweep", "attack", "geometry", "connectivity", "detect"):
            place = made if stage == "sweep" else folder  # compare.json holds what the sweeps chose
            for path in sorted((place / stage).glob("*.json")):
                if not _skipped(path):
                    curves = _there(made / stage / f"{path.stem}.csv") if stage == "train" else ()
                    extra = _there(made / stage / f"{path.stem}{'.csv' if stage == 'sweep' else '-ablation.csv'}")
                    found.append(tracking.Record(stage, path.stem, data, path, *(curves or [None]), extra, **own))
        for stage, path, curves in (
            ("download", made / "data.json", ()),
            ("train-hierarchy", made / "hierarchy" / "train.json", _there(made / "hierarchy" / "train.csv")),
            ("attack-hierarchy", folder / "hierarchy.json", ()),
            ("percolation", folder / "percolation.json", ()),
        ):
            if path.exists() and not _skipped(path):
                found.append(tracking.Record(stage, None, data, path, *(curves or [None]), **own))
        for path in _there(folder / "summary.json"):
            extra = _there(folder / "compare.json", folder / "report.md", *sorted(folder.glob("*.png")))
            found.append(tracking.Record("compare", None, data, path, extra=extra, **own))
    toys = (path for path in sorted(metrics.glob("*/summary.json")) if path.parent.name in Toys.model_fields)
    return found + [tracking.Record("toys", None, path.parent.name, path) for path in toys]


def _readable(path: Path) -> dict[str, Any]:
    """A JSON file's content; nothing where there is none or it is damaged, which of a result is told when its run is written."""
    try:
        return artifacts.read_json(path) if path.exists() else {}
    except UserError:
        return {}


def _skipped(path: Path) -> bool:
    return bool(_readable(path).get("skipped"))


def _there(*paths: Path) -> tuple[Path, ...]:
    return tuple(path for path in paths if path.exists())


def main(argv: Sequence[str] = ()) -> int:
    cli.no_arguments("sync", argv)
    validate(Params.read())  # not in a folder that is no checkout
    try:
        written, there, problems = tracking.sync(records())
    except Exception as error:  # whatever MLflow raises: say it in one line, and let the caller see the status
        print(f"sync: MLflow at {tracking.uri()} failed ({type(error).__name__}: {str(error).splitlines()[0][:200]})")
        return 1
    for problem in problems:
        print(f"sync: {problem}")
    print(f"sync: {written} runs written, {there} were there ({tracking.uri()})")
    return int(bool(problems))


if __name__ == "__main__":
    cli.run(lambda: main(sys.argv[1:]))
