"""Tables: CSV for programs, Markdown for the report and the README."""

from __future__ import annotations

from typing import Any

from isorobust.compare.analysis import factorial, verdict

ATTACK_TITLES = {
    "clean": "clean",
    "paper-fgsm": "paper's FGSM",
    "fgsm": "FGSM",
    "pgd": "PGD",
    "strongest": "strongest",
    "worst-case": "worst case",
}
NORM_TITLES = {"linf": "L-infinity", "l2": "L2"}
SHOWN = ("paper-fgsm", "fgsm", "pgd", "worst-case")  # the protocols side by side: as published, standard, worst case
FLAT = "baseline"  # the arm that hierarchies are held against
CSV_HEADER = ["arm", "norm", "eps", "attack", "value", "lo", "hi", "n"]


def long_rows(tree: dict[str, Any]) -> list[list[Any]]:
    """One row per arm, norm, eps and attack; clean accuracy as attack `clean` at eps 0."""
    rows = []
    for arm, numbers in tree["arms"].items():
        rows.append([arm, "", 0.0, "clean", *_values(numbers["clean"])])
        for norm, by_eps in numbers["robust"].items():
            for eps, by_attack in by_eps.items():
                rows += [[arm, norm, eps, attack, *_values(estimate)] for attack, estimate in by_attack.items()]
    return rows


def _values(estimate: dict[str, float]) -> list[float]:
    return [estimate[k] for k in ("value", "lo", "hi", "n")]


def wide_rows(tree: dict[str, Any], arms: list[str], norm: str, attack: str) -> tuple[list[str], list[list[Any]]]:
    """(header, rows) for a DVC plot: eps, then one column per arm of the list; empty where an arm was skipped."""
    curves = {}
    for arm in arms:
        numbers = tree["arms"].get(arm)
        points = numbers["robust"].get(norm, {}) if numbers else {}
        curves[arm] = {float(eps): p[attack]["value"] for eps, p in points.items() if attack in p}
        if numbers:
            curves[arm][0.0] = numbers["clean"]["value"]
    grid = sorted({eps for curve in curves.values() for eps in curve})
    return ["eps", *arms], [[eps, *(curves[arm].get(eps) for arm in arms)] for eps in grid]


def curve_rows(results, arms: list[str], column: str) -> tuple[list[str], list[list[Any]]]:
    """(header, rows) by epoch for a DVC plot: one column per arm of the list."""
    found = {result.arm: {int(row["epoch"]): float(row[column]) for row in result.curves} for result in results}
    epochs = sorted({epoch for curve in found.values() for epoch in curve})
    return ["epoch", *arms], [[epoch, *(found.get(arm, {}).get(epoch) for arm in arms)] for epoch in epochs]


def percent(estimate: dict[str, float] | None) -> str:
    """`94.1 [93.0, 95.0]`, in percent."""
    if estimate is None:
        return ""
    return f"{100 * estimate['value']:.1f} [{100 * estimate['lo']:.1f}, {100 * estimate['hi']:.1f}]"


def points(estimate: dict[str, float]) -> str:
    """`+1.2 [-0.4, 2.8]`, in percentage points."""
    return f"{100 * estimate['value']:+.1f} [{100 * estimate['lo']:+.1f}, {100 * estimate['hi']:+.1f}]"


def markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows]]
    return "\n".join(lines)


def shown_points(tree: dict[str, Any]) -> list[tuple[str, str]]:
    """The (norm, eps) that tables show: where the worst case ran, or the primary endpoint's radii."""
    numbers = next(iter(tree["arms"].values()))["robust"]
    worst = [(norm, eps) for norm, by_eps in numbers.items() for eps, attacks in by_eps.items() if "worst-case" in attacks]
    return worst or [(tree["primary"]["norm"], eps) for eps in tree["primary"]["eps"]]


def named(tree: dict[str, Any], arm: str, shown: str | None = None) -> str:
    """An arm as every table writes it beside its numbers: `arm (failed: check, ...)`; `shown`: what to call it there."""
    failed = tree.get("primary", {}).get("failed-checks", {}).get(arm, [])
    return (shown or arm) + (f" (failed: {', '.join(failed)})" if failed else "")


def _over(tree: dict[str, Any], pair: str) -> str:
    arm, other = pair.split("-vs-")
    return f"{named(tree, arm)} over {named(tree, other)}"


