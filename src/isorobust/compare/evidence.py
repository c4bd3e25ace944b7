"""Every published claim under test, a table per paper: what was measured on which data, and whether it holds."""

from __future__ import annotations

from typing import Any, NamedTuple

from isorobust.claims import verdict
from isorobust.compare.cells import ATTACK_TITLES, NORM_TITLES, interval, markdown, named, percent, points
from isorobust.compare.connectivity import LOW_ENDS
from isorobust.compare.reclassifiers import SENSITIVITY
from isorobust.compare.structure import FLAT, attacked_mistakes
from isorobust.connectivity.settings import UNTRAINED

ISOMETRIC = "Locally isometric layers (arXiv 2211.01236)"
TOYS = f"{ISOMETRIC}, toys"
RECLASSIFIER = "The l2-reclassifier with Hybrid Prototype Mixing (arXiv 2606.01746)"
CONNECTIVITY = "Input-space mode connectivity (arXiv 2409.05800)"

KEEPS, EXCEPT_NEAR = (
    "The term keeps distances inside classes",
    "The map is isometric except near decision boundaries (the paper: on toys)",
)
STRAIGHT = "straight path"
FAILED = "†"  # beside a verdict: see `failures`
NEARNESS = "rank correlation of distortion with the distance to the boundary (claimed: below 0)"


class Row(NamedTuple):
    """One number of one data set: `under` which attack or on which path; `told`: number, interval and verdict, as Markdown.

    `main`: whether it answers its claim in short, on the network that the claim is first of all about.
    """

    paper: str
    claim: str
    measured: str
    under: str
    data: str
    told: str
    main: bool = True


def table(trees: dict[str, dict[str, Any]], toys: dict[str, dict[str, Any]]) -> str:
    """Markdown of all claims, a table per paper; `trees`: compare.json by data set, `toys`: summary.json by toy.

    Data sets stand side by side, so that a row is one measure of one claim.
    """
    toy_rows = [row for toy, summary in toys.items() for row in _of_toy(toy, summary)]
    columns = list(dict.fromkeys(row.data for row in toy_rows))
    return "\n\n".join([*_of_papers(_rows(trees), list(trees)), *_section(TOYS, toy_rows, columns)])


def main_table(trees: dict[str, dict[str, Any]]) -> str:
    """As `table`, but only the rows that answer a claim in short, and no toys."""
    return "\n\n".join(_of_papers([row for row in _rows(trees) if row.main], list(trees)))


def _rows(trees: dict[str, dict[str, Any]]) -> list[Row]:
    studies = (_robustness, _geometry, _hierarchy, _reclassifiers, _paths, _sizes, _detection)
    return [row for study in studies for data, tree in trees.items() for row in study(data, tree)]


def _of_papers(rows: list[Row], columns: list[str]) -> list[str]:
    return [part for paper in (ISOMETRIC, RECLASSIFIER, CONNECTIVITY) for part in _section(paper, rows, columns)]


def _section(paper: str, rows: list[Row], columns: list[str]) -> list[str]:
    """A paper's heading and table; a claim and what was measured are told in the first of their rows."""
    rows = [row for row in rows if row.paper == paper]
    if not rows:
        return []
    cells = {row[1:5]: row.told for row in rows}
    claims = dict.fromkeys(row.claim for row in rows)
    order = [key for claim in claims for key in dict.fromkeys(row[1:4] for row in rows if row.claim == claim)]
    lines = []
    for before, (claim, measured, under) in zip([("", "", ""), *order], order):
        again = before[0] == claim
        titles = ["" if again else claim, "" if again and before[1] == measured else measured, under]
        lines.append(titles + [cells.get((claim, measured, under, data), "") for data in columns])
    return [f"### {paper}", markdown(["claim", "measured", "under", *columns], lines)]


def _told(estimate: dict[str, float], shown: str, mark: str = "") -> str:
    return f"{shown} **{verdict(estimate['lo'], estimate['hi'])}**{mark}"


def _mark(tree: dict[str, Any], *arms: str) -> str:
    """What stands beside a verdict if the evaluation of an arm that it is about failed a check of its own."""
    return FAILED if any(named(tree, arm) != arm for arm in arms) else ""


def failures(trees: dict[str, dict[str, Any]]) -> str:
    """What the mark means: for each data set the arms that failed checks, and which."""
    told = {
        data: [named(tree, arm) for arm, checks in tree["primary"]["failed-checks"].items() if checks]
        for data, tree in trees.items()
    }
    return ". ".join(f"On `{data}`: {', '.join(arms)}" for data, arms in told.items() if arms)


