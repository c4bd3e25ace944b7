"""Accuracy and robust accuracy per level, and how near mistakes are, of hierarchies and of the flat baseline."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from isorobust.attacks import settings as attacks
from isorobust.attacks.perturb import Problem, perturb
from isorobust.claims import verdict
from isorobust.common.params import eps_key
from isorobust.common.runtime import derive_seed
from isorobust.common.splits import Split
from isorobust.common.statistics import mean, rate
from isorobust.common.workers import spread
from isorobust.errors import found
from isorobust.hierarchy.attack_settings import LevelAttack
from isorobust.hierarchy.network import LevelNetwork, load, trees_of
from isorobust.hierarchy.tree import tree_distance
from isorobust.networks.checkpoint import Checkpoint
from isorobust.networks.zoo import predict
from isorobust.progress import progress
from isorobust.ranking import share_by_image

BATCH = 1000


class Guesses(NamedTuple):
    """Classes that an arm's networks answer, one a seed: clean `[S, N]`, attacked by eps key `[S, n]`.

    Of a hierarchy with L levels clean `[S, L, N]` and attacked `[S, attacked level, L, n]`.
    """

    clean: np.ndarray
    attacked: dict[str, np.ndarray]


class GroupLogits(nn.Module):
    """A flat network's log-probabilities of groups, up to a constant, for attacks on a level that it was not trained for.

    `groups` int64 `[K]`: the group of every class.
    """

    def __init__(self, network: nn.Module, groups: np.ndarray):
        super().__init__()
        self.network = network
        self.members = [np.flatnonzero(groups == group).tolist() for group in range(int(groups.max()) + 1)]

    def forward(self, x: Tensor) -> Tensor:
        logits = self.network(x)
        return torch.stack([logits[:, members].logsumexp(1) for members in self.members], dim=1)


class Bench:
    """The test images on the device, and the attack of the recipe. Errors: UserError for more images than there are."""

    def __init__(self, test: Split, options: LevelAttack, device: torch.device, where: str):
        count = options.images or len(test.labels)
        if count > len(test.labels):
            raise found(f"{where}.images", count, f"at most {len(test.labels)} (the test images)")
        self.options, self.labels, self.count = options, test.labels, count
        self.images = torch.from_numpy(test.images).to(device).float().div_(255)

    def clean(self, model: nn.Module) -> np.ndarray:
        """Classes `[N]` that the model gives all clean images."""
        return predict(model, self.images).cpu().numpy()

    def attacked(self, model: nn.Module, judges: list[nn.Module], truth: np.ndarray, eps: float, *stream: object) -> np.ndarray:
        """Classes `[J, n]` that the judges give the PGD images made on `model`, whose labels are `truth` `[N]`."""
        options, parts = attacks.PGD(steps=self.options.steps), []
        for start in range(0, self.count, BATCH):
            batch = slice(start, min(start + BATCH, self.count))
            labels = torch.from_numpy(truth[batch]).to(self.images.device)
            seed = derive_seed(*stream, self.options.norm, eps_key(eps), start)
            problem = Problem(model, self.images[batch], labels, self.options.norm, eps, seed, int(truth.max()) + 1)
            images = perturb("pgd", problem, options).images
            parts.append(torch.stack([predict(judge, images) for judge in judges]))
        return torch.cat(parts, dim=1).cpu().numpy()


def attack_hierarchies(
    checkpoint: Checkpoint, flat: Checkpoint, test: Split, options: LevelAttack, device: torch.device, where: str
) -> dict[str, Any]:
    """The tree of attack.json (docs/results.md). `flat` is the baseline, which must hold the hierarchies' seeds.

    Attacks on level b ascend the cross-entropy of level b's logits, through all blocks up to b. The
    flat network's classes are mapped up the tree; it is attacked on its classes and, for a
    comparison on equal terms, on every level's groups. Every level is also judged on the images made
    for the other levels: a deep block whose gradient is small falls to attacks on a shallow one.
    Errors: UserError, see `Bench` and `load`.
    """
    trees = trees_of(checkpoint)
    bench, seeds = Bench(test, options, device, where), checkpoint.seeds
    rows = {row.tobytes(): row for tree in trees.values() for row in tree}  # every level once, whichever trees share it
    with progress(len(seeds) * (len(rows) + sum(map(len, trees.values()))), "hierarchies", "unit") as bar:
        plain = _by_level([flat.network(seed, device) for seed in seeds], seeds, bench, rows, device, bar)
        told = {name: _hierarchy(checkpoint, name, tree, bench, plain, device, bar) for name, tree in trees.items()}
    return {"norm": options.norm, "images": bench.count, "seeds": len(seeds), **told}


def _by_level(
    networks: list[nn.Module], seeds: list[int], bench: Bench, rows: dict[bytes, np.ndarray], device: torch.device, bar
) -> dict[bytes, Guesses]:
    """Per level (bytes of its row) the classes that the flat networks give under the attack on that level."""

    def attacked(piece: tuple[bytes, int]) -> list[np.ndarray]:
        row, seed, network = rows[piece[0]], seeds[piece[1]], networks[piece[1]]
        model, truth = GroupLogits(network, row) if row[-1] < len(row) - 1 else network, row[bench.labels]
        groups = int(row.max())
        return [bench.attacked(model, [network], truth, eps, "flat", seed, groups)[0] for eps in bench.options.eps]

    clean = np.stack([bench.clean(network) for network in networks])
    pieces, under = [(key, number) for key in rows for number in range(len(seeds))], {}
    for piece, guesses in zip(pieces, spread(attacked, pieces, device)):
        under[piece] = guesses
        bar.update()
    return {
        key: Guesses(
            clean,
            {
                eps_key(eps): np.stack([under[key, number][place] for number in range(len(seeds))])
                for place, eps in enumerate(bench.options.eps)
            },
        )
        for key in rows
    }


def _hierarchy(
    checkpoint: Checkpoint, name: str, tree: np.ndarray, bench: Bench, plain: dict[bytes, Guesses], device, bar
) -> dict[str, Any]:
    own, flat = _own_guesses(checkpoint, name, tree, bench, device, bar), [plain[row.tobytes()] for row in tree]
    levels = {f"level-{number + 1}": _level(own, flat, number, row, bench.labels) for number, row in enumerate(tree)}
    return {"levels": levels, "mistakes": _mistakes(own, flat, tree, bench)}


def _own_guesses(checkpoint: Checkpoint, name: str, tree: np.ndarray, bench: Bench, device, bar) -> Guesses:
    def of_seed(seed: int) -> tuple[np.ndarray, np.ndarray]:
        network = load(checkpoint, name, seed, device)
        models = [LevelNetwork(network, level) for level in range(len(tree))]
        under = [
            [bench.attacked(model, models, row[bench.labels], eps, name, seed, number) for eps in bench.options.eps]
            for number, (model, row) in enumerate(zip(models, tree))
        ]
        return np.stack([bench.clean(model) for model in models]), np.array(under)  # [L, N]; [attacked level, E, L, n]

    clean, under = [], []
    for on_clean, attacked in spread(of_seed, checkpoint.seeds, device):
        clean.append(on_clean)
        under.append(attacked)
        bar.update(len(tree))
    return Guesses(np.stack(clean), {eps_key(eps): np.stack(under)[:, :, place] for place, eps in enumerate(bench.options.eps)})


def _level(own: Guesses, flat: list[Guesses], number: int, row: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """The numbers of a level, whose groups are `row`. `flat`: the flat network's classes under the attack on each level."""
    here = Guesses(own.clean[:, number], {key: each[:, number, number] for key, each in own.attacked.items()})
    every = {key: each[:, :, number].swapaxes(0, 1) for key, each in own.attacked.items()}  # [attacked level, S, n]
    mapped = [Guesses(row[one.clean], {key: row[each] for key, each in one.attacked.items()}) for one in flat]
    flat_every = {key: np.stack([one.attacked[key] for one in mapped]) for key in every}
    return {
        "groups": int(row.max()) + 1,
        "hierarchical": _rates(here, here, every, row[labels]),
        "flat": _rates(mapped[-1], mapped[number], flat_every, row[labels]),
    }


