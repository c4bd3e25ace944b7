"""The part of the comparison on paths between inputs: its tree, tables and figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from isorobust import artifacts
from isorobust.claims import direction, verdict
from isorobust.compare.tables import markdown, percent, points
from isorobust.connectivity.settings import ConnectivitySettings
from isorobust.drawing import Figure, plt
from isorobust.params import eps_key
from isorobust.statistics import difference, mean_over_seeds

CONTROL = "between-classes"
FEATURES = {
    "connected": "share that connects",
    "height": "barrier",
    "gap": "gap",
    "maxima": "local maxima",
    "area": "mean loss",
    "endpoint-loss": "end's own loss",
}
COLORS = {"real": "C0", "interpolated": "C2", "synthetic": "C1", CONTROL: "0.5"}
CLAIMS = {
    "linear": "inputs of a class are connected by straight low-loss paths",
    "bypassed": "inputs of a class are connected after bypassing",
    "higher": "barriers to adversarial images are higher than to real ones of equal loss",
}


def read(results: Path, arms: list[str]) -> dict[str, dict[str, Any]]:
    """Arm -> numbers and arrays of the arms that the recipe measures."""
    found = {}
    for arm in arms:
        numbers = artifacts.read_json(results / "connectivity" / f"{arm}.json")
        if not numbers.get("skipped"):
            found[arm] = {"numbers": numbers, "arrays": artifacts.read_npz(results / "connectivity" / f"{arm}.npz")}
    return found


def judged(numbers: dict[str, Any], options: ConnectivitySettings) -> dict[str, dict[str, Any]]:
    """Claim -> `{value, lo, hi, verdict}` with the kind of pairs it was judged on.

    Connected: whether the share of pairs whose path rises by no more than the block's threshold is above
    `connected`; judged on real pairs, or on synthetic ones where a network gives real images no class.
    """
    kind = "real" if "real" in numbers["kinds"] else "synthetic"
    shares = numbers["kinds"][kind]["connected"][eps_key(options.threshold)]
    told = {"linear": shares["0"], "bypassed": shares[str(options.bypass.rounds)]}
    result = {
        claim: {**share, "kind": kind, "verdict": verdict(share["lo"] - options.connected, share["hi"] - options.connected)}
        for claim, share in told.items()
    }
    features = numbers.get("against", {}).get("features")
    if features:
        change = features["gap"]["difference"]
        result["higher"] = {**change, "kind": "matched", "verdict": verdict(change["lo"], change["hi"])}
    return result


def tree(found: dict[str, dict[str, Any]], options: ConnectivitySettings, reference: str) -> dict[str, Any]:
    """What compare.json holds; differences: arm less reference on real pairs, paired by seed."""
    arms = {arm: {**one["numbers"], "claims": judged(one["numbers"], options)} for arm, one in found.items()}
    return {
        "threshold": eps_key(options.threshold),
        "rounds": options.bypass.rounds,
        "connected": options.connected,
        "arms": arms,
        "differences": {
            f"{arm}-vs-{reference}": _difference(one["arrays"], found[reference]["arrays"], options)
            for arm, one in found.items()
            if arm != reference and reference in found and "gaps/real" in one["arrays"]
        },
    }


def _difference(arrays: dict[str, np.ndarray], other: dict[str, np.ndarray], options: ConnectivitySettings) -> dict[str, Any]:
    """Shares connected straight and after all rounds, and the straight paths' mean gap, over the seeds that both have."""
    common = [seed for seed in arrays["seeds"].tolist() if seed in other["seeds"].tolist()]
    gaps = [part["gaps/real"][[part["seeds"].tolist().index(seed) for seed in common]] for part in (arrays, other)]
    mine, theirs = (
        {
            "linear": gap[:, 0] <= options.threshold,
            "bypassed": gap[:, -1] <= options.threshold,
            "gap": gap[:, 0].mean(1),
        }
        for gap in gaps
    )
    told = {name: difference(mine[name], theirs[name]).as_dict() for name in ("linear", "bypassed")}
    told["gap"] = dict(zip(("value", "lo", "hi"), mean_over_seeds(mine["gap"] - theirs["gap"])))
    return {name: {**one, "direction": direction(one["lo"], one["hi"])} for name, one in told.items()}


def table(told: dict[str, Any]) -> str:
    """Rows: arms and kinds of pairs; the share connected at the threshold, straight and after each round, and the barrier."""
    rows = []
    for arm, numbers in told["arms"].items():
        for kind, one in numbers["kinds"].items():
            shares = one["connected"][told["threshold"]]
            cells = [percent(shares[str(done)]) for done in range(told["rounds"] + 1)]
            rows.append([arm, kind, *cells, _three(one["height"]), _three(one["gap"])])
    rounds = [f"after {done} round{'s' if done > 1 else ''}" for done in range(1, told["rounds"] + 1)]
    header = ["arm", "pairs", f"connected: rises by at most {told['threshold']}", *rounds, "mean barrier", "mean gap"]
    return markdown(header, rows)


def component_line(told: dict[str, Any]) -> str:
    """How much of a class the largest set of images that straight paths join holds."""
    shares = [f"{arm} {percent(one['component'])}" for arm, one in told["arms"].items() if "component" in one]
    return f"Share of a class's images in the largest set joined by straight paths that connect: {'; '.join(shares)}."