def accuracy_table(tree: dict[str, Any]) -> str:
    """Rows: every radius where the worst case ran, then arms; columns: clean and the attacks of `SHOWN`.

    The titles say on how many images, where that is the same in all rows.
    """
    attacks = [
        a
        for a in SHOWN
        if any(a in _at(numbers, norm, eps) for numbers in tree["arms"].values() for norm, eps in shown_points(tree))
    ]
    rows, counts = [], {attack: set() for attack in ("clean", *attacks)}
    for norm, eps in shown_points(tree):
        for arm, numbers in tree["arms"].items():
            found = {attack: _at(numbers, norm, eps).get(attack) for attack in attacks}
            if any(found.values()):
                found = {"clean": numbers["clean"], **found}
                for attack, estimate in found.items():
                    counts[attack].update([estimate["n"]] if estimate else [])
                cells = [percent(estimate) for estimate in found.values()]
                rows.append([f"{NORM_TITLES[norm]} {eps}", named(tree, arm), str(numbers["seeds"]), *cells])
    titles = [ATTACK_TITLES[attack] + (f" (n = {min(n)})" if len(n) == 1 else "") for attack, n in counts.items()]
    return markdown(["ball", "arm", "seeds", *titles], rows)


def _at(numbers: dict[str, Any], norm: str, eps: str) -> dict[str, Any]:
    return numbers["robust"].get(norm, {}).get(eps, {})


def counts_line(tree: dict[str, Any]) -> str:
    """How many images and seeds stand behind the columns, and where an arm's worst case has others than the first arm's."""
    ran = {arm: counts for arm, numbers in tree["arms"].items() if (counts := _worst_counts(numbers)) is not None}
    parts = [f"{next(iter(tree['arms'].values()))['clean']['n']} test images"]
    if ran:
        images, seeds = next(iter(ran.values()))
        others: dict[str, list[str]] = {}
        for arm, (n, s) in ran.items():
            told = [*([f"{n} images"] if n != images else []), *([f"{s} seeds"] if s != seeds else [])]
            told += ["mixed surrogates"] if arm in (tree.get("reclassifiers") or {}) else []
            if told:
                others.setdefault(", ".join(told), []).append(arm)
        aside = "; ".join(f"{', '.join(arms)}: {told}" for told, arms in others.items())
        worst = f"worst case the first {images} of them on the first {seeds} seeds"
        parts.append(worst + (f" ({aside})" if aside else ""))
    return "n: " + ", ".join(parts) + ". Percent, with 95 % intervals over seeds and images."


def _worst_counts(numbers: dict[str, Any]) -> tuple[int, int] | None:
    """(images, seeds) of an arm's worst case; None where it did not run."""
    n = [a["worst-case"]["n"] for by_eps in numbers["robust"].values() for a in by_eps.values() if "worst-case" in a]
    return (max(n), numbers["worst-case-seeds"]) if n else None


def verdict_table(tree: dict[str, Any]) -> str:
    """Rows: every pair of arms and radius; is the first more robust than the second, under each protocol?"""
    primary = tree["primary"]
    ran = {a for numbers in tree["differences"].values() for n, e in shown_points(tree) for a in numbers.get(n, {}).get(e, {})}
    attacks = [attack for attack in SHOWN if attack in ran]
    rows = []
    for pair, numbers in tree["differences"].items():
        arm, other = pair.split("-vs-")
        for norm, eps in shown_points(tree):
            here = numbers.get(norm, {}).get(eps, {})
            first = (arm, other, norm) == (primary["arm"], primary["reference"], primary["norm"]) and eps in primary["eps"]
            cells = [_judged(here.get(attack), first and attack == primary["attack"]) for attack in attacks]
            if any(cells):
                rows.append([_over(tree, pair), f"{NORM_TITLES[norm]} {eps}", *cells])
    return markdown(["more robust", "ball", *(ATTACK_TITLES[attack] for attack in attacks)], rows)


def _judged(estimate: dict[str, float] | None, primary: bool) -> str:
    if estimate is None:
        return ""
    return f"{points(estimate)} {verdict(estimate)}" + (" (primary)" if primary else "")


