"""The toys' study: the same networks with and without the isometric term, what it keeps, and where it does not.

The claim under test (arXiv 2211.01236): the learned map is isometric inside each class everywhere
except near decision boundaries. Distances are those between inputs and between the representations
of one block (of the one, for a flat network); all measures are taken on test points.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.spatial.distance import cdist
from scipy.stats import rankdata

from isorobust.claims import verdict
from isorobust.hierarchy.network import HierarchicalNetwork, hierarchical_loss
from isorobust.hierarchy.network import build as build_hierarchy
from isorobust.hierarchy.train import load_trained
from isorobust.hierarchy.tree import parse_tree
from isorobust.networks.settings import TanhMLP
from isorobust.networks.zoo import Network
from isorobust.networks.zoo import build as build_flat
from isorobust.objectives.losses import training_loss
from isorobust.objectives.settings import Arm, CrossEntropy
from isorobust.runtime import derive_seed
from isorobust.statistics import mean_over_seeds, rate
from isorobust.toys import shapes
from isorobust.toys.settings import Rings, Torus
from isorobust.training.fit import fit

ARMS = ("isometric", "cross-entropy")


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

    @property
    def scale(self) -> float:
        return self.options.isometry.scale


def study(name: str, options: Rings | Torus, device: torch.device) -> Study:
    """Train both arms on all seeds, in one stack, and look at the test points."""
    if isinstance(options, Rings):
        tree, loss, inputs = np.arange(2)[None], training_loss, 3
        train, val, test = (shapes.rings(options, part) for part in ("train", "val", "test"))
        size = TanhMLP(name="tanh-mlp", width=options.width, hidden_layers=options.layers)

        def made(seed: int) -> Network:
            return build_flat(size, (inputs, 1, 1), tree.shape[1], seed)
    else:
        tree, loss, inputs = parse_tree(options.levels), hierarchical_loss, 3
        train, val, test = (shapes.torus(options, tree.shape[1], part) for part in ("train", "val", "test"))

        def made(seed: int) -> Network:
            return build_hierarchy(options.network, tree, inputs, seed)

    seeds = [seed for _ in ARMS for seed in options.seeds]  # both arms start from the same weights and see the same batches
    terms = {"isometric": options.isometry, "cross-entropy": options.isometry.model_copy(update={"beta": 0.0})}
    arms = [Arm(CrossEntropy(objective="cross-entropy"), terms[arm]) for arm in ARMS for _ in options.seeds]
    networks = [made(derive_seed(seed, "weights")) for seed in seeds]
    trained = fit(networks, seeds, train.split(), val.split(), arms, options.training, device, loss)
    networks, count = load_trained(networks, trained), len(options.seeds)
    by_arm = {arm: networks[number * count : (number + 1) * count] for number, arm in enumerate(ARMS)}
    seen = {arm: [look(network, test.inputs) for network in group] for arm, group in by_arm.items()}
    return Study(name, options, test, [row[test.labels] for row in tree], by_arm, seen)


@torch.no_grad()
def look(network: Network, inputs: np.ndarray) -> list[Seen]:
    """Per level (one for a flat network) what the network makes of inputs `[N, D]`."""
    x = torch.from_numpy(np.asarray(inputs, dtype=np.float32))
    levels = network.levels(x) if isinstance(network, HierarchicalNetwork) else [network.activations(x)]
    return [Seen(level.logits.argmax(1).numpy(), level.hidden[-1].numpy()) for level in levels]


def same_class_distances(inputs: np.ndarray, representations: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Input and representation distances `[P]` of all pairs i < j of one class."""
    first, second = np.nonzero(np.triu(labels[:, None] == labels[None], 1))
    return tuple(cdist(x, x)[first, second] for x in (inputs, representations))


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson's, in [-1, 1]; 0 where one does not vary."""
    first, second = first - first.mean(), second - second.mean()
    size = np.sqrt((first**2).sum() * (second**2).sum())
    return float((first * second).sum() / size) if size > 0 else 0.0


def stress(inputs: np.ndarray, representations: np.ndarray, scale: float) -> float:
    """Kruskal's normalised stress of distances `[P]`, from 0: sqrt(sum (scale d_r - d_x)^2 / sum d_x^2)."""
    return float(np.sqrt(((scale * representations - inputs) ** 2).sum() / (inputs**2).sum()))


def local_distortion(
    inputs: np.ndarray, representations: np.ndarray, labels: np.ndarray, scale: float, neighbours: int
) -> np.ndarray:
    """Per point `[N]` the mean of |log2(scale d_r / d_x)| over its nearest points of the class: 0 isometric, 1 twice or half."""
    here, there = cdist(inputs, inputs), scale * cdist(representations, representations)
    here[(labels[:, None] != labels[None]) | np.eye(len(labels), dtype=bool)] = np.inf
    near = np.argsort(here, axis=1, kind="stable")[:, :neighbours]
    rows = np.arange(len(labels))[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        each = np.abs(np.log2(there[rows, near].clip(min=1e-12) / here[rows, near]))
    return np.nanmean(np.where(np.isfinite(each), each, np.nan), axis=1)  # classes smaller than `neighbours` give infinities


def boundary_distance(inputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Distance `[N]` to the nearest point of another class."""
    return np.where(labels[:, None] != labels[None], cdist(inputs, inputs), np.inf).min(axis=1)


def measures(study: Study) -> dict[str, Any]:
    """The tree of summary.json (docs/results.md)."""
    levels = {f"level-{number + 1}": _level(study, number) for number in range(len(study.truth))}
    return {"points": len(study.test.labels), "seeds": len(study.options.seeds), "levels": levels}


def _level(study: Study, level: int) -> dict[str, Any]:
    inputs, labels = study.test.inputs.astype(float), study.truth[level]
    margin = boundary_distance(inputs, labels)
    values: dict[str, dict[str, np.ndarray]] = {}
    told: dict[str, Any] = {"classes": int(labels.max()) + 1}
    for arm in ARMS:
        seen = [by_level[level] for by_level in study.seen[arm]]
        rows = []
        for one in seen:
            pairs = same_class_distances(inputs, one.representations, labels)
            distortion = local_distortion(inputs, one.representations, labels, study.scale, study.options.neighbours)
            rank = correlation(rankdata(distortion), rankdata(margin))
            rows.append((correlation(*pairs), stress(*pairs, study.scale), np.median(distortion), rank))
        values[arm] = dict(zip(("correlation", "stress", "distortion", "boundary_rank_correlation"), np.array(rows).T))
        right = np.stack([one.predicted == labels for one in seen])
        told[arm] = {"accuracy": rate(right).as_dict(), **{name: _interval(each) for name, each in values[arm].items()}}
    ours, plain = values["isometric"], values["cross-entropy"]
    told["claims"] = {
        "correlation is higher than under cross-entropy": _claim(ours["correlation"] - plain["correlation"]),
        "stress is lower than under cross-entropy": _claim(plain["stress"] - ours["stress"]),
        "isometric distortion is higher near boundaries": _claim(-ours["boundary_rank_correlation"]),
    }
    return told


def _interval(values: np.ndarray) -> dict[str, float]:
    return dict(zip(("value", "lo", "hi"), mean_over_seeds(values)))


def _claim(values: np.ndarray) -> dict[str, Any]:
    """`values` `[S]` are positive where the claim is right."""
    interval = _interval(values)
    return {**interval, "verdict": verdict(interval["lo"], interval["hi"])}
