"""The toys' study: the same networks with and without the isometric term, what it keeps, and where it does not.

The claim under test (arXiv 2211.01236): the learned map is isometric inside each class everywhere
except near decision boundaries. Distances are those between inputs and between the representations
of one block (of the one, for a flat network); all measures are taken on test points.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from isorobust.claims import verdict
from isorobust.common.statistics import interval_over_seeds, rate
from isorobust.errors import found
from isorobust.geometry import measure
from isorobust.hierarchy.network import HierarchicalNetwork, hierarchical_loss
from isorobust.hierarchy.network import build as build_hierarchy
from isorobust.hierarchy.tree import parse_tree
from isorobust.networks.initial import initial
from isorobust.networks.settings import TanhMLP
from isorobust.networks.zoo import Network
from isorobust.networks.zoo import build as build_flat
from isorobust.objectives.losses import training_loss
from isorobust.objectives.settings import Arm, CrossEntropy
from isorobust.toys import shapes
from isorobust.toys.settings import Rings, Torus
from isorobust.training.fit import fit as train_stack

ARMS = ("isometric", "cross-entropy")
MEASURES = ("correlation", "stress", "scale", "distortion", "boundary_rank_correlation")


class Seen(NamedTuple):
    """What one network makes of the test points on one level: classes `[N]`, representations `[N, D]`."""

    predicted: np.ndarray
    representations: np.ndarray


class Study(NamedTuple):
    """test: the points; truth: per level their labels `[N]`; networks: arm -> one per seed; seen: arm -> per seed, per level."""

    name: str
    options: Rings | Torus
    test: shapes.Points
    truth: list[np.ndarray]
    networks: dict[str, list[Network]]
    seen: dict[str, list[list[Seen]]]


def study(name: str, options: Rings | Torus, device: torch.device) -> Study:
    """Train both arms on all seeds, in one stack, and look at the test points."""
    if isinstance(options, Rings):
        tree, loss, inputs = np.arange(2)[None], training_loss, 3
        train, val, test = (shapes.rings(options, part) for part in ("train", "val", "test"))
        size = TanhMLP(name="tanh-mlp", width=options.width, hidden_layers=options.layers)

        def made(number: int) -> Network:
            return build_flat(size, (inputs, 1, 1), tree.shape[1], number)
    else:
        tree, loss, inputs = parse_tree(options.levels), hierarchical_loss, 3
        train, val, test = (shapes.torus(options, tree.shape[1], part) for part in ("train", "val", "test"))

        def made(number: int) -> Network:
            return build_hierarchy(options.network, tree, inputs, number)

    seeds = [seed for _ in ARMS for seed in options.seeds]  # both arms start from the same weights and see the same batches
    terms = {"isometric": options.isometry, "cross-entropy": options.isometry.model_copy(update={"beta": 0.0})}
    arms = [Arm(CrossEntropy(objective="cross-entropy"), terms[arm]) for arm in ARMS for _ in options.seeds]
    networks = initial(made, seeds)
    trained = train_stack(networks, seeds, train.split(), val.split(), arms, options.training, device, loss)
    networks, count = trained.load_into(networks), len(options.seeds)
    by_arm = {arm: networks[number * count : (number + 1) * count] for number, arm in enumerate(ARMS)}
    seen = {arm: [look(network, test.inputs) for network in group] for arm, group in by_arm.items()}
    return Study(name, options, test, [row[test.labels] for row in tree], by_arm, seen)


@torch.no_grad()
def look(network: Network, inputs: np.ndarray) -> list[Seen]:
    """Per level (one for a flat network) what the network makes of inputs `[N, D]`."""
    x = torch.from_numpy(np.asarray(inputs, dtype=np.float32))
    levels = network.levels(x) if isinstance(network, HierarchicalNetwork) else [network.activations(x)]
    return [Seen(level.logits.argmax(1).numpy(), level.hidden[-1].numpy()) for level in levels]


class Kept(NamedTuple):
    """How one network keeps distances on one level: d_x and d_r `[P]` of the pairs within classes, and measures of them.

    `distortion` `[N]` is local.
    """

    d_x: np.ndarray
    d_r: np.ndarray
    fit: measure.Fit
    distortion: np.ndarray


def kept(study: Study, arm: str, seed: int, level: int) -> Kept:
    """Of the seed-th network of an arm, with the measures of `isorobust.geometry.measure`."""
    labels = study.truth[level]
    within, _ = measure.pairs(labels)
    found = study.seen[arm][seed][level].representations
    d_x, d_r = (measure.distance_matrix(torch.from_numpy(x)) for x in (study.test.inputs, found))
    fit = measure.fit(d_x[within], d_r[within])
    near = measure.nearest_of_class(d_x, labels, study.options.neighbours)
    return Kept(d_x[within], d_r[within], fit, measure.local_distortion(d_x, d_r, near, fit.scale))


def boundary_distance(inputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Distance `[N]` to the nearest point of another class."""
    distances = measure.distance_matrix(torch.from_numpy(inputs))
    return np.where(labels[:, None] != labels[None], distances, np.inf).min(axis=1)


def measures(study: Study) -> dict[str, Any]:
    """The tree of summary.json (docs/results.md)."""
    levels = {f"level-{number + 1}": _level(study, number) for number in range(len(study.truth))}
    return {"points": len(study.test.labels), "seeds": len(study.options.seeds), "levels": levels}


def _level(study: Study, level: int) -> dict[str, Any]:
    labels = study.truth[level]
    margin = boundary_distance(study.test.inputs, labels)
    values: dict[str, dict[str, np.ndarray]] = {}
    told: dict[str, Any] = {"classes": int(labels.max()) + 1}
    for arm in ARMS:
        seen = [by_level[level] for by_level in study.seen[arm]]
        rows = []
        for seed in range(len(seen)):
            fit, distortion = kept(study, arm, seed, level)[2:]
            known = np.isfinite(distortion)  # a point alone in its class has no neighbour there
            if known.sum() < 3:
                raise found("toys: test_points", len(labels), "so many that three have another one in their class")
            rows.append((*fit, np.median(distortion[known]), measure.spearman(distortion[known], margin[known])))
        values[arm] = dict(zip(MEASURES, np.array(rows).T))
        right = np.stack([one.predicted == labels for one in seen])
        told[arm] = {"accuracy": rate(right).as_dict(), **{name: interval_over_seeds(each) for name, each in values[arm].items()}}
    ours, plain = values["isometric"], values["cross-entropy"]
    told["claims"] = {
        "correlation is higher than under cross-entropy": _claim(ours["correlation"] - plain["correlation"]),
        "stress is lower than under cross-entropy": _claim(plain["stress"] - ours["stress"]),
        "isometric distortion is higher near boundaries": _claim(-ours["boundary_rank_correlation"]),
    }
    return told


def _claim(values: np.ndarray) -> dict[str, Any]:
    """`values` `[S]` are positive where the claim is right."""
    interval = interval_over_seeds(values)
    return {**interval, "verdict": verdict(interval["lo"], interval["hi"])}