def clean_table(tree: dict[str, Any]) -> str:
    """Rows: every pair of arms; the difference of clean accuracy."""
    rows = [
        [_over(tree, pair), points(numbers["clean"]), verdict(numbers["clean"])] for pair, numbers in tree["differences"].items()
    ]
    return markdown(["more accurate on clean images", "difference in points", "verdict"], rows)


def factorial_entries(tree: dict[str, Any]) -> list[dict[str, Any]]:
    """The factorial view at the primary endpoint's attack and radii."""
    primary = tree["primary"]
    return factorial(tree, primary["norm"], list(primary["eps"]), primary["attack"])


def factorial_table(tree: dict[str, Any]) -> str:
    """Rows: each twin and measure; without and with the isometric term, difference, half its interval's width, verdict."""
    primary = tree["primary"]
    title = f"{ATTACK_TITLES.get(primary['attack'], primary['attack'])}, {NORM_TITLES[primary['norm']]}"
    rows = []
    for entry in factorial_entries(tree):
        measure = "clean" if entry["measure"] == "clean" else f"{title} {entry['measure']}"
        rates = [percent(entry["without"]), percent(entry["with"])]
        change = [points(entry["difference"]), f"{100 * entry['smallest']:.1f}", entry["verdict"]]
        rows.append([named(tree, entry["regulariser"]), named(tree, entry["twin"]), measure, *rates, *change])
    header = ["regulariser", "with the isometric term", "measure", "without", "with", "difference"]
    return markdown([*header, "smallest visible (half the width of this interval)", "verdict"], rows)


def factorial_rows(tree: dict[str, Any]) -> tuple[list[str], list[list[Any]]]:
    """(header, rows) of the factorial view for programs."""
    rows = []
    for entry in factorial_entries(tree):
        change = entry["difference"]
        values = [entry["without"]["value"], entry["with"]["value"], change["value"], change["lo"], change["hi"], change["n"]]
        rows.append([entry["regulariser"], entry["twin"], entry["measure"], *values, entry["smallest"], entry["verdict"]])
    header = ["regulariser", "twin", "measure", "without", "with", "difference", "lo", "hi", "n", "smallest", "verdict"]
    return header, rows


def geometry_table(tree: dict[str, Any]) -> str:
    """Rows: arms; how isometric the representations are within classes, and whether less so near decision boundaries."""
    rows = []
    for arm, numbers in tree["geometry"].items():
        pairs, boundary = numbers["distances"], numbers["boundary"]
        estimates = [
            pairs["correlation"],
            pairs["stress"],
            pairs["scale"],
            numbers["neighbours"]["overlap"],
            boundary["correlation"],
        ]
        cells = [f"{e['value']:.2f} [{e['lo']:.2f}, {e['hi']:.2f}]" for e in estimates]
        rows.append([named(tree, arm), *cells, boundary["verdict"]])
    header = [
        "arm",
        "distance correlation",
        "stress",
        "fitted scale",
        "neighbour overlap",
        "rank correlation of distortion and boundary distance",
    ]
    return markdown([*header, "more distorted near boundaries"], rows)


def hierarchy_table(tree: dict[str, Any]) -> str:
    """Rows: trees and levels; accuracy of the hierarchy and of the flat baseline mapped up the tree, clean and under attack."""
    found, rows = tree["hierarchy"], []
    trees = {name: numbers for name, numbers in found.items() if isinstance(numbers, dict)}
    radii = list(next(iter(next(iter(trees.values()))["levels"].values()))["flat"]["pgd-on-any-level"])
    for name, numbers in trees.items():
        for level, at in numbers["levels"].items():
            cells = [percent(at[who]["clean"]) for who in ("hierarchical", "flat")]
            cells += [percent(at[who]["pgd-on-any-level"][eps]) for eps in radii for who in ("hierarchical", "flat")]
            rows.append([name, level, str(at["groups"]), *cells])
    norm = NORM_TITLES[found["norm"]]
    balls = [f"{norm} {eps}" for eps in radii]
    header = [f"{who}, {what}" for what in ("clean", *balls) for who in ("hierarchical", named(tree, FLAT, "flat"))]
    return markdown(["tree", "level", "groups", *header], rows)


