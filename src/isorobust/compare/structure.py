"""Markdown on what networks make of the data's structure: geometry of representations, hierarchies, toys."""

from __future__ import annotations

from typing import Any

from isorobust.compare.cells import NORM_TITLES, interval, markdown, named, percent

FLAT = "baseline"  # the arm that hierarchies are held against


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
        *cells, last = map(interval, estimates)
        rows.append([named(tree, arm), *cells, interval(numbers["jacobian"]["largest"], ".1f"), last, boundary["verdict"]])
    header = [
        "arm",
        "distance correlation",
        "stress",
        "fitted scale",
        "neighbour overlap",
        "largest singular value of the Jacobian",
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
        for title, mistakes in attacked_mistakes(numbers["mistakes"], NORM_TITLES[found["norm"]]).items()
    ]
    told = any("per-image" in mistakes for *_, mistakes in kinds)
    for name, title, uniform, mistakes in kinds:
        cells = _nearer(mistakes, 2) + (_nearer(mistakes.get("per-image", {}), 3) if told else [])
        rows.append([name, title, "" if uniform is None else f"{uniform:.2f}", *cells])
    flat = named(tree, FLAT, "flat")
    header = ["tree", "images", "uniform wrong class", "hierarchical", flat, "flat less hierarchical", "errs to nearer classes"]
    columns = [f"per image: {title}" for title in ("hierarchical", flat, "flat less hierarchical")]
    return markdown([*header, *([*columns, "nearer per image"] if told else [])], rows)


def attacked_mistakes(mistakes: dict[str, Any], norm: str) -> dict[str, Any]:
    """What images the mistakes were made on -> their numbers; `norm` as titles have it."""
    attacked = mistakes["pgd-on-any-level"]
    return {"clean images": mistakes["clean"], **{f"PGD on any level, {norm} {eps}": m for eps, m in attacked.items()}}


def _nearer(mistakes: dict[str, Any], digits: int) -> list[str]:
    """Both networks' means, the difference and its verdict; empty where no seed has mistakes of both networks."""
    means = [interval(mistakes[who], f".{digits}f") if mistakes.get(who) else "" for who in ("hierarchical", "flat")]
    if (near := mistakes.get("nearer")) is None:
        return [*means, "", ""]
    return [*means, interval(near, f"+.{digits}f"), near["verdict"]]


def toy_table(summary: dict[str, Any]) -> str:
    """Rows: levels of a toy; both arms' accuracy and geometry, and the claims' verdicts."""
    rows = []
    keys = ("accuracy", "correlation", "stress", "distortion")
    names = list(dict.fromkeys(claim for at in summary["levels"].values() for claim in at["claims"]))
    for level, at in summary["levels"].items():
        arms = [at["isometric"], at["cross-entropy"]]
        cells = [" / ".join(interval(arm[key]) for arm in arms) for key in keys]
        claims = [f"{at['claims'][name]['verdict']} ({interval(at['claims'][name], '+.2f')})" for name in names]
        rows.append([level, str(at["classes"]), *cells, *claims])
    titles = ("accuracy", "distance correlation", "stress", "local distortion")
    measured = [f"{title}, isometric / cross-entropy" for title in titles]
    return markdown(["level", "classes", *measured, *names], rows)