def _robustness(data: str, tree: dict[str, Any]) -> list[Row]:
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
            arm, other = pair.split("-vs-")
            measured = f"{arm} less {other}, points, {NORM_TITLES[primary['norm']]} {eps}"
            for attack in (a for a in ("paper-fgsm", primary["attack"]) if a in here):
                told = _told(here[attack], points(here[attack]), _mark(tree, arm, other))
                rows.append(Row(ISOMETRIC, claim, measured, ATTACK_TITLES.get(attack, attack), data, told))
    return rows


def _geometry(data: str, tree: dict[str, Any]) -> list[Row]:
    arm, reference = tree["primary"]["arm"], tree["primary"]["reference"]
    found = tree.get("geometry", {})
    if arm not in found or reference not in found:
        return []
    ours, plain = (found[name]["distances"]["correlation"] for name in (arm, reference))
    apart = verdict(ours["lo"] - plain["hi"], ours["hi"] - plain["lo"])
    near, elsewhere = (interval(found[name]["boundary"]["correlation"], "+.2f") for name in (arm, reference))
    return [
        Row(
            ISOMETRIC,
            KEEPS,
            f"distance correlation of {arm}; of {reference} (separate intervals)",
            "",
            data,
            f"{interval(ours)}; {interval(plain)} **{apart}**{_mark(tree, arm, reference)}",
        ),
        Row(
            ISOMETRIC,
            EXCEPT_NEAR,
            f"{NEARNESS}, of {arm} (which decides); of {reference}",
            "",
            data,
            f"{near}; {elsewhere} **{found[arm]['boundary']['verdict']}**{_mark(tree, arm, reference)}",
        ),
    ]


def _hierarchy(data: str, tree: dict[str, Any]) -> list[Row]:
    found, rows = tree.get("hierarchy") or {}, []
    norm, mark = NORM_TITLES.get(found.get("norm"), ""), _mark(tree, FLAT)
    trees = {name: numbers for name, numbers in found.items() if isinstance(numbers, dict)}
    deepest = max(trees, key=lambda name: len(trees[name]["levels"]), default=None)
    for name, numbers in trees.items():
        clean = numbers["mistakes"]["clean"]
        for what, measured, style in (
            (lambda m: m, f"tree distance of mistakes in levels, flat less {name}", "+.2f"),
            (lambda m: m.get("per-image", {}), f"the same over all images, right ones 0, flat less {name}", "+.3f"),
        ):
            claim = "A hierarchical network errs to nearer classes"
            for under, mistakes in attacked_mistakes(numbers["mistakes"], norm).items():
                if near := what(mistakes).get("nearer"):
                    told, main = _told(near, interval(near, style), mark), name == deepest and mistakes is clean
                    rows.append(Row(ISOMETRIC, claim, measured, under, data, told, main))
    return rows


def _reclassifiers(data: str, tree: dict[str, Any]) -> list[Row]:
    titles = {
        "improves-base": (
            "The plug-in improves the robust accuracy of its base",
            "accuracy under mixed surrogates, less its base's under the worst case",
            "mixed surrogates",
        ),
        "direct-attack-overstates": (
            "Attacking the plug-in directly overstates its robustness",
            "accuracy under an attack on the plug-in itself, less that under mixed surrogates (never negative)",
            "attack on itself",
        ),
    }
    rows, plug_ins = [], tree.get("reclassifiers") or {}
    for name, parts in plug_ins.items():
        first = name == next(iter(plug_ins))
        claims, mark = parts["attacked"]["claims"], _mark(tree, name)
        for key, (claim, measure, under) in titles.items():
            for norm, by_eps in claims[key].items():
                for eps, change in by_eps.items():
                    measured = f"{name}: {measure}, points, {NORM_TITLES[norm]} {eps}"
                    told, main = _told(change, points(change), mark), first and norm == tree["primary"]["norm"]
                    rows.append(Row(RECLASSIFIER, claim, measured, under, data, told, main))
        for measure, change in claims["fc-more-sensitive"].items():
            measured = f"{name}: {SENSITIVITY[measure]}, FC less l2"
            told = _told(change, interval(change, "+.3f"), mark)
            rows.append(Row(RECLASSIFIER, "FC heads are more sensitive than l2 heads", measured, "", data, told, first))
    return rows


