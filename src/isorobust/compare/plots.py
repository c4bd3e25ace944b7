"""Figures of a comparison."""

from __future__ import annotations

from itertools import cycle
from typing import Any

import numpy as np

from isorobust.compare.cells import ATTACK_TITLES, NORM_TITLES, named
from isorobust.compare.results import ArmResults
from isorobust.compare.styles import styles
from isorobust.drawing import Figure, plt

MOST_BANDS = 6  # more hide each other; compare.csv has all intervals
RADIUS_MARKERS = ("o", "s", "^", "D", "v", "P")  # of the worst case, from the smallest radius on


def robust_accuracy(tree: dict[str, Any]) -> Figure:
    """A row per norm: accuracy against eps under the paper's FGSM and the strongest attack; an arm's worst case per row."""
    norms = [norm for norm in NORM_TITLES if any(norm in arm["robust"] for arm in tree["arms"].values())]
    attacks = [attack for attack in ("paper-fgsm", "strongest") if any(_ran(tree, norm, attack) for norm in norms)]
    worst = any(_ran(tree, norm, "worst-case") for norm in norms)
    columns, tall = len(attacks) + worst, max(3.7, 0.24 * len(tree["arms"]) + 1.2)
    size = (4.4 * columns + 2.4 + worst, tall * len(norms) + 0.5)
    figure, axes = plt.subplots(len(norms), columns, figsize=size, squeeze=False, layout="constrained")
    style, bands = styles(tree["arms"]), len(tree["arms"]) <= MOST_BANDS
    for norm, row in zip(norms, axes):
        for attack, axis in zip(attacks, row):
            axis.sharex(row[0])
            _against_eps(axis, tree, norm, attack, style, bands)
        if worst:
            _worst_cases(row[-1], tree, norm, style)
        row[0].set_ylabel("robust accuracy (%)")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False, handlelength=4)
    told = "" if bands else " (of the lines: in compare.csv)"
    figure.suptitle(f"{tree['data']}: robust accuracy, 95 % intervals over seeds and images{told}")
    return figure


def _against_eps(axis, tree: dict[str, Any], norm: str, attack: str, style: dict[str, dict[str, Any]], bands: bool) -> None:
    radii = sorted({float(eps) for numbers in tree["arms"].values() for eps in numbers["robust"].get(norm, {})})
    for arm, numbers in tree["arms"].items():
        points = [(float(eps), found[attack]) for eps, found in numbers["robust"].get(norm, {}).items() if attack in found]
        eps = [e for e, _ in points]
        low, mid, high = ([100 * p[k] for _, p in points] for k in ("lo", "value", "hi"))
        axis.plot(eps, mid, markersize=3.5, linewidth=1.3, label=_broken(named(tree, arm)), **style[arm])
        if bands:
            axis.fill_between(eps, low, high, color=style[arm]["color"], alpha=0.15, linewidth=0)
    axis.axhline(0, color="0.85", zorder=0, linewidth=0.8)
    axis.set(xscale="log", xlabel=f"eps ({NORM_TITLES[norm]}, pixels in [0, 1])", ylim=(-3, 103))
    axis.set_title("all attacks but the worst case's" if attack == "strongest" else ATTACK_TITLES[attack], fontsize=10)
    if len(radii) <= 4:  # too short a range for powers of ten
        axis.set_xticks(radii, [f"{e:g}" for e in radii])
        axis.set_xticks([], minor=True)


def _worst_cases(axis, tree: dict[str, Any], norm: str, style: dict[str, dict[str, Any]]) -> None:
    """A row per arm, a marker per radius; nothing for a norm without a worst case."""
    if not _ran(tree, norm, "worst-case"):
        axis.set_axis_off()
        return
    found = {arm: numbers["robust"].get(norm, {}) for arm, numbers in tree["arms"].items()}
    ran = [arm for arm, by_eps in found.items() if any("worst-case" in attacks for attacks in by_eps.values())]
    radii = sorted({eps for arm in ran for eps, attacks in found[arm].items() if "worst-case" in attacks}, key=float)
    for place, arm in enumerate(ran):
        for marker, eps in zip(cycle(RADIUS_MARKERS), radii):
            if (p := found[arm].get(eps, {}).get("worst-case")) is not None:
                error = [[100 * (p["value"] - p["lo"])], [100 * (p["hi"] - p["value"])]]
                axis.errorbar(100 * p["value"], place, xerr=error, fmt=marker, color=style[arm]["color"], markersize=5, capsize=2)
    for marker, eps in zip(cycle(RADIUS_MARKERS), radii):
        axis.plot([], [], marker, color="0.3", label=f"{NORM_TITLES[norm]} {eps}")
    axis.set_yticks(range(len(ran)), [arm if named(tree, arm) == arm else f"{arm} †" for arm in ran], fontsize=8)
    for text, arm in zip(axis.get_yticklabels(), ran):
        text.set_color(style[arm]["color"])
    axis.set(xlabel="robust accuracy (%)", xlim=(-3, 103), ylim=(len(ran) - 0.5, -0.5))
    axis.grid(axis="both", color="0.92")
    axis.set_axisbelow(True)
    axis.set_title("worst case", fontsize=10)
    axis.legend(frameon=False, fontsize=8, ncols=len(radii), loc="upper center", bbox_to_anchor=(0.5, -0.14), handletextpad=0.1)


