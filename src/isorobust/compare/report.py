"""The Markdown report of one data set: every table, with its figure and what its columns mean."""

from __future__ import annotations

from typing import Any

from isorobust.compare import cells, connectivity, detection, percolation, reclassifiers, structure, tables

# The figures that are committed, because the report shows them.
ROBUST_FIGURE, FACTORIAL_FIGURE, GEOMETRY_FIGURE = "robust-accuracy.png", "complementarity.png", "geometry.png"
RECLASSIFIER_FIGURE, CONNECTIVITY_FIGURE = "reclassifier.png", "connectivity.png"
DETECTION_FIGURE, PERCOLATION_FIGURE = "detection.png", "percolation.png"

ACCURACY_NOTE = (
    "The *paper's FGSM* follows cross-entropy and the isometric term, so for arms without the term it is FGSM; *worst case*: "
    "right under every attack that ran at this or a smaller radius of the norm, and under the AutoAttack composition "
    "(of a plug-in: under mixed surrogates)."
)

GEOMETRY_NOTE = (
    "Distances between representations against distances between images, within classes. *Stress*: what is left of the squared "
    "distances once the *fitted scale* has been taken out, 0 for an isometry up to scale. *Neighbour overlap*: share of an "
    "image's nearest of its class by pixels that are so by representation. *Largest singular value* of the derivative of "
    "representations by pixels, median over images: how steep the steepest direction is. *Rank correlation*: of local "
    "distortion with the distance to the decision boundary; below 0, what is distorted lies near boundaries, as the paper "
    "says. Intervals are over seeds for these images, those of the rank correlation over new images too."
)

HIERARCHY_NOTE = (
    "Under attack: right under PGD on every level of the tree, each with the level's own loss, because an attack on a fine "
    "level alone is weak where gradients shrink on their way through the blocks. Tree distance of a mistake: levels up to the "
    "lowest group that holds both classes; its rows under PGD take the farthest of the answers to the clean image and under the "
    "attacks on all levels. *Uniform wrong class*: that distance for a wrong class drawn by lot. *Per image*: over all images, "
    "right ones at 0. The hierarchy is a network of its own, with blocks of layers that carry the isometric term, and the flat "
    "one the baseline, so they differ in more than the tree."
)

RECLASSIFIER_NOTE = (
    "Each surrogate's column: right under its own attack, judged by itself. *Mixed surrogates*: the real model is right on the "
    "clean batch and on every batch made against every surrogate. *And adaptive*: also under PGD with expectation over "
    "batches. *One among clean*: one adversarial image at a time, the others of its batch clean. *Base*: fine-tuned as long "
    "without the plug-in, under its worst case."
)

CONNECTIVITY_NOTE = (
    "Pairs of a class (*between-classes*: the control, the lower of both classes' losses): *real*, test images that the "
    "network gets right; *interpolated*, half-way points of such pairs; *synthetic*, by feature visualisation. A path is "
    "*low* if its highest loss, the *barrier*, is at most the threshold, ends included, and *level* if the loss rises by no "
    "more than that above the higher end; that rise is the *gap*. *Distinct ends* lie apart by at least the recipe's "
    "`distinct`, for the larger of their norms: that a path joins an input with itself says nothing. The claim is judged on "
    "pairs of distinct *low ends*, at or below the threshold (a dash: no pair has such; empty: measured before they were told"
    " apart). Pairs are drawn anew for every seed, so intervals over seeds are over pairs too. Below: straight paths from a "
    "real image to another one, and to an image of another class changed until its loss matches that one's; AUROC of telling "
    "the two apart by the curve, beside that of the end's own loss. Every path from one class to another crosses their "
    "boundary, where the lower of both losses is at least 0.69, so that control can be low only where the boundary lies "
    "between two of a path's points. Before training, a network that ends in tanh layers gives no input a low loss, because "
    "its logits are bounded; others may."
)

DIFFERENCES_NOTE = (
    "Differences are over the pairs that both arms were given, those of images that both get right: fewer than above."
)

CONNECTIVITY_FIGURE_NOTE = (
    "The pair on the right is, of those whose path was led over a single point, the one with the widest gap: A and C, the "
    "highest point B of the straight path, B' to which it was moved, what that changed, and the loss along both."
)

PERCOLATION_NOTE = (
    "The recipe's network, trained on images scaled down, judged on real pairs of a class; with its first weights, on "
    "synthetic ones. The last column is the control, after all rounds."
)

DETECTION_NOTE = (
    "AUROC, mean over the attacks unseen in fitting, less that of a control; negatives are clean test images that the network"
    " gets right, positives their attacked versions that fool it. *Barrier*: highest loss of the predicted class along "
    "straight paths from training images of it. *Higher end*: the higher loss of such a path's two ends, which knows nothing "
    "of what lies between. *Fitted*: logistic regression on the curves and the image's loss, fitted to FGSM images of "
    "training data; its control is fitted to the loss alone. *How unusual*: how far the log of the image's loss lies, above "
    "or below, from its median over clean validation images; it finds attacks that make a network surer too. *Equal loss*: "
    "images of another class changed until their loss is that of a validation image. *Adaptive*: share of fooling images "
    "above the threshold, which 5 % of clean validation images exceed, under the attack that knows the detector, tried on "
    "images that PGD fools, and where those are too few on others; n, the images that it fooled in any seed. *endpoint-loss* "
    "and *max-softmax* rank alike, and *fitted-loss* up to its sign."
)


