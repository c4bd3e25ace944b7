"""Writing what the stage `compare` publishes: tracked files under metrics/, figures under results/."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from isorobust.common import artifacts
from isorobust.compare import cells, connectivity, csv_rows, detection, percolation, plots, reclassifiers, tables
from isorobust.compare.analysis import add_reclassifiers, compare, summary
from isorobust.compare.report import (
    CONNECTIVITY_FIGURE,
    DETECTION_FIGURE,
    FACTORIAL_FIGURE,
    GEOMETRY_FIGURE,
    PERCOLATION_FIGURE,
    RECLASSIFIER_FIGURE,
    ROBUST_FIGURE,
    report,
)
from isorobust.compare.results import (
    CURVES,
    ArmResults,
    measured,
    ran,
    read,
    read_reclassifiers,
    read_sweeps,
    remeasured,
    verdict_bytes,
)
from isorobust.compare.settings import CompareSettings
from isorobust.connectivity.settings import MEASURED, ConnectivitySettings
from isorobust.drawing import png
from isorobust.objectives.settings import twin_of

FOLDERS = ("train", "attack", "geometry", "connectivity", "detect")  # under metrics/<data>, of which `compare` writes all


def publish(
    results_dir: Path,
    metrics_dir: Path,
    data: str,
    arms: dict[str, Any],
    plug_ins: list[str],
    setup: dict[str, Any],
    settings: CompareSettings,
    paths: ConnectivitySettings | None,
    published: Path | None = None,
) -> dict[str, Any]:
    """Compare the arms and write everything; gives the tree of compare.json. Nothing is written before all is computed.

    `arms`: the recipe's blocks by name, in the order of tables; `plug_ins`: the reclassifiers' names;
    `setup`: the recipe's blocks `network` and `training`; `paths`: its block `connectivity`, or None.
    `published`: what an earlier comparison wrote, which stands for arms and studies that did not run here.
    """
    before = artifacts.read_json(published / "compare.json") if published else None
    twins, tuned, retuned = twins_of(arms)
    results = read(results_dir, list(arms), published)
    tree = compare(results, settings, data, twins, retuned, before)
    tree["setup"] = setup
    files = _hierarchy(tree, results_dir, metrics_dir, before)
    swept = [arm for arm in tuned if not before or (results_dir / "sweep" / f"{arm}.json").exists()]
    tree["sweeps"] = _with_published("sweeps", tuned, read_sweeps(results_dir, swept), before)
    names = {arm: cells.named(tree, arm) for arm in tree["arms"]}
    files |= _figures([result for result in results if ran(results_dir, result.arm)], tree, results_dir / "figures")
    files[metrics_dir / ROBUST_FIGURE] = png(plots.robust_accuracy(tree))
    files[metrics_dir / FACTORIAL_FIGURE] = png(plots.complementarity(tree, tables.factorial_entries(tree)))
    geometries = [(result.arm, result.measured) for result in results]
    files[metrics_dir / GEOMETRY_FIGURE] = png(plots.geometry(tree["data"], geometries, names))
    files[metrics_dir / "summary.json"] = artifacts.json_bytes(summary(tree))
    plugged = read_reclassifiers(results_dir, plug_ins, published)
    add_reclassifiers(tree, results, plugged, settings, before)
    found = reclassifiers.read(results_dir, [one for one in plugged if ran(results_dir, one.arm)])
    tree["reclassifiers"] = _with_published("reclassifiers", plug_ins, found, before)
    if tree["reclassifiers"] or not before:
        files[metrics_dir / RECLASSIFIER_FIGURE] = png(reclassifiers.figure(tree["reclassifiers"], data))
    files |= _connectivity(tree, results_dir, metrics_dir, paths, settings.reference, before)
    files |= _detection(tree, results_dir, metrics_dir, settings.reference, before)
    arms = list(arms)
    for part in ("train", "attack", "geometry"):
        for arm in arms if part == "geometry" else [*arms, *plug_ins]:
            if not before or ran(results_dir, arm) or (part == "geometry" and remeasured(results_dir, arm)):
                files[metrics_dir / part / f"{arm}.json"] = (results_dir / part / f"{arm}.json").read_bytes()
    for one in (*results, *plugged):
        if ran(results_dir, one.arm):
            files[metrics_dir / "attack" / f"{one.arm}.npz"] = verdict_bytes(one.arrays)
    for norm in cells.NORM_TITLES:
        files[metrics_dir / f"robust-{norm}.csv"] = artifacts.csv_bytes(*csv_rows.wide_rows(tree, arms, norm, "strongest"))
        files[metrics_dir / f"paper-fgsm-{norm}.csv"] = artifacts.csv_bytes(*csv_rows.wide_rows(tree, arms, norm, "paper-fgsm"))
    for column, name in CURVES.items():
        files[metrics_dir / name] = artifacts.csv_bytes(*csv_rows.curve_rows(results, arms, column))
    files[metrics_dir / "compare.csv"] = artifacts.csv_bytes(csv_rows.CSV_HEADER, csv_rows.long_rows(tree))
    files[metrics_dir / "complementarity.csv"] = artifacts.csv_bytes(*csv_rows.factorial_rows(tree))
    files[metrics_dir / "report.md"] = report(tree).encode()
    files[metrics_dir / "compare.json"] = artifacts.json_bytes(tree)
    for path, content in files.items():
        artifacts.write_bytes(path, content)
    if not before:
        for folder in FOLDERS:  # DVC leaves what was there, so that a mistake in params.yaml costs no results
            for path in set((metrics_dir / folder).glob("*")) - files.keys():
                path.unlink()
    return tree


def twins_of(arms: dict[str, Any]) -> tuple[dict[str, str], list[str], list[str]]:
    """From a recipe's blocks: twin -> its base; the tuned ones; of these, those that tune the base's own numbers too."""
    twins = {arm: base for arm, block in arms.items() if (base := twin_of(block)) is not None}
    tuned = [arm for arm in twins if "isometry_grid" in arms[arm]]
    return twins, tuned, [arm for arm in tuned if arms[arm].get("grid")]


def _with_published(part: str, order: list[str], found: dict[str, Any], before: dict[str, Any] | None) -> dict[str, Any]:
    """A part of the tree: what was found here, and for other names what is published."""
    known = {**(before[part] if before else {}), **found}
    return {name: known[name] for name in order if name in known}


def _hierarchy(tree: dict[str, Any], results_dir: Path, metrics_dir: Path, before: dict[str, Any] | None) -> dict[Path, bytes]:
    """Puts the numbers on hierarchies into the tree; gives the file. As in the next two: what did not run here, as published."""
    path = results_dir / "hierarchy" / "attack.json"
    if before and not measured(path):
        tree["hierarchy"] = before["hierarchy"]
        return {}
    found = artifacts.read_json(path)
    tree["hierarchy"] = {} if found.get("skipped") else found
    return {metrics_dir / "hierarchy.json": path.read_bytes()}


def _connectivity(
    tree: dict[str, Any],
    results_dir: Path,
    metrics_dir: Path,
    paths: ConnectivitySettings | None,
    reference: str,
    before: dict[str, Any] | None,
) -> dict[Path, bytes]:
    """Puts the numbers on paths into the tree; gives the files."""
    files: dict[Path, bytes] = {}
    if before and not measured(results_dir / "connectivity"):
        tree["connectivity"] = before["connectivity"]
    else:
        found = {} if paths is None else connectivity.read(results_dir, paths.arms)
        tree["connectivity"] = connectivity.tree(found, paths, reference) if found else {}
        files[metrics_dir / CONNECTIVITY_FIGURE] = png(connectivity.figure(found, tree["connectivity"], tree["data"]))
        files |= _copies(results_dir, metrics_dir, "connectivity")
    sizes = results_dir / "percolation.json"
    if before and not measured(sizes):
        tree["percolation"] = before["percolation"]
    else:
        tree["percolation"] = percolation.tree(artifacts.read_json(sizes), paths)
        files[metrics_dir / "percolation.json"] = sizes.read_bytes()
        files[metrics_dir / PERCOLATION_FIGURE] = png(percolation.figure(tree["percolation"], tree["data"]))
    return files


def _detection(
    tree: dict[str, Any], results_dir: Path, metrics_dir: Path, reference: str, before: dict[str, Any] | None
) -> dict[Path, bytes]:
    """Puts the numbers on detection into the tree; gives the files."""
    if before and not measured(results_dir / "detect"):
        tree["detection"] = before["detection"]
        return {}
    found = detection.read(results_dir, MEASURED)
    tree["detection"] = detection.tree(found, reference) if found else {}
    figure = png(detection.figure(found, tree["data"]))
    return {**_copies(results_dir, metrics_dir, "detect"), metrics_dir / DETECTION_FIGURE: figure}


def _copies(results_dir: Path, metrics_dir: Path, study: str) -> dict[Path, bytes]:
    return {metrics_dir / study / f"{arm}.json": (results_dir / study / f"{arm}.json").read_bytes() for arm in MEASURED}


def _figures(results: list[ArmResults], tree: dict[str, Any], folder: Path) -> dict[Path, bytes]:
    """Figures that are not committed, of the arms that ran here."""
    norm, eps = tree["primary"]["norm"], list(tree["primary"]["eps"])[-1]
    made = {
        "training-curves.png": plots.training_curves(results),
        "confusion.png": plots.confusion_matrices(results, norm, eps),
        "adversarial-images.png": plots.adversarial_images(results),
        **{f"sweep-{arm}.png": plots.sweep_heatmaps(arm, swept["table"]) for arm, swept in tree["sweeps"].items()},
    }
    return {folder / name: png(figure) for name, figure in made.items() if figure is not None}
