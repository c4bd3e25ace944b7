"""The part of the comparison on paths between inputs: its tree, tables and figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from isorobust.claims import direction, verdict
from isorobust.common import artifacts
from isorobust.common.params import eps_key
from isorobust.common.statistics import ANY_NUMBER, over_seeds
from isorobust.compare.cells import interval, markdown, percent, points
from isorobust.compare.styles import empty_figure
from isorobust.connectivity.settings import ConnectivitySettings
from isorobust.drawing import Figure, plt

CONTROL = "between-classes"
LOW_ENDS = "no pair has ends of such loss"  # why a claim on pairs of low ends says nothing
FEATURES = {
    "low": "share that stays low",
    "level": "share that stays level",
    "height": "barrier",
    "gap": "gap",
    "maxima": "local maxima",
    "area": "mean loss",
    "endpoint-loss": "end's own loss",
}
COLORS = {"real": "C0", "interpolated": "C2", "synthetic": "C1", CONTROL: "0.5"}
COMPARED = {  # in the differences between arms -> array, rounds of bypassing done
    "low-straight": ("heights/real", 0),
    "low-bypassed": ("heights/real", -1),
    "level-straight": ("gaps/real", 0),
    "gap": ("gaps/real", 0),
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

    `joined-straight`, `joined-bypassed`: of the pairs whose ends have a loss at or below the block's threshold, whether
    the share of those on whose path it stays so is above `connected`. `level-...`: of all pairs, on whose path it rises by
    no more than that above the ends. Pairs whose ends are one input do not count. Without a pair that counts the claim
    says nothing, n is 0 and `why` tells the reason. Judged on real pairs, or on synthetic ones where a network gives real
    images no class.
    """
    kind = "real" if "real" in numbers["kinds"] else "synthetic"
    result = shares_judged(numbers["kinds"][kind], kind, options)
    features = numbers.get("against", {}).get("features")
    if features:
        change = features["gap"]["difference"]
        result["higher"] = {**change, "kind": "matched", "verdict": verdict(change["lo"], change["hi"])}
    return result


def shares_judged(told: dict[str, Any], kind: str, options: ConnectivitySettings) -> dict[str, dict[str, Any]]:
    """The claims on shares, of what one kind of pairs came to."""
    result = {}
    same = "distinct" in told and not told["distinct"]["value"]
    for criterion in ("joined", "level"):
        shares = told[criterion].get(eps_key(options.threshold))
        for how, done in (("straight", "0"), ("bypassed", str(options.bypass.rounds))):
            if shares is None:
                why = "no pair has distinct ends" if same else LOW_ENDS
                result[f"{criterion}-{how}"] = {"n": 0, "kind": kind, "why": why}
                continue
            share = shares[done]
            judged_so = verdict(share["lo"] - options.connected, share["hi"] - options.connected)
            result[f"{criterion}-{how}"] = {**share, "kind": kind, "verdict": judged_so}
    return result


def tree(found: dict[str, dict[str, Any]], options: ConnectivitySettings, reference: str) -> dict[str, Any]:
    """What compare.json holds; differences: arm less reference, on the real pairs that both were given."""
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
    """Shares and the straight paths' mean gap, over the seeds that both have and the pairs that both were given.

    Every seed has pairs of its own, so that Student's t over the seeds' mean differences is over pairs too.
    """
    seeds = [seed for seed in arrays["seeds"].tolist() if seed in other["seeds"].tolist()]
    changes: dict[str, list[float]] = {}
    counts = []
    for seed in seeds:
        parts = [(part, part["seeds"].tolist().index(seed)) for part in (arrays, other)]
        ids = [list(map(tuple, part["pairs/real"][row].tolist())) for part, row in parts]
        shared = sorted(set(ids[0]) & set(ids[1]))
        places = [[own.index(pair) for pair in shared] for own in ids]
        if not shared:
            continue
        counts.append(len(shared))
        for name, (array, done) in COMPARED.items():
            mine, theirs = (part[array][row][done][place] for (part, row), place in zip(parts, places))
            if name != "gap":
                mine, theirs = mine <= options.threshold, theirs <= options.threshold
            changes.setdefault(name, []).append(float(mine.mean() - theirs.mean()))
    if not counts:
        return {}
    told = {
        name: over_seeds(values, *((-1.0, 1.0) if name != "gap" else ANY_NUMBER), min(counts)) for name, values in changes.items()
    }
    return {name: {**one, "direction": direction(one["lo"], one["hi"])} for name, one in told.items()}


