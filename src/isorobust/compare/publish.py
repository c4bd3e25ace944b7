"""Writing what the stage `compare` publishes: tracked files under metrics/, figures under results/."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from isorobust import artifacts
from isorobust.compare import plots, tables
from isorobust.compare.analysis import compare, summary
from isorobust.compare.report import report
from isorobust.compare.results import ArmResults, read
from isorobust.compare.settings import CompareSettings

ROBUST_FIGURE = "robust-accuracy.png"  # the one figure that is committed, because the README shows it


def publish(results_dir: Path, metrics_dir: Path, arms: list[str], settings: CompareSettings, data: str) -> dict[str, Any]:
    """Compare the arms and write everything; gives the tree of compare.json. Nothing is written before all is computed."""
    results = read(results_dir, arms)
    tree = compare(results, settings, data)
    files: dict[Path, bytes] = _figures(results, tree, results_dir / "figures")
    files[metrics_dir / ROBUST_FIGURE] = plots.png(plots.robust_accuracy(tree))
    for part in ("train", "attack"):
        for arm in arms:
            files[metrics_dir / part / f"{arm}.json"] = (results_dir / part / f"{arm}.json").read_bytes()
    for norm in tables.NORM_TITLES:
        files[metrics_dir / f"robust-{norm}.csv"] = artifacts.csv_bytes(*tables.wide_rows(tree, arms, norm, "strongest"))
        files[metrics_dir / f"paper-fgsm-{norm}.csv"] = artifacts.csv_bytes(*tables.wide_rows(tree, arms, norm, "paper-fgsm"))
    for column, name in (("val_accuracy", "val-accuracy"), ("train_loss", "train-loss")):
        files[metrics_dir / f"{name}.csv"] = artifacts.csv_bytes(*tables.curve_rows(results, arms, column))
    files[metrics_dir / "compare.csv"] = artifacts.csv_bytes(tables.CSV_HEADER, tables.long_rows(tree))
    files[metrics_dir / "report.md"] = report(tree, [ROBUST_FIGURE]).encode()
    files[metrics_dir / "compare.json"] = artifacts.json_bytes(tree)
    files[metrics_dir / "summary.json"] = artifacts.json_bytes(summary(tree))
    for path, content in files.items():
        artifacts.write_bytes(path, content)
    return tree


def _figures(results: list[ArmResults], tree: dict[str, Any], folder: Path) -> dict[Path, bytes]:
    norm, eps = tree["primary"]["norm"], list(tree["primary"]["eps"])[-1]
    made = {
        "training-curves.png": plots.training_curves(results),
        "confusion.png": plots.confusion_matrices(results, norm, eps),
        "adversarial-images.png": plots.adversarial_images(results),
    }
    return {folder / name: plots.png(figure) for name, figure in made.items() if figure is not None}