def _paths(data: str, tree: dict[str, Any]) -> list[Row]:
    """The same claim for trained arms, and under a title of its own for networks as they were before training."""
    told, rows = tree.get("connectivity") or {}, []
    networks = [(arm, numbers["kinds"], numbers["claims"]) for arm, numbers in told.get("arms", {}).items()]
    random = (tree.get("percolation") or {}).get("random", {})
    networks += [(f"untrained {name}", numbers, numbers["claims"]) for name, numbers in random.items()]
    for name, kinds, claims in networks:
        mark, main = _mark(tree, name), name == tree["primary"]["reference"] or name.startswith(UNTRAINED)
        for key, (claim, how, path) in _of_pairs(told, name.startswith(UNTRAINED)).items():
            if (found := claims.get(key)) is None:  # measured before pairs were held to low ends
                continue
            if found["kind"] == "synthetic" and "distinct" not in kinds["synthetic"]:  # before they were held to distinct ones
                continue
            measured = f"{name}: {found['kind']} pairs {how}, percent; limit {100 * told['connected']:.0f}"
            shown = f"{percent(found)} **{found['verdict']}**{mark}" if found["n"] else found.get("why", LOW_ENDS)
            rows.append(Row(CONNECTIVITY, claim, measured, path, data, shown, main))
        if change := claims.get("higher"):
            measured = f"{name}: gap in nats, adversarial less real end of equal loss"
            shown = f"{interval(change, '+.3g')} **{change['verdict']}**{mark}"
            rows.append(Row(CONNECTIVITY, "Barriers to adversarial images are higher", measured, STRAIGHT, data, shown, main))
    return rows


def _of_pairs(told: dict[str, Any], untrained: bool) -> dict[str, tuple[str, str, str]]:
    """Key of a claim on pairs of a class -> (claim, how pairs are counted, path)."""
    where = "in untrained networks too" if untrained else "by near-linear low-loss paths"
    joined = f"Inputs of a class are connected {where}", f"of loss at or below {told['threshold']} on whose path it stays so"
    level = (
        "The loss hardly rises on the path between inputs of a class",
        f"on whose path the loss rises by at most {told['threshold']} above the higher end",
    )
    paths = {"straight": STRAIGHT, "bypassed": f"{told['rounds']} rounds of bypassing"}
    return {
        f"{kind}-{state}": (*claim, path)
        for kind, claim in {"joined": joined, "level": level}.items()
        for state, path in paths.items()
    }


def _sizes(data: str, tree: dict[str, Any]) -> list[Row]:
    told, rows = tree.get("percolation") or {}, []
    for state, by_criterion in told.get("rise", {}).items():
        smallest, *_, largest = told["sizes"]
        for criterion, by_round in by_criterion.items():
            if not (change := by_round.get("0")):
                continue
            paths = "low paths between low ends" if criterion == "joined" else f"{criterion} paths"
            measured = f"{state}: share of {paths} at {largest} x {largest}, less at {smallest} x {smallest}, points"
            shown = f"{points(change)} **{change['verdict']}**"
            claim = "Connection comes with high input dimension"
            rows.append(Row(CONNECTIVITY, claim, measured, STRAIGHT, data, shown, criterion == "joined"))
    return rows


def _detection(data: str, tree: dict[str, Any]) -> list[Row]:
    told, rows = tree.get("detection") or {}, []
    titles = {
        "barrier-beyond-loss": "The barrier detects adversarial examples beyond what the loss itself tells",
        "barrier-beyond-unusual-loss": "The barrier detects adversarial examples beyond what the loss itself tells",
        "barrier-beyond-ends": "What lies between a path's ends detects adversarial examples",
        "fitted-beyond-loss": "Loss curves, fitted, detect adversarial examples beyond what the loss itself tells",
        "equal-loss": "The barrier tells adversarial images of equal loss",
    }
    measures = {
        "barrier-beyond-loss": "less that of the image's own loss",
        "barrier-beyond-unusual-loss": "less that of how far its log loss lies from that of clean images",
        "barrier-beyond-ends": "less that of the higher end's loss",
        "fitted-beyond-loss": "less that fitted to the loss alone",
    }
    alone = "AUROC less that of the image's own loss"
    for key, title in titles.items():
        for arm, numbers in told.get("arms", {}).items():
            if key in numbers["claims"]:
                change = numbers["claims"][key]
                measured, under = f"{arm}: {alone}", "images of equal loss"
                if key in measures:
                    measured, under = f"{arm}: mean AUROC, {measures[key]}", f"{change['attacks']} unseen attacks"
                told_so, main = _told(change, interval(change, "+.3f"), _mark(tree, arm)), arm == tree["primary"]["reference"]
                rows.append(Row(CONNECTIVITY, title, measured, under, data, told_so, main))
    return rows


def _of_toy(toy: str, summary: dict[str, Any]) -> list[Row]:
    rows = []
    for level, at in summary["levels"].items():
        claims = at["claims"]
        for claim, measured, estimate, judged in (
            (KEEPS, "gain in distance correlation", claims["correlation is higher than under cross-entropy"], None),
            (
                EXCEPT_NEAR,
                NEARNESS,
                at["isometric"]["boundary_rank_correlation"],
                claims["isometric distortion is higher near boundaries"],
            ),
        ):
            told = f"{interval(estimate, '+.2f')} **{(judged or estimate)['verdict']}**"
            rows.append(Row(TOYS, claim, measured, "", f"{toy}, {level}", told))
    return rows