def table(told: dict[str, Any]) -> str:
    """Rows: arms and kinds of pairs; the shares of low and of level paths, straight and after each round, and the barrier."""
    rows = []
    for arm, numbers in told["arms"].items():
        for kind, one in numbers["kinds"].items():
            low, level = one["low"][told["threshold"]], one["level"].get(told["threshold"])
            cells = [percent(one.get("distinct"))]
            cells += [joined(one, told["threshold"], done) for done in sorted({0, told["rounds"]})]
            cells += [percent(low[str(done)]) for done in range(told["rounds"] + 1)]
            cells += [percent(level[str(done)]) if level else "-" for done in sorted({0, told["rounds"]})]
            rows.append([arm, kind, *cells, interval(one["height"], ".3g"), interval(one["gap"], ".3g")])
    rounds = [f"after {done} round{'s' if done > 1 else ''}" for done in range(1, told["rounds"] + 1)]
    threshold, last = told["threshold"], rounds[-1:]
    header = ["distinct ends", f"low, of those with ends at or below {threshold}: straight", *last]
    header += [
        f"low, of all: loss at most {threshold}, straight",
        *rounds,
        f"level, of those with distinct ends: rises by at most {threshold}, straight",
        *last,
    ]
    return markdown(["arm", "pairs", *header, "mean barrier", "mean gap"], rows)


def joined(kind: dict[str, Any], threshold: str, done: int) -> str:
    """A cell: the share after these rounds and of how many pairs; a dash where none counts, empty where not measured."""
    if "joined" not in kind:
        return ""
    shares = kind["joined"].get(threshold)
    return f"{percent(shares[str(done)])}, n = {shares[str(done)]['n']}" if shares else "-"


def component_line(told: dict[str, Any]) -> str:
    """How much of a class the largest set of images that straight paths join holds."""
    trained = {arm: one["component"] for arm, one in told["arms"].items() if "component" in one}
    shares = [f"{arm} {percent(one['low'])} by low paths, {percent(one['level'])} by level ones" for arm, one in trained.items()]
    return f"Share of a class's images in the largest set that straight paths join: {'; '.join(shares)}."


def change_line(told: dict[str, Any]) -> str:
    """How far the images of matched loss were changed, and how many reached it."""
    told_of = [
        f"{arm} {one['against']['change']['l2']['value']:.1f} and {one['against']['change']['linf']['value']:.2f} "
        f"({percent(one['against']['matched'])} matched)"
        for arm, one in told["arms"].items()
        if one.get("against", {}).get("change")
    ]
    return f"Change that the matched images needed, mean in L2 and L-infinity: {'; '.join(told_of)}."


def against_table(told: dict[str, Any]) -> str:
    """Rows: trained arms and features of the loss curve; real and adversarial ends of equal loss, and how they differ."""
    rows = []
    for arm, numbers in told["arms"].items():
        for name, title in FEATURES.items():
            row = numbers.get("against", {}).get("features", {}).get(name)
            if row:
                cells = [interval(row[key], ".3g") for key in ("real", "adversarial", "difference", "effect", "auroc")]
                rows.append([arm, title, *cells])
    return markdown(["arm", "of the curve", "to real", "to adversarial", "difference", "effect size", "AUROC"], rows)


def differences_table(told: dict[str, Any]) -> str:
    """Rows: trained arms held against the reference, on the pairs that both were given."""
    rows = [
        [
            pair.replace("-vs-", " less "),
            *(f"{points(one[name])} {one[name]['direction']}" for name in COMPARED if name != "gap"),
            f"{interval(one['gap'], '.3g')} {one['gap']['direction']}",
        ]
        for pair, one in told["differences"].items()
        if one
    ]
    after = f"after {told['rounds']} rounds"
    return markdown(["paths", "low, straight, points", f"low, {after}, points", "level, straight, points", "mean gap"], rows)