def mistakes_table(tree: dict[str, Any]) -> str:
    """Rows: trees and attacks; mean tree distance of mistakes, of a wrong class drawn by lot and of both networks.

    Where measured, also the distance over all images, right ones at 0: who errs nearer may err more often.
    """
    found, rows = tree["hierarchy"], []
    kinds = [
        (name, title, numbers["mistakes"].get("uniform"), mistakes)
        for name, numbers in found.items()
        if isinstance(numbers, dict)
        for title, mistakes in _attacked(numbers["mistakes"], NORM_TITLES[found["norm"]]).items()
    ]
    told = any("per-image" in mistakes for *_, mistakes in kinds)
    for name, title, uniform, mistakes in kinds:
        cells = _nearer(mistakes, 2) + (_nearer(mistakes.get("per-image", {}), 3) if told else [])
        rows.append([name, title, "" if uniform is None else f"{uniform:.2f}", *cells])
    flat = named(tree, FLAT, "flat")
    header = ["tree", "images", "uniform wrong class", "hierarchical", flat, "flat less hierarchical", "errs to nearer classes"]
    columns = [f"per image: {title}" for title in ("hierarchical", flat, "flat less hierarchical")]
    return markdown([*header, *([*columns, "nearer per image"] if told else [])], rows)


def _attacked(mistakes: dict[str, Any], norm: str) -> dict[str, Any]:
    return {"clean": mistakes["clean"], **{f"PGD, {norm} {eps}": m for eps, m in mistakes["pgd"].items()}}


def _nearer(mistakes: dict[str, Any], digits: int) -> list[str]:
    """Both networks' means, the difference and its verdict; empty where no seed has mistakes of both networks."""
    means = [f"{mistakes[who]['value']:.{digits}f}" if mistakes.get(who) else "" for who in ("hierarchical", "flat")]
    if (near := mistakes.get("nearer")) is None:
        return [*means, "", ""]
    value, low, high = (f"{near[key]:+.{digits}f}" for key in ("value", "lo", "hi"))
    return [*means, f"{value} [{low}, {high}]", near["verdict"]]


def toy_table(summary: dict[str, Any]) -> str:
    """Rows: levels of a toy; both arms' accuracy, distance correlation and stress, and the claims' verdicts."""
    rows = []
    names = list(dict.fromkeys(claim for at in summary["levels"].values() for claim in at["claims"]))
    for level, at in summary["levels"].items():
        arms = [at["isometric"], at["cross-entropy"]]
        cells = [" / ".join(f"{arm[key]['value']:.2f}" for arm in arms) for key in ("accuracy", "correlation", "stress")]
        claims = [f"{at['claims'][name]['verdict']} ({at['claims'][name]['value']:+.2f})" for name in names]
        rows.append([level, str(at["classes"]), *cells, *claims])
    measured = [f"{what}, isometric / cross-entropy" for what in ("accuracy", "distance correlation", "stress")]
    return markdown(["level", "classes", *measured, *names], rows)


def sweep_lines(sweeps: dict[str, dict[str, Any]]) -> list[str]:
    """One line per tuned arm: the numbers chosen and how they did on val."""
    lines = []
    for arm, swept in sweeps.items():
        chosen = {**swept["chosen"]["objective"], **swept["chosen"]["isometry"]}
        numbers = ", ".join(f"{name} {value}" for name, value in chosen.items())
        rates = f"clean {100 * swept['val_clean']['value']:.1f}, PGD {100 * swept['val_pgd']['value']:.1f}"
        missed = "" if swept["min_clean_met"] else "; no cell was as accurate as asked for, so the most accurate was taken"
        lines.append(f"- {arm}: {numbers}, of {swept['cells']} cells (on val, biased by the choice: {rates}{missed}).")
    return lines


def checks_table(tree: dict[str, Any]) -> str:
    """Rows: checks; columns: arms; the value, and FAILED where it is above its limit."""
    arms = list(tree["checks"])
    names = list(dict.fromkeys(name for checks in tree["checks"].values() for name in checks))
    rows = []
    for name in names:
        found = [tree["checks"][arm].get(name) for arm in arms]
        limit = next(check["limit"] for check in found if check)
        cells = ["" if c is None else f"{c['value']:.4g}" + ("" if c["passed"] else " FAILED") for c in found]
        rows.append([name, f"{limit:.4g}", *cells])
    return markdown(["check", "limit", *arms], rows)