def against_table(told: dict[str, Any]) -> str:
    """Rows: trained arms and features of the loss curve; real and adversarial ends of equal loss, and how they differ."""
    rows = []
    for arm, numbers in told["arms"].items():
        for name, title in FEATURES.items():
            row = numbers.get("against", {}).get("features", {}).get(name)
            if row:
                rows.append([arm, title, *(_three(row[key]) for key in ("real", "adversarial", "difference", "effect", "auroc"))])
    return markdown(["arm", "of the curve", "to real", "to adversarial", "difference", "effect size", "AUROC"], rows)


def differences_table(told: dict[str, Any]) -> str:
    """Rows: trained arms held against the reference, paired by seed."""
    rows = [
        [
            pair.replace("-vs-", " less "),
            *(f"{points(one[name])} {one[name]['direction']}" for name in ("linear", "bypassed")),
            f"{_three(one['gap'])} {one['gap']['direction']}",
        ]
        for pair, one in told["differences"].items()
    ]
    header = ["connected", "straight, points", f"after {told['rounds']} rounds, points", "mean gap of straight paths"]
    return markdown(header, rows)


def _three(interval: dict[str, float]) -> str:
    return f"{interval['value']:.3g} [{interval['lo']:.3g}, {interval['hi']:.3g}]"


def figure(found: dict[str, dict[str, Any]], told: dict[str, Any], data: str) -> Figure:
    """Rows arms: connected pairs against the threshold; loss along the paths; A, B, B', C, B' - B of the widest gap."""
    if not found:
        drawn = plt.figure(figsize=(5, 1))
        drawn.text(0.5, 0.5, f"The recipe of {data} does not measure connectivity.", ha="center", va="center")
        return drawn
    drawn = plt.figure(figsize=(15, 3.2 * len(found)), layout="constrained")
    grid = drawn.add_gridspec(len(found), 8, width_ratios=[3, 3, 3, 1, 1, 1, 1, 1])
    for i, (arm, one) in enumerate(found.items()):
        _percolation(drawn.add_subplot(grid[i, 0]), arm, told["arms"][arm], told["rounds"])
        _curves(drawn.add_subplot(grid[i, 1]), one["arrays"])
        axis = drawn.add_subplot(grid[i, 2])
        if "against/real" in one["arrays"]:
            _matched(axis, one["arrays"])
        else:
            axis.axis("off")
        for j, (image, title) in enumerate(zip(one["arrays"]["images"], ("A", "B", "B'", "C"))):
            axis = drawn.add_subplot(grid[i, 3 + j])
            shown = np.clip(image, 0, 1).transpose(1, 2, 0)
            axis.imshow(shown.squeeze(), cmap="gray_r" if shown.shape[2] == 1 else None, vmin=0, vmax=1)
            axis.set_title(title, fontsize=9)
            axis.axis("off")
        _change(drawn.add_subplot(grid[i, 7]), *one["arrays"]["images"][1:3])
    drawn.suptitle(f"{data}: loss along paths between inputs of a class", fontsize=11)
    return drawn


def _change(axis, before: np.ndarray, after: np.ndarray) -> None:
    """What the bypass changed, mean over channels, scaled up to the full range: red up, blue down."""
    change = (after - before).mean(0)
    most = float(np.abs(change).max())
    axis.imshow(change / most if most else change, cmap="bwr", vmin=-1, vmax=1)
    axis.set_title(f"B' - B, x {1 / most:.3g}" if most else "B' = B", fontsize=9)
    axis.axis("off")


def _percolation(axis, arm: str, numbers: dict[str, Any], rounds: int) -> None:
    for kind, one in numbers["kinds"].items():
        thresholds = [float(key) for key in one["connected"]]
        for done, style in ((0, "-"), (rounds, "--")):
            values = np.array([[share[str(done)][k] for k in ("value", "lo", "hi")] for share in one["connected"].values()])
            axis.plot(thresholds, values[:, 0], style, color=COLORS[kind], label=kind if done == 0 else None, linewidth=1.2)
            if done == 0:
                axis.fill_between(thresholds, values[:, 1], values[:, 2], color=COLORS[kind], alpha=0.12, linewidth=0)
    axis.set(xscale="log", ylim=(-0.02, 1.02), xlabel="allowed rise of cross-entropy", ylabel="share connected")
    axis.set_title(f"{arm} (dashed: after {rounds} rounds)", fontsize=9)
    axis.legend(frameon=False, fontsize=7)


def _curves(axis, arrays: dict[str, np.ndarray]) -> None:
    for key, curves in arrays.items():
        if key.startswith("straight/"):
            kind = key.removeprefix("straight/")
            _band(axis, curves, COLORS[kind], kind)
    axis.set_title("straight paths, median and quartiles", fontsize=9)


def _matched(axis, arrays: dict[str, np.ndarray]) -> None:
    kept = arrays["against/matched"]
    if kept.any():
        _band(axis, arrays["against/real"][kept], "C0", "to a real image")
        _band(axis, arrays["against/adversarial"][kept], "C3", "to an adversarial one of equal loss")
        axis.legend(frameon=False, fontsize=7)
    axis.set_title("from a real image", fontsize=9)


def _band(axis, curves: np.ndarray, color: str, label: str) -> None:
    t = np.linspace(0, 1, curves.shape[1])
    low, middle, high = np.quantile(np.maximum(curves, 1e-8), (0.25, 0.5, 0.75), axis=0)
    axis.plot(t, middle, color=color, label=label, linewidth=1.2)
    axis.fill_between(t, low, high, color=color, alpha=0.15, linewidth=0)
    axis.set(yscale="log", xlabel="t", ylabel="cross-entropy")
