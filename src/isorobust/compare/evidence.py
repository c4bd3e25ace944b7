"""Every published claim under test in one table: what was measured on which data, and whether it holds."""

from __future__ import annotations

from typing import Any

from isorobust.claims import UNDECIDED, verdict
from isorobust.compare.tables import NORM_TITLES, markdown, percent, points

ISOMETRIC, RECLASSIFIER, CONNECTIVITY = "2211.01236", "2606.01746", "2409.05800"
HEADER = ["claim", "paper", "data", "measured", "as published", "under the worst case"]


def table(trees: dict[str, dict[str, Any]], toys: dict[str, dict[str, Any]]) -> str:
    """Markdown of all claims; `trees`: compare.json by data set, `toys`: summary.json by toy."""
    rows = [row for data, tree in trees.items() for row in _of_data(data, tree)]
    rows += [row for toy, summary in toys.items() for row in _of_toy(toy, summary)]
    order = list(dict.fromkeys(row[0] for row in rows))
    return markdown(HEADER, [row for claim in order for row in rows if row[0] == claim])


def _of_data(data: str, tree: dict[str, Any]) -> list[list[str]]:
    return [
        *_robustness(data, tree),
        *_geometry(data, tree),
        *_hierarchy(data, tree),
        *_reclassifiers(data, tree),
        *_paths(data, tree),
        *_detection(data, tree),
    ]


def _told(interval: dict[str, float], shown: str) -> str:
    return f"{shown} **{verdict(interval['lo'], interval['hi'])}**"


def _robustness(data: str, tree: dict[str, Any]) -> list[list[str]]:
    """The isometric arm against the baseline, and each twin against its base: at the primary endpoint's radii."""
    primary, rows = tree["primary"], []
    first = f"{primary['arm']}-vs-{primary['reference']}"
    pairs = {first: "An isometric network is more robust than the same network without the term"}
    for twin, base in tree.get("twins", {}).items():
        if base != primary["reference"]:
            pairs[f"{twin}-vs-{base}"] = f"The isometric term adds robustness to other regularisers: {base}"
    for pair, claim in pairs.items():
        for eps in primary["eps"]:
            here = tree["differences"][pair].get(primary["norm"], {}).get(eps, {})
            cells = [_told(here[a], points(here[a])) if a in here else "" for a in ("paper-fgsm", primary["attack"])]
            arm, other = pair.split("-vs-")
            measured = f"{arm} less {other}, points, {NORM_TITLES[primary['norm']]} {eps}"
            rows.append([claim, ISOMETRIC, data, measured, *cells])
    return rows


def _geometry(data: str, tree: dict[str, Any]) -> list[list[str]]:
    arm, reference = tree["primary"]["arm"], tree["primary"]["reference"]
    found = tree.get("geometry", {})
    if arm not in found or reference not in found:
        return []
    ours, plain = (found[name]["distances"]["correlation"] for name in (arm, reference))
    apart = "holds" if ours["lo"] > plain["hi"] else "does not hold" if ours["hi"] < plain["lo"] else UNDECIDED
    near = found[arm]["boundary"]["correlation"]
    return [
        [
            "The term keeps distances inside classes",
            ISOMETRIC,
            data,
            f"distance correlation of {arm}, of {reference} (separate intervals)",
            f"{_three(ours)}, {_three(plain)} **{apart}**",
            "",
        ],
        [
            "The map is isometric except near decision boundaries",
            ISOMETRIC,
            data,
            "rank correlation of distortion with boundary distance, below 0 if so",
            f"{_three(near)} **{found[arm]['boundary']['verdict']}**",
            "",
        ],
    ]


def _hierarchy(data: str, tree: dict[str, Any]) -> list[list[str]]:
    found = tree.get("hierarchy") or {}
    rows = []
    for name, numbers in found.items():
        if isinstance(numbers, dict):
            clean = numbers["mistakes"]["clean"].get("nearer")
            attacked = [(eps, m["nearer"]) for eps, m in numbers["mistakes"]["pgd"].items() if m.get("nearer")]
            under = "; ".join(f"PGD {eps}: {_told(near, _three(near, '+.2f'))}" for eps, near in attacked)
            rows.append(
                [
                    "A hierarchical network errs to nearer classes",
                    ISOMETRIC,
                    data,
                    f"tree distance of mistakes, flat less {name}",
                    _told(clean, _three(clean, "+.2f")) if clean else "",
                    under,
                ]
            )
    return rows