def _mistakes(own: Guesses, flat: list[Guesses], tree: np.ndarray, bench: Bench) -> dict[str, Any]:
    """How far mistakes of single classes, the last level, are from the truth: clean, and under the attacks on all levels."""
    labels = bench.labels
    clean = own.clean[None, :, -1], flat[-1].clean[None]  # [1, S, N]
    under = {}
    for key, each in own.attacked.items():
        attacked = each[:, :, -1].swapaxes(0, 1), np.stack([one.attacked[key] for one in flat])  # [attacked level, S, n]
        answers = [np.concatenate([first[..., : bench.count], rest]) for first, rest in zip(clean, attacked)]
        under[key] = compare_mistakes(tree, labels, *answers)
    return {
        "uniform": uniform_mistake(tree, labels),
        "clean": compare_mistakes(tree, labels, *clean),
        "pgd-on-any-level": under,
    }


def _rates(own: Guesses, on_level: Guesses, every: Guesses, truth: np.ndarray) -> dict[str, Any]:
    """Clean, under the network's own attack, under the one on this level, and under all levels' attacks `[A, S, n]`."""

    def right(guess: np.ndarray) -> np.ndarray:
        return guess == truth[: guess.shape[-1]]

    count = next(iter(every.values())).shape[-1]
    clean = right(own.clean)[:, :count]  # who is wrong as it is needs no attack
    return {
        "clean": rate(right(own.clean)).as_dict(),
        "pgd": {key: rate(right(own.attacked[key]) & clean).as_dict() for key in every},
        "pgd-on-level": {key: rate(right(on_level.attacked[key]) & clean).as_dict() for key in every},
        "pgd-on-any-level": {key: rate(right(each).all(axis=0) & clean).as_dict() for key, each in every.items()},
    }


