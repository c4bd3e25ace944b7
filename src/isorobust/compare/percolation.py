"""The part of the comparison on connection by input dimension: tables and figure of what the stage `percolation` measured."""

from __future__ import annotations

from typing import Any

from isorobust.claims import verdict
from isorobust.common.params import eps_key
from isorobust.compare.cells import markdown, percent, points
from isorobust.compare.connectivity import joined, shares_judged
from isorobust.compare.styles import empty_figure
from isorobust.connectivity.settings import JUDGED, ConnectivitySettings
from isorobust.drawing import Figure, plt

SHOWN = {"low": "low", "level": "level", "joined": "low"}


def tree(numbers: dict[str, Any], options: ConnectivitySettings | None) -> dict[str, Any]:
    """What compare.json holds; rise: shares at the largest size less at the smallest; random: with claims on other networks."""
    if numbers.get("skipped"):
        return {}
    rise = {
        state: {
            criterion: {done: {**one, "verdict": verdict(one["lo"], one["hi"])} for done, one in by_round.items()}
            for criterion, by_round in by_criterion.items()
        }
        for state, by_criterion in numbers["rise"].items()
    }
    random = {
        name: {**kinds, "claims": shares_judged(kinds["synthetic"], "synthetic", options)}
        for name, kinds in numbers["random"].items()
    }
    return {**numbers, "threshold": eps_key(options.threshold), "rise": rise, "random": random}


def table(told: dict[str, Any]) -> str:
    """Rows: sizes and states; share of pairs connected at the threshold, straight and after each round; then random networks."""
    rows = []
    for size, here in told["sizes"].items():
        for state, kind in JUDGED.items():
            accuracy = percent(here["accuracy"]) if state == "trained" else ""
            rows.append([f"{size} x {size}", str(here["dimension"]), state, accuracy, *_shares(here[state], kind, told)])
    for name, kinds in told["random"].items():
        rows.append(["full", "", f"untrained {name}", "", *_shares(kinds, "synthetic", told)])
    done = list(next(iter(told["sizes"].values()))["trained"]["real"]["low"][told["threshold"]])
    rounds = [f"after {k} round{'s' if k != '1' else ''}" for k in done[1:]]
    threshold = told["threshold"]
    header = [
        "size",
        "dimensions",
        "network",
        "accuracy",
        "distinct ends",
        f"low, of those with ends at or below {threshold}: straight",
        *rounds[-1:],
    ]
    header += [f"low, of all: loss at most {threshold}, straight", *rounds]
    header.append(f"level, of those with distinct ends: rises by at most {threshold}, straight")
    return markdown([*header, "low, between classes"], rows)


def _shares(kinds: dict[str, Any], kind: str, told: dict[str, Any]) -> list[str]:
    low, level = kinds[kind]["low"][told["threshold"]], kinds[kind]["level"].get(told["threshold"])
    control = kinds["between-classes"]["low"][told["threshold"]]
    last = len(low) - 1
    distinct = percent(kinds[kind].get("distinct"))
    cells = [distinct, *(joined(kinds[kind], told["threshold"], done) for done in sorted({0, last})), *map(percent, low.values())]
    return [*cells, percent(level["0"]) if level else "-", percent(list(control.values())[-1])]


def sentences(told: dict[str, Any]) -> str:
    """Whether connection grows with the dimension."""
    smallest, *_, largest = told["sizes"]
    lines = []
    for state, by_criterion in told["rise"].items():
        for criterion, by_round in by_criterion.items():
            if not by_round:
                continue
            one, sizes = by_round["0"], f"at {largest} x {largest} than at {smallest} x {smallest}"
            pairs = f"{JUDGED[state]} pairs" + (" with low ends" if criterion == "joined" else "")
            what = f"more straight paths of {state} networks between {pairs} are {SHOWN[criterion]} {sizes}"
            lines.append(f"- {what}: **{one['verdict']}** ({points(one)} points).")
    return "\n".join(lines)


def figure(told: dict[str, Any], data: str) -> Figure:
    """Share of connected pairs against the threshold, a line per size: columns trained and not, rows straight and bypassed."""
    if not told:
        return empty_figure(f"The recipe of {data} does not measure percolation.")
    rounds = list(next(iter(told["rise"].values()))["low"])
    chosen = [rounds[0], rounds[-1]] if len(rounds) > 1 else rounds
    drawn, axes = plt.subplots(
        len(chosen), 2, figsize=(9, 3 * len(chosen)), squeeze=False, sharex=True, sharey=True, layout="constrained"
    )
    for row, done in zip(axes, chosen):
        for axis, (state, kind) in zip(row, JUDGED.items()):
            for i, (size, here) in enumerate(told["sizes"].items()):
                _line(axis, here[state][kind], done, f"C{i}", f"{size} x {size}", "-")
                _line(axis, here[state]["between-classes"], done, f"C{i}", None, ":")
            if state == "untrained":
                for i, (name, kinds) in enumerate(told["random"].items(), start=len(told["sizes"])):
                    _line(axis, kinds[kind], done, f"C{i}", name, "--")
            how = "straight" if done == "0" else f"after {done} rounds"
            axis.set_title(f"{state}, {kind} pairs, {how}", fontsize=9)
            axis.set(xscale="log", ylim=(-0.03, 1.03))
    for axis in axes[-1]:
        axis.set_xlabel("threshold of cross-entropy")
    for row in axes:
        row[0].set_ylabel("share of low paths")
    handles, labels = axes[0][1].get_legend_handles_labels()  # the untrained have every label
    handles.append(plt.Line2D([], [], color="0.3", linestyle=":", linewidth=1.2))
    columns = min(len(handles), 6)
    drawn.legend(handles, [*labels, "between classes"], loc="outside lower center", ncols=columns, frameon=False, fontsize=8)
    drawn.suptitle(f"{data}: connection by input size", fontsize=11)
    return drawn


def _line(axis, kind: dict[str, Any], done: str, color: str, label: str | None, style: str) -> None:
    thresholds = [float(key) for key in kind["low"]]
    values, lows, highs = ([share[done][k] for share in kind["low"].values()] for k in ("value", "lo", "hi"))
    axis.plot(thresholds, values, style, color=color, label=label, linewidth=1.2)
    axis.fill_between(thresholds, lows, highs, color=color, alpha=0.1, linewidth=0)
