"""Stacked blocks of isometric layers, one per level of a tree of classes, and their common loss."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from isorobust.common.params import check
from isorobust.errors import choose, found
from isorobust.hierarchy.settings import BlockSettings
from isorobust.hierarchy.tree import parse_tree
from isorobust.networks.checkpoint import Checkpoint
from isorobust.networks.stack import Stack
from isorobust.networks.zoo import Activations, Network, _batched_linear, _tanh_layers
from isorobust.objectives.isometry import isometric_term
from isorobust.objectives.losses import Batch, Loss, stacked_cross_entropy
from isorobust.objectives.settings import Arm


class HierarchicalNetwork(Network):
    """One block of tanh layers per level; each block reads the one before, its head gives its level's logits.

    `tree` int64 `[L, K]` (`parse_tree`), `inputs` the length of a flattened input. Called as a
    network it gives the logits `[N, K]` of the last level. A shared head has K outputs, of which a
    level with G groups uses the first G.
    """

    def __init__(self, options: BlockSettings, tree: np.ndarray, inputs: int):
        super().__init__()
        self.sizes = [int(row.max()) + 1 for row in tree]
        starts = [inputs, *[options.width] * (len(tree) - 1)]
        self.blocks = nn.ModuleList([_tanh_layers(start, options.width, options.layers) for start in starts])
        heads = self.sizes if options.head == "own" else self.sizes[-1:]
        self.heads = nn.ModuleList([nn.Linear(options.width, size) for size in heads])
        self.register_buffer("tree", torch.from_numpy(tree), persistent=False)

    def _run(self, linear: Callable[[str, Tensor], Tensor], x: Tensor, count: int | None, apart: bool) -> list[Activations]:
        levels = []
        for number, size in enumerate(self.sizes[:count]):
            stem, hidden = x.detach() if apart else x, []
            x = stem
            for i in range(len(self.blocks[number])):
                x = torch.tanh(linear(f"blocks.{number}.{i}", x))
                hidden.append(x)
            logits = linear(f"heads.{min(number, len(self.heads) - 1)}", x)
            levels.append(Activations(logits[..., :size], tuple(hidden), stem))
        return levels

    def levels(self, x: Tensor, count: int | None = None) -> list[Activations]:
        """Per level (the first `count`; None: all) logits, hidden layers and input of its block, differentiable end to end."""
        return self._run(lambda name, h: self.get_submodule(name)(h), x.flatten(1), count, apart=False)

    def batched_levels(self, weights: dict[str, Tensor], x: Tensor, apart: bool) -> list[Activations]:
        """`levels` of S networks at once: weights `[S, ...]`, inputs `[S, N, ...]`; `apart`: no gradient crosses blocks."""
        return self._run(partial(_batched_linear, weights), x.flatten(2), None, apart)

    def activations(self, x: Tensor) -> Activations:
        return self.levels(x)[-1]

    def batched_activations(self, weights: dict[str, Tensor], x: Tensor) -> Activations:
        return self.batched_levels(weights, x, apart=False)[-1]


class LevelNetwork(nn.Module):
    """The logits `[N, G]` of one level (0 the coarsest), for attacks."""

    def __init__(self, network: HierarchicalNetwork, level: int):
        super().__init__()
        self.network, self.level = network, level

    def forward(self, x: Tensor) -> Tensor:
        return self.network.levels(x, self.level + 1)[-1].logits


def hierarchical_loss(model: Stack, batch: Batch, arm: Arm) -> Loss:
    """Sum over blocks of cross-entropy on the level's labels and beta times the isometric term inside the level's groups.

    A block's term compares its last layer with the block's own input, a constant: pixels for the
    first block, the output of the block before for the others ("stack blocks of LILs": each is
    isometric to what it reads, arXiv 2211.01236). No gradient crosses blocks, so each part of the sum
    updates one block and its head.
    """
    options = {name: getattr(arm.isometry, name) for name in type(arm.isometry).model_fields if name != "beta"}
    levels = model.template.batched_levels(model.weights, batch.images, apart=True)
    total, parts = torch.zeros(()), {}
    for number, (level, groups) in enumerate(zip(levels, model.template.tree), start=1):
        labels = groups[batch.labels]
        ce = stacked_cross_entropy(level.logits, labels)
        term = isometric_term(level.stem, level.stem, level.hidden, labels, **options)
        total = total.to(ce) + ce + arm.isometry.beta * term
        parts |= {f"cross_entropy_{number}": ce, f"isometric_{number}": term}
    return Loss(total, parts, batch.images, levels[-1])


def build(options: BlockSettings, tree: np.ndarray, inputs: int, seed: int) -> HierarchicalNetwork:
    """A new network; `seed` fixes its initial weights and leaves the global stream alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return HierarchicalNetwork(options, tree, inputs)


def trees_of(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    """Hierarchy -> its tree, int64 `[L, K]`. Errors: UserError for a file of another kind, such as an arm's."""
    if "trees" not in checkpoint.spec:
        allowed = "one with trees, as the stage train-hierarchy writes it; delete the file and run `dvc repro`"
        raise found(f"{checkpoint.path}: spec", sorted(checkpoint.spec), allowed)
    return {name: parse_tree(levels) for name, levels in checkpoint.spec["trees"].items()}


def load(checkpoint: Checkpoint, name: str, seed: int, device: torch.device | str = "cpu") -> HierarchicalNetwork:
    """One seed's network (the seed's value) of hierarchy `name`, in eval mode; the file is written by `train_hierarchies`.

    Errors: UserError for a hierarchy or seed that is not in the file and for tensors that do not fit the architecture.
    """
    spec = checkpoint.spec
    tree = choose(trees_of(checkpoint), name, f"{checkpoint.path}: hierarchy")
    network = build(check(BlockSettings, spec["network"], f"{checkpoint.path}: network"), tree, int(np.prod(spec["shape"])), 0)
    checkpoint.fill(network, seed, f"hierarchy {name}", prefix=f"{name}/")
    return network.to(device).eval()
