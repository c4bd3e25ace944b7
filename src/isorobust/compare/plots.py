"""Figures as PNG bytes, the same for the same numbers."""

from __future__ import annotations

import io
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from isorobust.compare.results import ArmResults  # noqa: E402
from isorobust.compare.tables import ATTACK_TITLES, NORM_TITLES  # noqa: E402

DOTS_PER_INCH = 110


def png(figure: Figure) -> bytes:
    memory = io.BytesIO()
    # Without the software's version in it, the file depends on the picture alone.
    figure.savefig(memory, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    plt.close(figure)
    return memory.getvalue()


def robust_accuracy(tree: dict[str, Any]) -> Figure:
    """Accuracy against eps with 95 % bands: the paper's FGSM, the strongest attack, and worst-case points."""
    norms = [norm for norm in NORM_TITLES if any(norm in arm["robust"] for arm in tree["arms"].values())]
    panels = [(norm, attack) for norm in norms for attack in ("paper-fgsm", "strongest") if _ran(tree, norm, attack)]
    figure, axes = plt.subplots(
        1, len(panels), figsize=(4.2 * len(panels), 4.0), sharey=True, squeeze=False, layout="constrained"
    )
    for axis, (norm, attack) in zip(axes[0], panels):
        for number, (arm, numbers) in enumerate(tree["arms"].items()):
            points = [(float(eps), found[attack]) for eps, found in numbers["robust"].get(norm, {}).items() if attack in found]
            eps = [e for e, _ in points]
            low, mid, high = ([100 * p[k] for _, p in points] for k in ("lo", "value", "hi"))
            axis.plot(eps, mid, color=f"C{number}", marker=".", label=arm)
            axis.fill_between(eps, low, high, color=f"C{number}", alpha=0.2, linewidth=0)
            if attack == "strongest":
                _worst_case_points(axis, numbers["robust"].get(norm, {}), f"C{number}")
        axis.axhline(0, color="0.85", zorder=0, linewidth=0.8)
        axis.set(xscale="log", xlabel=f"eps ({NORM_TITLES[norm]}, pixels in [0, 1])", title=_title(attack), ylim=(-3, 103))
        if len(eps) <= 4:  # too short a range for powers of ten
            axis.set_xticks(eps, [f"{e:g}" for e in eps])
            axis.set_xticks([], minor=True)
    axes[0][0].set_ylabel("robust accuracy (%)")
    axes[0][0].legend(frameon=False)
    figure.suptitle(f"{tree['data']}: robust accuracy, 95 % intervals over seeds and images")
    return figure


def _title(attack: str) -> str:
    return "strongest attack run (line), worst case (bars)" if attack == "strongest" else ATTACK_TITLES[attack]


def _ran(tree: dict[str, Any], norm: str, attack: str) -> bool:
    return any(attack in found for arm in tree["arms"].values() for found in arm["robust"].get(norm, {}).values())


def _worst_case_points(axis, by_eps: dict[str, Any], color: str) -> None:
    for eps, attacks in by_eps.items():
        if (p := attacks.get("worst-case")) is not None:
            error = [[100 * (p["value"] - p["lo"])], [100 * (p["hi"] - p["value"])]]
            axis.errorbar(float(eps), 100 * p["value"], error, color=color, marker="D", markersize=4, capsize=3, linestyle="none")


def training_curves(results: list[ArmResults]) -> Figure:
    """Val accuracy (mean, and range over seeds) and training loss by epoch."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.8), layout="constrained")
    for number, result in enumerate(results):
        epochs = [int(row["epoch"]) for row in result.curves]
        seeds = np.array([[float(v) for k, v in row.items() if k.startswith("val_accuracy_seed_")] for row in result.curves])
        left.plot(epochs, [100 * float(row["val_accuracy"]) for row in result.curves], color=f"C{number}", label=result.arm)
        left.fill_between(epochs, 100 * seeds.min(1), 100 * seeds.max(1), color=f"C{number}", alpha=0.2, linewidth=0)
        right.plot(epochs, [float(row["train_loss"]) for row in result.curves], color=f"C{number}", label=result.arm)
    left.set(xlabel="epoch", ylabel="val accuracy (%)", title="mean and range over seeds")
    right.set(xlabel="epoch", ylabel="training loss of the arm", yscale="log", title="mean over seeds")
    right.legend(frameon=False)
    return figure


def adversarial_images(results: list[ArmResults]) -> Figure | None:
    """First row the clean images; then per arm its PGD images with the class it now predicts (red: wrong)."""
    shown = [result for result in results if "examples/clean" in result.arrays]
    if not shown:
        return None
    clean, labels = shown[0].arrays["examples/clean"], shown[0].arrays["labels"]
    norm, eps = shown[0].arrays["examples/ball"].tolist()
    size = (1.1 * len(clean) + 1.6, 1.35 * (len(shown) + 1) + 0.4)
    figure, axes = plt.subplots(len(shown) + 1, len(clean), figsize=size, squeeze=False, layout="constrained")
    for column, image in enumerate(clean):
        _image(axes[0][column], image, f"label {labels[column]}", "black")
    axes[0][0].set_ylabel("clean")
    for row, result in enumerate(shown, start=1):
        for column, image in enumerate(result.arrays["examples/adversarial"]):
            guess = result.arrays["examples/predicted"][column]
            _image(axes[row][column], image, f"says {guess}", "black" if guess == labels[column] else "firebrick")
        axes[row][0].set_ylabel(result.arm)
    figure.suptitle(f"PGD at {NORM_TITLES[norm]} {eps}, first seed")
    return figure


def _image(axis, image: np.ndarray, title: str, color: str) -> None:
    axis.imshow(image[0] if len(image) == 1 else image.transpose(1, 2, 0), cmap="gray", vmin=0, vmax=255)
    axis.set_title(title, fontsize=8, color=color)
    axis.set(xticks=[], yticks=[])


def confusion_matrices(results: list[ArmResults], norm: str, eps: str) -> Figure:
    """Per arm, all seeds together: rows the label, columns the prediction, clean and under PGD; share of the label's images."""
    figure, axes = plt.subplots(2, len(results), figsize=(3.3 * len(results) + 0.6, 6.6), squeeze=False, layout="constrained")
    for column, result in enumerate(results):
        labels = result.arrays["labels"]
        kinds = [("clean", "predicted/clean"), (f"PGD, {NORM_TITLES[norm]} {eps}", f"predicted/pgd/{norm}/{eps}")]
        for axis, (title, key) in zip(axes[:, column], kinds):
            if key not in result.arrays:
                axis.set_axis_off()
                continue
            matrix = _confusion(result.arrays[key], labels)
            picture = axis.imshow(100 * matrix, cmap="viridis", vmin=0, vmax=100)
            axis.set(title=f"{result.arm}\n{title}", xlabel="predicted", ylabel="label")
    figure.colorbar(picture, ax=axes, shrink=0.6, label="% of the label's images")
    return figure


def _confusion(predicted: np.ndarray, labels: np.ndarray) -> np.ndarray:
    classes = int(labels.max()) + 1
    truth = np.broadcast_to(labels[: predicted.shape[1]], predicted.shape)
    matrix = np.zeros((classes, classes))
    np.add.at(matrix, (truth.ravel(), np.clip(predicted.ravel(), 0, classes - 1)), 1)
    return matrix / matrix.sum(axis=1, keepdims=True).clip(min=1)
