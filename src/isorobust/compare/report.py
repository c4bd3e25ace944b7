"""The Markdown report of one data set."""

from __future__ import annotations

from typing import Any

from isorobust.compare import cells, connectivity, detection, percolation, reclassifiers, structure, tables

HIERARCHY_NOTE = (
    "Under attack: right under PGD on every level of the tree, each with the level's own loss, because an attack on a fine level "
    "alone is weak where gradients shrink on their way through the blocks. Tree distance of a mistake: levels up to the lowest "
    "group that holds both classes; its rows under PGD follow the finest level alone."
)

RECLASSIFIER_NOTE = (
    "Each surrogate's column: right under its own attack, judged by itself. *Mixed surrogates*: the real model is right on the "
    "clean batch and on every batch made against every surrogate. *And adaptive*: also under PGD with expectation over batches. "
    "*One among clean*: one adversarial image at a time, the others of its batch clean. *Base*: fine-tuned as long without the "
    "plug-in, under its worst case."
)

CONNECTIVITY_NOTE = (
    "Pairs of a class (*between-classes*: the control, the lower of both classes' losses): *real*, test images that the "
    "network gets right; *interpolated*, half-way points of such pairs; *synthetic*, by feature visualisation. A path is "
    "*low* if its highest loss, the *barrier*, is at most the threshold, ends included, and *level* if the loss rises by no"
    " more than that above the higher end; that rise is the *gap*. Pairs are drawn anew for every seed, so intervals over "
    "seeds are over pairs too. Below: straight paths from a real image to another one, and to an image of another class "
    "changed until its loss matches that one's; AUROC of telling the two apart by the curve, beside that of the end's own "
    "loss. Every path from one class to another crosses their boundary, where the lower of both losses is at least 0.69, so"
    " that control can be low only where the boundary lies between two of a path's points. The recipe's tanh network gives "
    "no input a low loss before training, because its logits are bounded; an untrained CNN does."
)


PERCOLATION_NOTE = (
    "The recipe's network, trained on images scaled down, judged on real pairs of a class; with its first weights, on synthetic "
    "ones. The last column is the control, after all rounds."
)

DETECTION_NOTE = (
    "AUROC, mean over the attacks unseen in fitting, less that of a control; negatives are clean test images that the "
    "network gets right, positives their attacked versions that fool it. *Barrier*: highest loss of the predicted class "
    "along straight paths from training images of it. *Higher end*: the higher loss of such a path's two ends, which knows "
    "nothing of what lies between. *Fitted*: logistic regression on the curves and the image's loss, fitted to FGSM images "
    "of training data; its control is fitted to the loss alone. *Equal loss*: images of another class changed until their "
    "loss is that of a validation image. *Adaptive*: share of fooling images above the threshold, which 5 % of clean "
    "validation images exceed, under the attack that knows the detector, tried on images that PGD fools, and where those are too "
    "few on others; n, the images that it fooled in any seed. *endpoint-loss* and *max-softmax* rank alike, and "
    "*fitted-loss* up to its sign."
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


def reclassifier_parts(found: dict[str, Any]) -> list[str]:
    """Tables of the reclassifiers in use, with what their columns mean."""
    return [reclassifiers.table(found), RECLASSIFIER_NOTE, reclassifiers.claims_table(found), reclassifiers.batch_table(found)]


def connectivity_parts(told: dict[str, Any]) -> list[str]:
    """Tables on paths between inputs, with what their rows mean."""
    rows = [connectivity.differences_table(told)] if told.get("differences") else []
    line = connectivity.component_line(told)
    against = [connectivity.against_table(told), connectivity.change_line(told)]
    return [connectivity.table(told), CONNECTIVITY_NOTE, *against, line, *rows]


def percolation_parts(told: dict[str, Any]) -> list[str]:
    """Connection by input dimension."""
    return [percolation.sentences(told), percolation.table(told), PERCOLATION_NOTE]


def detection_parts(told: dict[str, Any]) -> list[str]:
    """What detection by paths comes to, with what the columns mean."""
    rows = [detection.differences_table(told)] if told["differences"] else []
    return [detection.claims_table(told), *rows, DETECTION_NOTE]


def report(tree: dict[str, Any], figures: list[str]) -> str:
    """`figures`: paths of images relative to the report."""
    failed = {arm: names for arm, names in tree["primary"]["failed-checks"].items() if names}
    told = "; ".join(f"{arm}: {', '.join(names)}" for arm, names in failed.items()) or "none"
    parts = [
        f"# Results on {tree['data']}",
        "Written by the stage `compare`; every number stands in `compare.json`.",
        "## Primary endpoint",
        "\n".join(primary_sentences(tree)),
        f"Checks that failed: {told}.",
        "## Accuracy",
        tables.accuracy_table(tree),
        tables.counts_line(tree),
        "## What the isometric term adds",
        tables.factorial_table(tree),
        "*Smallest visible*: half the width of the difference's interval, in points: what could at best be told from none.",
        *(["Chosen by the sweep:", "\n".join(tables.sweep_lines(tree["sweeps"]))] if tree["sweeps"] else []),
        *(["## Geometry of the representations", structure.geometry_table(tree)] if tree["geometry"] else []),
        *(
            ["## Hierarchy", structure.hierarchy_table(tree), structure.mistakes_table(tree), HIERARCHY_NOTE]
            if tree["hierarchy"]
            else []
        ),
        *(["## l2-reclassifier", *reclassifier_parts(tree["reclassifiers"])] if tree["reclassifiers"] else []),
        *(["## Paths between inputs", *connectivity_parts(tree["connectivity"])] if tree["connectivity"] else []),
        *(["## Connection by input dimension", *percolation_parts(tree["percolation"])] if tree["percolation"] else []),
        *(
            ["## Detecting adversarial images", *detection_parts(tree["detection"]), detection.table(tree["detection"])]
            + [detection.CURVES_NOTE, detection.curves_table(tree["detection"])]
            if tree["detection"]
            else []
        ),
        "## Claims",
        tables.verdict_table(tree),
        tables.clean_table(tree),
        "A claim holds when the 95 % interval of its paired difference lies above 0, does not hold when it lies below, "
        "and is undecided otherwise. Intervals are not corrected for the number of rows; the primary endpoint was named before.",
        "## Checks of the evaluation on itself",
        tables.checks_table(tree),
        *(
            ["## Ablation of the l2-reclassifier, on val", reclassifiers.ablation_table(tree["reclassifiers"])]
            if tree["reclassifiers"]
            else []
        ),
        "## Figures",
        "\n\n".join(f"![{path}]({path})" for path in figures),
    ]
    return "\n\n".join(parts) + "\n"