def primary_sentences(tree: dict[str, Any]) -> list[str]:
    """One sentence per radius of the primary endpoint: the difference, its interval, the verdict."""
    primary = tree["primary"]
    norm, attack = cells.NORM_TITLES[primary["norm"]], cells.ATTACK_TITLES.get(primary["attack"], primary["attack"])
    lines = []
    for eps, point in primary["eps"].items():
        arm, reference = (cells.named(tree, primary[who]) for who in ("arm", "reference"))
        claim = f"{arm} is more robust than {reference} at {norm} {eps} under the {attack}"
        lines.append(f"- {claim}: **{point['verdict']}** ({cells.points(point)} points, n = {point['n']}).")
    return lines


def report(tree: dict[str, Any]) -> str:
    """From the tree of compare.json; sections of studies that the recipe skips are left out."""
    failed = {arm: names for arm, names in tree["primary"]["failed-checks"].items() if names}
    told = "; ".join(f"{arm}: {', '.join(names)}" for arm, names in failed.items()) or "none"
    parts = [
        f"# Results on {tree['data']}",
        "Written by the stage `compare`; every number stands in `compare.json`. How it was measured: "
        "[docs/methods.md](../../docs/methods.md).",
        "## Primary endpoint",
        "\n".join(primary_sentences(tree)),
        f"Checks that failed: {told}.",
        "## Accuracy",
        tables.accuracy_table(tree),
        tables.counts_line(tree) + " " + ACCURACY_NOTE,
        f"n of every study: {tables.counts(tree)}.",
        _figure("Accuracy under attack against the radius", ROBUST_FIGURE),
        "## Who is more robust than whom",
        tables.verdict_table(tree),
        tables.clean_table(tree),
        "A claim holds when the 95 % interval of its paired difference lies above 0, does not hold when it lies below, "
        "and is undecided otherwise. Intervals are not corrected for the number of rows; the primary endpoint was named before "
        "the first run of the repository, after a trial elsewhere (README).",
        "## What the isometric term adds",
        tables.factorial_table(tree),
        "*Smallest visible*: half the width of the difference's interval, in points: a true difference smaller than "
        "this is missed more often than seen. Twins whose base's own numbers were tuned too, and other balls, are in the "
        "tables before.",
        *_sweeps(tree["sweeps"]),
        _figure("Accuracy with and without the isometric term", FACTORIAL_FIGURE),
        *_geometry(tree),
        *_hierarchy(tree),
        *_reclassifiers(tree["reclassifiers"]),
        *_connectivity(tree["connectivity"]),
        *_percolation(tree["percolation"]),
        *_detection(tree["detection"]),
        "## Checks of the evaluation on itself",
        tables.checks_table(tree),
        "A check fails above its limit.",
    ]
    return "\n\n".join(parts) + "\n"


def _sweeps(sweeps: dict[str, Any]) -> list[str]:
    if not sweeps:
        return []
    cells = [part for arm, swept in sweeps.items() for part in (f"All cells of {arm}:", tables.sweep_table(swept))]
    return ["Chosen by the sweep:", "\n".join(tables.sweep_lines(sweeps)), *cells]


def _figure(title: str, name: str) -> str:
    """`name`: the image's path relative to the report."""
    return f"![{title}]({name})"


def _geometry(tree: dict[str, Any]) -> list[str]:
    if not tree["geometry"]:
        return []
    figure = _figure("Geometry of the representations", GEOMETRY_FIGURE)
    return ["## Geometry of the representations", structure.geometry_table(tree), GEOMETRY_NOTE, figure]


def _hierarchy(tree: dict[str, Any]) -> list[str]:
    if not tree["hierarchy"]:
        return []
    return ["## Hierarchy", structure.hierarchy_table(tree), structure.mistakes_table(tree), HIERARCHY_NOTE]


def _reclassifiers(found: dict[str, Any]) -> list[str]:
    if not found:
        return []
    ablation = reclassifiers.ablation_table(found)
    return [
        "## l2-reclassifier",
        reclassifiers.table(found),
        RECLASSIFIER_NOTE,
        reclassifiers.claims_table(found),
        "Accuracy by what a batch is made of:",
        reclassifiers.batch_table(found),
        _figure("The l2-reclassifier: surrogates, batches and sensitivity of its heads", RECLASSIFIER_FIGURE),
        *(["Ablation, on val:", ablation] if ablation else []),
    ]


def _connectivity(told: dict[str, Any]) -> list[str]:
    if not told:
        return []
    return [
        "## Paths between inputs",
        connectivity.table(told),
        CONNECTIVITY_NOTE,
        connectivity.against_table(told),
        connectivity.change_line(told),
        connectivity.component_line(told),
        *([connectivity.differences_table(told), DIFFERENCES_NOTE] if told.get("differences") else []),
        _figure("Loss along paths between inputs", CONNECTIVITY_FIGURE),
        CONNECTIVITY_FIGURE_NOTE,
    ]


def _percolation(told: dict[str, Any]) -> list[str]:
    if not told:
        return []
    figure = _figure("Share of connected pairs by threshold and input size", PERCOLATION_FIGURE)
    title = "## Connection by input dimension"
    return [title, percolation.sentences(told), percolation.table(told), PERCOLATION_NOTE, figure]


def _detection(told: dict[str, Any]) -> list[str]:
    if not told:
        return []
    return [
        "## Detecting adversarial images",
        detection.claims_table(told),
        *([detection.differences_table(told)] if told["differences"] else []),
        DETECTION_NOTE,
        _figure("ROC of the detector's scores", DETECTION_FIGURE),
        detection.table(told),
        detection.CURVES_NOTE,
        detection.curves_table(told),
    ]
