"""Every published claim under test in one table: what was measured on which data, and whether it holds."""

from __future__ import annotations

from typing import Any

from isorobust.claims import UNDECIDED, verdict
from isorobust.compare.cells import NORM_TITLES, markdown, named, percent, points
from isorobust.compare.reclassifiers import SENSITIVITY

ISOMETRIC, RECLASSIFIER, CONNECTIVITY = "2211.01236", "2606.01746", "2409.05800"
HEADER = ["claim", "paper", "data", "measured", "as published", "under the worst case, or the attack named"]


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
            arm, other = (named(tree, name) for name in pair.split("-vs-"))
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
            "rank correlation of distortion with nearness to the boundary",
            f"{_three(_turned(near), '+.2f')} **{found[arm]['boundary']['verdict']}**",
            "",
        ],
    ]


def _hierarchy(data: str, tree: dict[str, Any]) -> list[list[str]]:
    found = tree.get("hierarchy") or {}
    rows = []
    for name, numbers in found.items():
        if isinstance(numbers, dict):
            clean, attacked = numbers["mistakes"]["clean"], numbers["mistakes"]["pgd"]
            for what, measured, style in (
                (lambda m: m, f"tree distance of mistakes, flat less {name}", "+.2f"),
                (lambda m: m.get("per-image", {}), f"tree distance over all images, right ones 0, flat less {name}", "+.3f"),
            ):
                near = {eps: what(m).get("nearer") for eps, m in {"": clean, **attacked}.items()}
                told = {eps: _told(one, _three(one, style)) for eps, one in near.items() if one}
                under = "; ".join(f"PGD on the classes, {eps}: {cell}" for eps, cell in told.items() if eps)
                if told:
                    claim = "A hierarchical network errs to nearer classes"
                    rows.append([claim, ISOMETRIC, data, measured, told.get("", ""), under])
    return rows


def _reclassifiers(data: str, tree: dict[str, Any]) -> list[list[str]]:
    titles = {
        "improves-base": ("The plug-in improves the robust accuracy of its base", "mixed surrogates less base's worst case"),
        "direct-attack-overstates": (
            "Attacking the plug-in directly overstates its robustness",
            "direct less mixed surrogates (never below 0)",
        ),
    }
    rows = []
    for name, parts in (tree.get("reclassifiers") or {}).items():
        claims = parts["attacked"]["claims"]
        for key, (claim, measure) in titles.items():
            for norm, by_eps in claims[key].items():
                for eps, change in by_eps.items():
                    measured = f"{named(tree, name)}: {measure}, points, {NORM_TITLES[norm]} {eps}"
                    rows.append([claim, RECLASSIFIER, data, measured, "", _told(change, points(change))])
        for measure, change in claims["fc-more-sensitive"].items():
            measured = f"{name}: {SENSITIVITY[measure]}, FC less l2"
            told = _told(change, _three(change, "+.3f"))
            rows.append(["FC heads are more sensitive than l2 heads", RECLASSIFIER, data, measured, told, ""])
    return rows


def _paths(data: str, tree: dict[str, Any]) -> list[list[str]]:
    """The same claim for trained arms, and under a title of its own for networks as they were before training."""
    told, sizes, rows = tree.get("connectivity") or {}, tree.get("percolation") or {}, []
    networks = [(arm, numbers["claims"]) for arm, numbers in told.get("arms", {}).items()]
    networks += [(f"untrained {name}", numbers["claims"]) for name, numbers in sizes.get("random", {}).items()]
    for name, claims in networks:
        where = "in untrained networks too" if name.startswith("untrained") else "by near-linear low-loss paths"
        joined = f"Inputs of a class are connected {where}"
        level = "The loss hardly rises on the straight path between inputs of a class"
        for key, claim, how in (
            ("low-straight", joined, f"stays at or below {told['threshold']} on the straight path"),
            ("low-bypassed", joined, f"stays at or below {told['threshold']} after {told['rounds']} rounds of bypassing"),
            ("level-straight", level, f"rises by at most {told['threshold']} above the higher end"),
        ):
            measured = f"{name}: {claims[key]['kind']} pairs whose loss {how}; limit {100 * told['connected']:.0f}"
            rows.append([claim, CONNECTIVITY, data, measured, f"{percent(claims[key])} **{claims[key]['verdict']}**", ""])
        if "higher" in claims:
            change = claims["higher"]
            measured = f"{name}: gap of the straight path, adversarial less real end of equal loss"
            told_so = f"{_three(change, '+.3g')} **{change['verdict']}**"
            rows.append(["Barriers to adversarial images are higher", CONNECTIVITY, data, measured, told_so, ""])
    for state, by_criterion in sizes.get("rise", {}).items():
        smallest, *_, largest = sizes["sizes"]
        for criterion, by_round in by_criterion.items():
            change = by_round["0"]
            measured = (
                f"{state}: share of {criterion} straight paths at {largest} x {largest}, less at {smallest} x {smallest}, points"
            )
            told_so = f"{points(change)} **{change['verdict']}**"
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
        "isometric distortion is higher near boundaries": "rank correlation of distortion with nearness to the boundary",
    }
    rows = []
    for level, at in summary["levels"].items():
        for key, title in titles.items():
            told = f"{_three(at['claims'][key], '+.2f')} **{at['claims'][key]['verdict']}**"
            rows.append([title, ISOMETRIC, f"{toy}, {level}", measures[key], told, ""])
    return rows


def _three(interval: dict[str, float], style: str = ".2f") -> str:
    return f"{interval['value']:{style}} [{interval['lo']:{style}}, {interval['hi']:{style}}]"


def _turned(interval: dict[str, float]) -> dict[str, float]:
    """The interval of the number with its sign turned."""
    return {"value": -interval["value"], "lo": -interval["hi"], "hi": -interval["lo"]}
