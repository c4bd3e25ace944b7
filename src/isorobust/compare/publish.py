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
from isorobust.compare.results import ArmResults, read, read_reclassifiers, read_sweeps
from isorobust.compare.settings import CompareSettings
from isorobust.connectivity.settings import MEASURED, ConnectivitySettings
from isorobust.drawing import png
from isorobust.objectives.settings import twin_of


def publish(
    results_dir: Path,
    metrics_dir: Path,
    data: str,
    arms: dict[str, Any],
    plug_ins: list[str],
    setup: dict[str, Any],
    settings: CompareSettings,
    paths: ConnectivitySettings | None,
) -> dict[str, Any]:
    """Compare the arms and write everything; gives the tree of compare.json. Nothing is written before all is computed.

    `arms`: the recipe's blocks by name, in the order of tables; `plug_ins`: the reclassifiers' names;
    `setup`: the recipe's blocks `network` and `training`; `paths`: its block `connectivity`, or None.
    """
    twins, tuned, retuned = twins_of(arms)
    results = read(results_dir, list(arms))
    tree = compare(results, settings, data, twins, retuned)
    tree["setup"] = setup
    names = {arm: cells.named(tree, arm) for arm in tree["arms"]}
    hierarchy = artifacts.read_json(results_dir / "hierarchy" / "attack.json")
    tree["hierarchy"] = {} if hierarchy.get("skipped") else hierarchy
    tree["sweeps"] = read_sweeps(results_dir, tuned)
    files: dict[Path, bytes] = _figures(results, tree, results_dir / "figures")
    files[metrics_dir / ROBUST_FIGURE] = png(plots.robust_accuracy(tree))
    files[metrics_dir / FACTORIAL_FIGURE] = png(plots.complementarity(tables.factorial_entries(tree), data, names))
    files[metrics_dir / GEOMETRY_FIGURE] = png(plots.geometry([(result.arm, result.measured) for result in results], names))
    files[metrics_dir / "hierarchy.json"] = (results_dir / "hierarchy" / "attack.json").read_bytes()
    files[metrics_dir / "summary.json"] = artifacts.json_bytes(summary(tree))
    plugged = read_reclassifiers(results_dir, plug_ins)
    add_reclassifiers(tree, results, plugged, settings)
    tree["reclassifiers"] = reclassifiers.read(results_dir, plugged)
    files[metrics_dir / RECLASSIFIER_FIGURE] = png(reclassifiers.figure(tree["reclassifiers"], data))
    files |= _connectivity(tree, results_dir, metrics_dir, paths, settings.reference, data)
    files |= _detection(tree, results_dir, metrics_dir, settings.reference, data)
    arms = list(arms)
    for part in ("train", "attack", "geometry"):
        for arm in arms if part == "geometry" else [*arms, *plug_ins]:
            files[metrics_dir / part / f"{arm}.json"] = (results_dir / part / f"{arm}.json").read_bytes()
    for norm in cells.NORM_TITLES:
        files[metrics_dir / f"robust-{norm}.csv"] = artifacts.csv_bytes(*csv_rows.wide_rows(tree, arms, norm, "strongest"))
        files[metrics_dir / f"paper-fgsm-{norm}.csv"] = artifacts.csv_bytes(*csv_rows.wide_rows(tree, arms, norm, "paper-fgsm"))
    for column, name in (("val_accuracy", "val-accuracy"), ("train_loss", "train-loss")):
        files[metrics_dir / f"{name}.csv"] = artifacts.csv_bytes(*csv_rows.curve_rows(results, arms, column))
    files[metrics_dir / "compare.csv"] = artifacts.csv_bytes(csv_rows.CSV_HEADER, csv_rows.long_rows(tree))
    files[metrics_dir / "complementarity.csv"] = artifacts.csv_bytes(*csv_rows.factorial_rows(tree))
    files[metrics_dir / "report.md"] = report(tree).encode()
    files[metrics_dir / "compare.json"] = artifacts.json_bytes(tree)
    for path, content in files.items():
        artifacts.write_bytes(path, content)
    return tree


def twins_of(arms: dict[str, Any]) -> tuple[dict[str, str], list[str], list[str]]:
    """From a recipe's blocks: twin -> its base; the tuned ones; of these, those that tune the base's own numbers too."""
    twins = {arm: base for arm, block in arms.items() if (base := twin_of(block)) is not None}
    tuned = [arm for arm in twins if "isometry_grid" in arms[arm]]
    return twins, tuned, [arm for arm in tuned if arms[arm].get("grid")]


def _connectivity(
    tree: dict[str, Any],
    results_dir: Path,
    metrics_dir: Path,
    paths: ConnectivitySettings | None,
    reference: str,
    data: str,
) -> dict[Path, bytes]:
    """Puts the numbers on paths into the tree; gives the files."""
    found = {} if paths is None else connectivity.read(results_dir, paths.arms)
    tree["connectivity"] = connectivity.tree(found, paths, reference) if found else {}
    sizes = results_dir / "percolation.json"
    tree["percolation"] = percolation.tree(artifacts.read_json(sizes), paths)
    files = {
        metrics_dir / "connectivity" / f"{arm}.json": (results_dir / "connectivity" / f"{arm}.json").read_bytes()
        for arm in MEASURED
    }
    files[metrics_dir / "percolation.json"] = sizes.read_bytes()
    files[metrics_dir / PERCOLATION_FIGURE] = png(percolation.figure(tree["percolation"], data))
    return {**files, metrics_dir / CONNECTIVITY_FIGURE: png(connectivity.figure(found, tree["connectivity"], data))}


def _detection(tree: dict[str, Any], results_dir: Path, metrics_dir: Path, reference: str, data: str) -> dict[Path, bytes]:
    """Puts the numbers on detection into the tree; gives the files."""
    found = detection.read(results_dir, MEASURED)
    tree["detection"] = detection.tree(found, reference) if found else {}
    files = {metrics_dir / "detect" / f"{arm}.json": (results_dir / "detect" / f"{arm}.json").read_bytes() for arm in MEASURED}
    return {**files, metrics_dir / DETECTION_FIGURE: png(detection.figure(found, data))}


def _figures(results: list[ArmResults], tree: dict[str, Any], folder: Path) -> dict[Path, bytes]:
    norm, eps = tree["primary"]["norm"], list(tree["primary"]["eps"])[-1]
    made = {
        "training-curves.png": plots.training_curves(results),
        "confusion.png": plots.confusion_matrices(results, norm, eps),
        "adversarial-images.png": plots.adversarial_images(results),
        **{f"sweep-{arm}.png": plots.sweep_heatmaps(arm, swept["table"]) for arm, swept in tree["sweeps"].items()},
    }
    return {folder / name: png(figure) for name, figure in made.items() if figure is not None}