def figure(found: dict[str, dict[str, Any]], told: dict[str, Any], data: str) -> Figure:
    """Rows arms: connected pairs against the threshold; loss along the paths; A, B, B', C, B' - B of the widest gap."""
    if not found:
        return empty_figure(f"The recipe of {data} does not measure connectivity.")
    drawn = plt.figure(figsize=(18, 3.2 * len(found)), layout="constrained")
    grid = drawn.add_gridspec(len(found), 9, width_ratios=[3, 3, 3, 3, 1, 1, 1, 1, 1])
    for i, (arm, one) in enumerate(found.items()):
        _percolation(drawn.add_subplot(grid[i, 0]), arm, told["arms"][arm], told["rounds"])
        _curves(drawn.add_subplot(grid[i, 1]), one["arrays"])
        axis = drawn.add_subplot(grid[i, 2])
        if "against/real" in one["arrays"]:
            _matched(axis, one["arrays"])
        else:
            axis.axis("off")
        _one_path(drawn.add_subplot(grid[i, 3]), one["arrays"])
        for j, (image, title) in enumerate(zip(one["arrays"]["shown/images"], ("A", "B", "B'", "C"))):
            axis = drawn.add_subplot(grid[i, 4 + j])
            shown = np.clip(image, 0, 1).transpose(1, 2, 0)
            axis.imshow(shown.squeeze(), cmap="gray_r" if shown.shape[2] == 1 else None, vmin=0, vmax=1)
            axis.set_title(title, fontsize=9)
            axis.axis("off")
        _change(drawn.add_subplot(grid[i, 8]), *one["arrays"]["shown/images"][1:3])
    lines = {label: line for axis in drawn.axes for line, label in zip(*axis.get_legend_handles_labels())}
    drawn.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=len(lines), frameon=False, fontsize=9)
    drawn.suptitle(f"{data}: loss along paths between inputs; right, one pair: its path and what the bypass changed", fontsize=11)
    return drawn


def _one_path(axis, arrays: dict[str, np.ndarray]) -> None:
    """Losses along the pair's straight path and along the path over B'."""
    straight, around = arrays["shown/straight"], arrays["shown/around"]
    axis.plot(np.linspace(0, 1, len(straight)), straight, color="0.4", label="A, B, C")
    if len(around) > len(straight):
        axis.plot(np.linspace(0, 1, len(around)), around, color="C3", label="A, B', C")
    axis.set(xlabel="t", ylabel="cross-entropy", ylim=(0, 1.1 * max(straight.max(), around.max())))
    axis.set_title("the pair shown", fontsize=9)


def _change(axis, before: np.ndarray, after: np.ndarray) -> None:
    """What the bypass changed, mean over channels, scaled up to the full range: red up, blue down."""
    change = (after - before).mean(0)
    most = float(np.abs(change).max())
    axis.imshow(change / most if most else change, cmap="bwr", vmin=-1, vmax=1)
    axis.set_title(f"B' - B, x {1 / most:.3g}" if most else "B' = B", fontsize=9)
    axis.axis("off")


def _percolation(axis, arm: str, numbers: dict[str, Any], rounds: int) -> None:
    for kind, one in numbers["kinds"].items():
        thresholds = [float(key) for key in one["low"]]
        for done, style in ((0, "-"), (rounds, "--")):
            values = np.array([[share[str(done)][k] for k in ("value", "lo", "hi")] for share in one["low"].values()])
            axis.plot(thresholds, values[:, 0], style, color=COLORS[kind], label=kind if done == 0 else None, linewidth=1.2)
            axis.fill_between(thresholds, values[:, 1], values[:, 2], color=COLORS[kind], alpha=0.1, linewidth=0)
    axis.set(xscale="log", ylim=(-0.02, 1.02), xlabel="threshold", ylabel="share of paths with loss at most this")
    axis.set_title(f"{arm} (dashed: after {rounds} rounds)", fontsize=9)


def _curves(axis, arrays: dict[str, np.ndarray]) -> None:
    for key, curves in arrays.items():
        if key.startswith("straight/"):
            kind = key.removeprefix("straight/")
            _band(axis, _aligned(curves) if kind == CONTROL else curves, COLORS[kind], kind)
    axis.set_title("straight paths, median and quartiles\n(between classes: shifted so that peaks meet)", fontsize=9)


def _aligned(curves: np.ndarray) -> np.ndarray:
    """Each curve shifted to have its peak in the middle, its ends drawn out: peaks at different places hide in a median."""
    steps = np.arange(curves.shape[1])
    places = steps[None] - curves.shape[1] // 2 + curves.argmax(1)[:, None]
    return np.take_along_axis(curves, places.clip(0, curves.shape[1] - 1), axis=1)


def _matched(axis, arrays: dict[str, np.ndarray]) -> None:
    kept = arrays["against/matched"]
    if kept.any():
        _band(axis, arrays["against/real"][kept], "C0", "to a real image")
        _band(axis, arrays["against/adversarial"][kept], "C3", "to an adversarial one of equal loss")
    axis.set_title("from a real image", fontsize=9)


def _band(axis, curves: np.ndarray, color: str, label: str) -> None:
    t = np.linspace(0, 1, curves.shape[1])
    low, middle, high = np.quantile(np.maximum(curves, 1e-8), (0.25, 0.5, 0.75), axis=0)
    axis.plot(t, middle, color=color, label=label, linewidth=1.2)
    axis.fill_between(t, low, high, color=color, alpha=0.15, linewidth=0)
    axis.set(yscale="log", xlabel="t", ylabel="cross-entropy")
