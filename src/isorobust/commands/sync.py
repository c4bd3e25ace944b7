"""Write the MLflow runs that are missing: `python -m isorobust.commands.sync`.

DVC's run cache restores outputs without running a stage, and a lost database loses runs; both are
healed from the metric files. Versions, threads and device are those of the data set's provenance.json;
without one they are not known and no tags are made up.
"""

from __future__ import annotations

from pathlib import Path

from isorobust import tracking
from isorobust.commands import cli
from isorobust.commands.provenance import FILE
from isorobust.common import artifacts


def records(metrics: Path = cli.METRICS, results: Path = cli.RESULTS) -> list[tracking.Record]:
    """One record per published result: the data, every arm's stages, and the comparison."""
    found = []
    for data in cli.data_sets():
        folder = metrics / data
        facts = artifacts.read_json(folder / FILE)["runtime"] if (folder / FILE).exists() else {}
        for stage in ("train", "sweep", "attack", "geometry", "connectivity", "detect"):
            place = results / data if stage == "sweep" else folder  # compare.json holds what the sweeps chose
            for path in sorted((place / stage).glob("*.json")):
                if not artifacts.read_json(path).get("skipped"):
                    curves = results / data / stage / f"{path.stem}.csv"
                    chosen = curves if curves.exists() else None
                    found.append(tracking.Record(stage, path.stem, data, path, chosen, facts=facts))
        for stage, path in (
            ("download", results / data / "data.json"),
            ("train-hierarchy", results / data / "hierarchy" / "train.json"),
            ("attack-hierarchy", folder / "hierarchy.json"),
            ("percolation", folder / "percolation.json"),
        ):
            if path.exists() and not artifacts.read_json(path).get("skipped"):
                found.append(tracking.Record(stage, None, data, path, facts=facts))
        extra = tuple(path for path in (folder / "compare.json", folder / "report.md") if path.exists())
        found.append(tracking.Record("compare", None, data, folder / "summary.json", extra=extra, facts=facts))
    toys = (path for path in sorted(metrics.glob("*/summary.json")) if not (path.parent / "compare.json").exists())
    return found + [tracking.Record("toys", None, path.parent.name, path) for path in toys]


def main() -> int:
    try:
        written, there = tracking.sync(records())
    except Exception as error:  # whatever MLflow raises: say it in one line, and let the caller see the status
        print(f"sync: MLflow at {tracking.uri()} failed ({type(error).__name__}: {str(error).splitlines()[0][:200]})")
        return 1
    print(f"sync: {written} runs written, {there} were there ({tracking.uri()})")
    return 0


if __name__ == "__main__":
    cli.run(main)