def distances(tree: np.ndarray, labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Tree distance from the truth to each predicted class, `[..., n]`: 0 where it is right, else from 1 to L."""
    return tree_distance(tree, predicted, np.broadcast_to(labels[: predicted.shape[-1]], predicted.shape))


def uniform_mistake(tree: np.ndarray, labels: np.ndarray) -> float:
    """The mean tree distance of a wrong class drawn uniformly, for labels as they are."""
    each = tree_distance(tree, np.arange(tree.shape[1])[:, None], labels[None])
    return float(each.sum() / (each > 0).sum())


def compare_mistakes(tree: np.ndarray, labels: np.ndarray, own: np.ndarray, flat: np.ndarray) -> dict[str, Any]:
    """Mean tree distance of mistakes, and by how much the hierarchy's are nearer, paired by seed and image.

    Classes `[A, S, n]`: of the answers to the clean image and to those of all attacks the farthest counts, so that a network
    gains nothing by an attack that fails on it. The mean over mistakes says nothing of how many there are; `per-image` is the
    mean over all images, where a right one counts as 0. Seeds on which one of both makes no mistake are left out of the first,
    and where none is left it is not given.
    """
    far = [distances(tree, labels, predicted).max(axis=0) for predicted in (own, flat)]
    told: dict[str, Any] = {"per-image": _nearer(far, 0.0, tree)}
    both = np.logical_and(*((each > 0).any(axis=1) for each in far))
    if both.any():
        over_mistakes = [np.stack([share_by_image(row, row > 0) for row in each[both]]) for each in far]
        told |= _nearer(over_mistakes, 1.0, tree)
    return {**told, "n": int(both.sum())}


def _nearer(values: list[np.ndarray], low: float, tree: np.ndarray) -> dict[str, Any]:
    """Means of values `[S, n]` of the hierarchy and of the flat network, at least `low`, and the latter less the former."""
    high = float(len(tree))
    told = {name: mean(each, low, high).as_dict() for name, each in zip(("hierarchical", "flat"), values)}
    change = mean(values[1] - values[0], low - high, high - low).as_dict()
    return {**told, "nearer": {**change, "verdict": verdict(change["lo"], change["hi"])}}