def complementarity(tree: dict[str, Any], entries: list[dict[str, Any]]) -> Figure:
    """Per measure, each twin's paired difference to the arm without the isometric term, with its interval."""
    attack = tree["primary"]["attack"]
    measures = list(dict.fromkeys(entry["measure"] for entry in entries)) or ["clean"]
    pairs = list(dict.fromkeys((entry["regulariser"], entry["twin"]) for entry in entries))
    size = (3.1 * len(measures) + 2.8, 0.42 * len(pairs) + 1.5)
    figure, axes = plt.subplots(1, len(measures), figsize=size, sharey=True, squeeze=False, layout="constrained")
    looks = {"gains": ("tab:green", "^"), "loses": ("tab:red", "v"), "undecided": ("0.45", "o")}
    for axis, measure in zip(axes[0], measures):
        axis.axvline(0, color="0.7", linewidth=0.8, zorder=0)
        for entry in entries:
            if entry["measure"] == measure:
                change, row = entry["difference"], pairs.index((entry["regulariser"], entry["twin"]))
                error = [[100 * (change["value"] - change["lo"])], [100 * (change["hi"] - change["value"])]]
                color, marker = looks[entry["verdict"]]
                axis.errorbar(100 * change["value"], row, xerr=error, fmt=marker, capsize=3, color=color)
        title = "clean accuracy" if measure == "clean" else f"{ATTACK_TITLES.get(attack, attack)} at {measure}"
        axis.set(xlabel="difference in points", ylim=(max(len(pairs), 1) - 0.4, -0.6))  # the first pair above
        axis.set_title(title, fontsize=10)
        axis.locator_params(axis="x", nbins=5)
        axis.margins(x=0.08)
    labels = [_broken(f"{named(tree, twin)}\nover {named(tree, base)}") for base, twin in pairs]
    axes[0][0].set_yticks(range(len(pairs)), labels, fontsize=7.5)
    figure.suptitle(f"{tree['data']}: what the isometric term adds (95 %; up gains, down loses, dot undecided)", fontsize=10)
    return figure


def sweep_heatmaps(arm: str, table: list[dict[str, str]]) -> Figure:
    """Clean and PGD accuracy on val over a grid: scale by beta in each panel, others between panels; the choice framed."""
    columns = [name for name in table[0] if name not in ("val_clean", "val_pgd", "chosen")]
    down = "beta" if "beta" in columns else columns[0]
    across = next((name for name in ("scale", *columns) if name in columns and name != down), down)
    others = [name for name in columns if name not in (across, down)]
    panels = list(dict.fromkeys(tuple(row[name] for name in others) for row in table))
    figure, axes = plt.subplots(2, len(panels), figsize=(max(2.1 * len(panels), 4) + 1, 5), squeeze=False, layout="constrained")
    xs, ys = (list(dict.fromkeys(row[name] for row in table)) for name in (across, down))
    for line, (measure, title) in enumerate((("val_clean", "clean"), ("val_pgd", "PGD"))):
        values = [100 * float(row[measure]) for row in table]
        for column, panel in enumerate(panels):
            grid, axis = np.full((len(ys), len(xs)), np.nan), axes[line][column]
            for row in table:
                if tuple(row[name] for name in others) == panel:
                    y, x = ys.index(row[down]), xs.index(row[across])
                    grid[y, x] = 100 * float(row[measure])
                    axis.text(x, y, f"{grid[y, x]:.1f}", ha="center", va="center", fontsize=7, color="white")
                    if row["chosen"] == "1":
                        axis.add_patch(plt.Rectangle((x - 0.47, y - 0.47), 0.94, 0.94, fill=False, edgecolor="red", linewidth=2))
            low, high = min(values), max(values)  # the lightest colours are left out: white numbers stand on them
            axis.imshow(grid, cmap="viridis", vmin=low, vmax=high + 0.25 * (high - low) + 1e-9, aspect="auto")
            axis.set_xticks(range(len(xs)), xs, fontsize=7)
            axis.set_yticks(range(len(ys)), ys, fontsize=7)
            axis.set_title(f"{title}\n" + ", ".join(f"{n} {v}" for n, v in zip(others, panel)), fontsize=7.5)
            axis.set_xlabel(across, fontsize=7)
        axes[line][0].set_ylabel(down, fontsize=8)
    figure.suptitle(f"sweep of {arm}: accuracy on val (%), choice in red", fontsize=10)
    return figure


