"""Markdown for the report and the README: accuracy under attack, and which arm is more robust than which."""

from __future__ import annotations

from typing import Any

from isorobust.compare.analysis import factorial, verdict
from isorobust.compare.cells import ATTACK_TITLES, NORM_TITLES, markdown, named, percent, points
from isorobust.detection.scores import UNSEEN

SHOWN = ("paper-fgsm", "fgsm", "pgd", "worst-case")  # the protocols side by side: as published, standard, worst case


def shown_points(tree: dict[str, Any]) -> list[tuple[str, str]]:
    """The (norm, eps) that tables show: where the worst case ran, or the primary endpoint's radii."""
    numbers = next(iter(tree["arms"].values()))["robust"]
    worst = [(norm, eps) for norm, by_eps in numbers.items() for eps, attacks in by_eps.items() if "worst-case" in attacks]
    return worst or [(tree["primary"]["norm"], eps) for eps in tree["primary"]["eps"]]


def _over(tree: dict[str, Any], pair: str) -> str:
    arm, other = pair.split("-vs-")
    return f"{named(tree, arm)} over {named(tree, other)}"


def accuracy_table(tree: dict[str, Any]) -> str:
    """Rows: every radius where the worst case ran, then arms; columns: clean and the attacks of `SHOWN`.

    The titles say on how many images, and the cells where there are others. Below a plug-in its base, fine-tuned as
    long without it, on the same images: what the plug-in's number is to be held against.
    """
    attacks = [
        a
        for a in SHOWN
        if any(a in _at(numbers, norm, eps) for numbers in tree["arms"].values() for norm, eps in shown_points(tree))
    ]
    plug_ins = tree.get("reclassifiers") or {}
    rows, usual = [], {}
    for norm, eps in shown_points(tree):
        for arm, numbers in tree["arms"].items():
            found = {attack: _at(numbers, norm, eps).get(attack) for attack in attacks}
            if not any(found.values()):
                continue
            lines = {named(tree, arm): {"clean": numbers["clean"], **found}}
            if arm in plug_ins:
                attacked = plug_ins[arm]["attacked"]
                base = {"clean": attacked["base-clean"], "worst-case": attacked["base"][norm][eps]}
                lines[f"base of {arm}, fine-tuned as long"] = {attack: base.get(attack) for attack in ("clean", *attacks)}
            for name, line in lines.items():
                cells = []
                for attack, estimate in line.items():
                    n = usual.setdefault(attack, estimate["n"]) if estimate else None
                    cells.append(percent(estimate) + (f" (n = {estimate['n']})" if estimate and estimate["n"] != n else ""))
                rows.append([f"{NORM_TITLES[norm]} {eps}", name, str(numbers["seeds"]), *cells])
    titles = [f"{ATTACK_TITLES[attack]} (n = {usual[attack]})" for attack in ("clean", *attacks)]
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
    return "n: " + ", ".join(parts) + ". Percent, with 95 % intervals over seeds and images." + _setup(tree)


def counts(tree: dict[str, Any]) -> str:
    """On how many images, pairs and seeds the studies of a data set are."""
    primary = tree["primary"]
    arm = tree["arms"][primary["reference"]]
    attack, radii = primary["attack"], primary["eps"].values()
    seeds = arm["worst-case-seeds"] if attack == "worst-case" else arm["seeds"]
    told = [
        f"accuracy {arm['clean']['n']} test images, {arm['seeds']} seeds",
        f"{ATTACK_TITLES.get(attack, attack)} {max(point['n'] for point in radii)}, {seeds}",
    ]
    for plug_in, parts in tree["reclassifiers"].items():
        mixed = next(iter(next(iter(parts["attacked"]["msa"].values())).values()))
        told.append(f"that of {plug_in} {mixed['n']}, {tree['arms'][plug_in]['worst-case-seeds']}")
    if geometry := tree["geometry"].get(primary["reference"]):
        pairs, boundary, singular = geometry["distances"]["correlation"], geometry["boundary"], geometry["jacobian"]["largest"]
        told.append(f"geometry {pairs['n']}, near boundaries {boundary['correlation']['n']}, Jacobians {singular['n']}")
    if tree["hierarchy"]:
        told.append(f"hierarchies {arm['clean']['n']}, under PGD {tree['hierarchy']['images']}")
    for numbers in list(tree["connectivity"].get("arms", {}).values())[:1]:
        told.append(f"paths {numbers['pairs']} pairs of a kind and seed, {numbers['seeds']} seeds")
    if sizes := tree["percolation"]:
        told.append(f"input dimension {sizes['pairs']} pairs of a kind and seed, {sizes['seeds']} seeds")
        for network, numbers in sizes.get("random", {}).items():
            share = next(iter(numbers["synthetic"]["low"].values()))["0"]
            # Numbers from before pairs were held to distinct ends may have the pairs of one seed as n.
            whose = "of all seeds" if "distinct" in numbers["synthetic"] else "as they were counted then"
            told.append(f"untrained {network} {share['n']} pairs {whose}")
    for numbers in list(tree["detection"].get("arms", {}).values())[:1]:
        tried = {attack: numbers["fooled"][attack]["n"] for attack in UNSEEN if attack in numbers["fooled"]}
        fewer = [f"{attack} on {n}" for attack, n in tried.items() if n < max(tried.values())]
        aside = f" ({', '.join(fewer)})" if fewer else ""
        told.append(f"detection {numbers['images']} images, attacks on those that are right{aside}, {numbers['seeds']} seeds")
    return "; ".join(told)


def _setup(tree: dict[str, Any]) -> str:
    """The networks and their training in a sentence; nothing for results from before they were written down."""
    if not tree.get("setup"):
        return ""
    network, training = tree["setup"]["network"], tree["setup"]["training"]
    told = [network["name"], *(f"{key.replace('_', ' ')} {_line(value)}" for key, value in network.items() if key != "name")]
    numbers = f"{training['epochs']} epochs, batches of {training['batch_size']}, learning rate {training['learning_rate']:g}"
    return f" Networks: {', '.join(told)}; {numbers}."


def _line(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


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


def sweep_lines(sweeps: dict[str, dict[str, Any]]) -> list[str]:
    """One line per tuned arm: the numbers chosen and how they did on val."""
    lines = []
    for arm, swept in sweeps.items():
        chosen = {**swept["chosen"]["objective"], **swept["chosen"]["isometry"]}
        numbers = ", ".join(f"{name} {value}" for name, value in chosen.items())
        rates = f"clean {percent(swept['val_clean'])}, PGD {percent(swept['val_pgd'])}, n = {swept['val_pgd']['n']}"
        missed = "" if swept["min_clean_met"] else "; no cell was as accurate as asked for, so the most accurate was taken"
        lines.append(f"- {arm}: {numbers}, of {swept['cells']} cells (on val, biased by the choice: {rates}{missed}).")
    return lines


def sweep_table(swept: dict[str, Any]) -> str:
    """Rows: cells of a sweep, the chosen one marked; accuracy on val in percent, clean and under PGD."""
    rates = ("val_clean", "val_pgd")
    names = [name for name in swept["table"][0] if name not in (*rates, "chosen")]
    rows = [
        [
            *(row[name] for name in names),
            *(f"{100 * float(row[rate]):.1f}" for rate in rates),
            "chosen" if row["chosen"] == "1" else "",
        ]
        for row in swept["table"]
    ]
    return markdown([*names, "clean, val", "PGD, val", ""], rows)


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