def _reclassifiers(data: str, tree: dict[str, Any]) -> list[list[str]]:
    titles = {
        "improves-base": ("The plug-in improves the robust accuracy of its base", "mixed surrogates less base's worst case"),
        "direct-attack-overstates": ("Attacking the plug-in directly overstates its robustness", "direct less mixed surrogates"),
    }
    rows = []
    for name, parts in (tree.get("reclassifiers") or {}).items():
        claims = parts["attacked"]["claims"]
        for key, (claim, measure) in titles.items():
            for norm, by_eps in claims[key].items():
                for eps, change in by_eps.items():
                    measured = f"{name}: {measure}, points, {NORM_TITLES[norm]} {eps}"
                    rows.append([claim, RECLASSIFIER, data, measured, "", _told(change, points(change))])
        change = claims["fc-more-sensitive"]
        measured = f"{name}: change of logits per unit of features and margin, FC less l2"
        told = _told(change, _three(change, "+.3f"))
        rows.append(["FC heads are more sensitive than l2 heads", RECLASSIFIER, data, measured, told, ""])
    return rows


def _paths(data: str, tree: dict[str, Any]) -> list[list[str]]:
    """Trained arms first, the untrained networks under a claim of their own."""
    told, rows = tree.get("connectivity") or {}, []
    for arm, numbers in told.get("arms", {}).items():
        claims, untrained = numbers["claims"], arm == "untrained"
        first = (
            "So are those of untrained networks, by flat paths"
            if untrained
            else "Inputs of a class are connected by near-linear low-loss paths"
        )
        for key, how in (("linear", "straight"), ("bypassed", f"after {told['rounds']} rounds of bypassing")):
            share = claims[key]
            judged = f"rises by at most {told['threshold']}, {how}; limit {100 * told['connected']:.0f}"
            measured = f"{arm}: {share['kind']} pairs whose path {judged}"
            rows.append([first, CONNECTIVITY, data, measured, f"{percent(share)} **{share['verdict']}**", ""])
        if "higher" in claims:
            change = claims["higher"]
            measured = f"{arm}: gap of the straight path, adversarial less real end of equal loss"
            told_so = f"{_three(change, '+.3f')} **{change['verdict']}**"
            rows.append(["Barriers to adversarial images are higher", CONNECTIVITY, data, measured, told_so, ""])
    for state, rise in (tree.get("percolation") or {}).get("rise", {}).items():
        smallest, *_, largest = tree["percolation"]["sizes"]
        measured = f"{state}: share joined by straight paths at {largest} x {largest}, less at {smallest} x {smallest}, points"
        told_so = f"{points(rise['0'])} **{rise['0']['verdict']}**"
        rows.append(["Connection comes with high input dimension", CONNECTIVITY, data, measured, told_so, ""])
    return rows


def _detection(data: str, tree: dict[str, Any]) -> list[list[str]]:
    told, rows = tree.get("detection") or {}, []
    titles = {
        "barrier-beyond-loss": "The barrier detects adversarial examples beyond what the loss itself tells",
        "barrier-beyond-ends": "What lies between a path's ends detects adversarial examples",
        "fitted-beyond-loss": "Loss curves, fitted, detect adversarial examples beyond what the loss itself tells",
        "equal-loss": "The barrier tells adversarial images of equal loss",
    }
    measures = {
        "barrier-beyond-loss": "less that of the image's own loss",
        "barrier-beyond-ends": "less that of the higher end's loss",
        "fitted-beyond-loss": "less that fitted to the loss alone",
    }
    alone = "AUROC less that of the image's own loss"
    for key, title in titles.items():
        for arm, numbers in told.get("arms", {}).items():
            if key in numbers["claims"]:
                change = numbers["claims"][key]
                over = f"mean AUROC over {change['attacks']} unseen attacks, {measures.get(key)}"
                measured = f"{arm}: {over if key in measures else alone}"
                rows.append([title, CONNECTIVITY, data, measured, _told(change, _three(change, "+.3f")), ""])
    return rows


def _of_toy(toy: str, summary: dict[str, Any]) -> list[list[str]]:
    titles = {
        "correlation is higher than under cross-entropy": "The term keeps distances inside classes",
        "isometric distortion is higher near boundaries": "The map is isometric except near decision boundaries",
    }
    measures = {
        "correlation is higher than under cross-entropy": "gain in distance correlation",
        "isometric distortion is higher near boundaries": "rank correlation, its sign turned",
    }
    rows = []
    for level, at in summary["levels"].items():
        for key, title in titles.items():
            told = f"{_three(at['claims'][key], '+.2f')} **{at['claims'][key]['verdict']}**"
            rows.append([title, ISOMETRIC, f"{toy}, {level}", measures[key], told, ""])
    return rows


def _three(interval: dict[str, float], style: str = ".2f") -> str:
    return f"{interval['value']:{style}} [{interval['lo']:{style}}, {interval['hi']:{style}}]"