def _broken(name: str) -> str:
    """The name of an arm in lines, for there may be failed checks in it."""
    return name.replace(" (", "\n(").replace(", ", ",\n")


def _ran(tree: dict[str, Any], norm: str, attack: str) -> bool:
    return any(attack in found for arm in tree["arms"].values() for found in arm["robust"].get(norm, {}).values())


def training_curves(results: list[ArmResults]) -> Figure:
    """Val accuracy (mean, and range over seeds) and training loss by epoch."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11.5, 3.8), layout="constrained")
    style = styles(result.arm for result in results)
    for result in results:
        look = {key: style[result.arm][key] for key in ("color", "linestyle")}
        epochs = [int(row["epoch"]) for row in result.curves]
        seeds = np.array([[float(v) for k, v in row.items() if k.startswith("val_accuracy_seed_")] for row in result.curves])
        left.plot(epochs, [100 * float(row["val_accuracy"]) for row in result.curves], label=result.arm, **look)
        left.fill_between(epochs, 100 * seeds.min(1), 100 * seeds.max(1), color=look["color"], alpha=0.2, linewidth=0)
        right.plot(epochs, [float(row["train_loss"]) for row in result.curves], label=result.arm, **look)
    left.set(xlabel="epoch", ylabel="val accuracy (%)", title="mean and range over seeds")
    right.set(xlabel="epoch", ylabel="training loss of the arm", yscale="log", title="mean over seeds")
    figure.legend(*right.get_legend_handles_labels(), loc="outside right upper", frameon=False, handlelength=4)
    return figure


def adversarial_images(results: list[ArmResults]) -> Figure | None:
    """First row the clean images; then per arm its PGD images with the class it now predicts (red: wrong)."""
    shown = [result for result in results if "examples/clean" in result.arrays]
    if not shown:
        return None
    clean, labels = shown[0].arrays["examples/clean"], shown[0].arrays["labels"]
    norm, eps = shown[0].arrays["examples/ball"].tolist()
    size = (1.1 * len(clean) + 2.4, 1.35 * (len(shown) + 1) + 0.4)
    figure, axes = plt.subplots(len(shown) + 1, len(clean), figsize=size, squeeze=False, layout="constrained")
    for column, image in enumerate(clean):
        _image(axes[0][column], image, f"label {labels[column]}", "black")
    axes[0][0].set_ylabel("clean", rotation=0, ha="right", va="center")
    for row, result in enumerate(shown, start=1):
        for column, image in enumerate(result.arrays["examples/adversarial"]):
            guess = result.arrays["examples/predicted"][column]
            _image(axes[row][column], image, f"says {guess}", "black" if guess == labels[column] else "firebrick")
        axes[row][0].set_ylabel(result.arm, rotation=0, ha="right", va="center")
    figure.suptitle(f"PGD at {NORM_TITLES[norm]} {eps}, first seed")
    return figure


def _image(axis, image: np.ndarray, title: str, color: str) -> None:
    axis.imshow(image[0] if len(image) == 1 else image.transpose(1, 2, 0), cmap="gray", vmin=0, vmax=255)
    axis.set_title(title, fontsize=8, color=color)
    axis.set(xticks=[], yticks=[])


def confusion_matrices(results: list[ArmResults], norm: str, eps: str) -> Figure | None:
    """Per arm, all seeds together: rows the label, columns the prediction, clean and under PGD; share of the label's images.

    None without an arm.
    """
    if not results:
        return None
    lines = -(-len(results) // 5)
    across, down = -(-len(results) // lines), 2 * lines
    figure, axes = plt.subplots(down, across, figsize=(3 * across + 0.8, 3.1 * down), squeeze=False, layout="constrained")
    for axis in axes.flat:
        axis.set_axis_off()
    for number, result in enumerate(results):
        row, column = 2 * (number // across), number % across
        labels = result.arrays["labels"]
        kinds = [("clean", "predicted/clean"), (f"PGD, {NORM_TITLES[norm]} {eps}", f"predicted/pgd/{norm}/{eps}")]
        for axis, (title, key) in zip(axes[row : row + 2, column], kinds):
            if key in result.arrays:
                axis.set_axis_on()
                picture = axis.imshow(100 * _confusion(result.arrays[key], labels), cmap="viridis", vmin=0, vmax=100)
                axis.set(title=f"{result.arm}\n{title}", xlabel="predicted", ylabel="label")
    figure.colorbar(picture, ax=axes, shrink=0.6, label="% of the label's images")
    return figure


def _confusion(predicted: np.ndarray, labels: np.ndarray) -> np.ndarray:
    classes = int(labels.max()) + 1
    truth = np.broadcast_to(labels[: predicted.shape[1]], predicted.shape)
    matrix = np.zeros((classes, classes))
    np.add.at(matrix, (truth.ravel(), np.clip(predicted.ravel(), 0, classes - 1)), 1)
    return matrix / matrix.sum(axis=1, keepdims=True).clip(min=1)


def geometry(data: str, measured: list[tuple[str, dict[str, Any]]], names: dict[str, str] | None = None) -> Figure:
    """Per arm of a data set, from (arm, the JSON of its stage geometry): correlation and stress of distances within classes, and
    distortion against distance to the decision boundary, as a rank correlation and by bins of distance.

    `names`: how to write an arm, where not by its own name.
    """
    size, rows = (12.5, max(3.6, 1.5 + 0.3 * len(measured))), range(len(measured))
    figure, axes = plt.subplots(1, 4, figsize=size, layout="constrained", width_ratios=(1, 1, 1, 2.4))
    panels = [
        ("correlation of\ndistances", [numbers["distances"]["correlation"] for _, numbers in measured]),
        ("stress\n(isometry up to scale: 0)", [numbers["distances"]["stress"] for _, numbers in measured]),
        ("rank correlation of distortion\nwith boundary distance", [n["boundary"]["correlation"] for _, n in measured]),
    ]
    drawn = styles(arm for arm, _ in measured)
    looks = [drawn[arm] for arm, _ in measured]
    for axis, (title, estimates) in zip(axes, panels):
        for row, p in enumerate(estimates):
            error = [[p["value"] - p["lo"]], [p["hi"] - p["value"]]]
            axis.errorbar(p["value"], row, xerr=error, markersize=4, capsize=3, **looks[row])
        lowest = -1.0 if min(p["lo"] for p in estimates) < 0 else 0.0
        axis.axvline(0, color="0.6", zorder=0, linewidth=0.8)
        axis.set(xlim=(lowest, 1), xticks=(lowest, lowest / 2 + 0.5, 1), ylim=(len(measured) - 0.5, -0.5), yticks=[])
        axis.set_title(title, fontsize=9)
        axis.grid(axis="x", color="0.9")
    axes[0].set_yticks(rows, [_broken((names or {}).get(arm, arm)) for arm, _ in measured])
    for row, (_, numbers) in enumerate(measured):
        axes[0].get_yticklabels()[row].set_color(looks[row]["color"])
        bins = numbers["boundary"]["bins"].values()
        distances = [one["distance"]["value"] for one in bins]
        low, mid, high = ([100 * one["distortion"][key] for one in bins] for key in ("lo", "value", "hi"))
        axes[3].plot(distances, mid, markersize=4.5, **looks[row])
        axes[3].fill_between(distances, low, high, color=looks[row]["color"], alpha=0.2, linewidth=0)
    axes[3].set(xlabel="L2 distance to the decision boundary (median of a bin)", ylabel="local distortion (%)")
    axes[3].set_xlim(left=0)
    axes[3].set_ylim(bottom=0)
    axes[3].set_title("isometric everywhere except near decision boundaries\nwould fall from left to right", fontsize=9)
    figure.suptitle(f"{data}: representations against pixels within classes, 95 % intervals")
    return figure
