"""Training networks of several seeds, together or in turn, with the same numbers per seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from isorobust.common.runtime import generator
from isorobust.common.splits import Split, check_alike
from isorobust.common.workers import spread
from isorobust.errors import UserError, found
from isorobust.networks.stack import Stack
from isorobust.networks.zoo import Network
from isorobust.objectives.losses import Batch, Loss, stacked_cross_entropy, training_loss
from isorobust.objectives.settings import Arm, side_by_side
from isorobust.progress import progress
from isorobust.training.settings import TrainingSettings

EVALUATION_BATCH = 1000


class Trained(NamedTuple):
    """state: tensors `[S, ...]`; history: name -> `[epochs, S]`; val_correct: bool `[S, N]` after the last epoch."""

    state: dict[str, Tensor]
    history: dict[str, np.ndarray]
    val_correct: np.ndarray

    def load_into(self, networks: Sequence[Network]) -> list[Network]:
        """The S networks with their fitted weights, in eval mode on the CPU."""
        for i, network in enumerate(networks):
            network.load_state_dict({name: tensor[i] for name, tensor in self.state.items()})
        return [network.cpu().eval() for network in networks]


class Fitted(NamedTuple):
    """`Trained` as arrays, which go through a pipe as they are."""

    state: dict[str, np.ndarray]
    history: dict[str, np.ndarray]
    val_correct: np.ndarray


class Images:
    """A split on the device: uint8 pixels, turned to float in [0, 1] batch by batch; float inputs as they are."""

    def __init__(self, split: Split, device: torch.device, dtype: torch.dtype):
        self.pixels = torch.from_numpy(split.images).to(device)
        self.labels = torch.from_numpy(split.labels).to(device)
        self.dtype = dtype

    def take(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """(pixels, labels) at index of any shape, with that shape in front."""
        flat = index.flatten().to(self.pixels.device)
        pixels = self.pixels.index_select(0, flat)
        pixels = pixels.to(self.dtype) if pixels.is_floating_point() else pixels.to(self.dtype).div_(255)
        return pixels.view(*index.shape, *self.pixels.shape[1:]), self.labels.index_select(0, flat).view(index.shape)


def fit(
    networks: Sequence[Network],
    seeds: Sequence[int],
    train: Split,
    val: Split,
    arms: Arm | Sequence[Arm],
    options: TrainingSettings,
    device: torch.device | str = "cpu",
    loss: Callable[[Stack, Batch, Arm], Loss] = training_loss,
) -> Trained:
    """Train one network per seed; each has its own data order and noise, whoever is trained beside it.

    On the CPU as many processes as torch has threads train at once, each on one thread, so that no weight depends on
    their number.

    `arms`: one for all networks, or one for each; in a stack those may differ in weights only. `loss`
    of (stack, batch, arm) is minimised. The last epoch's weights are kept; nothing is chosen on val.
    Errors: UserError naming epoch, step and seed when a loss is NaN or infinite, and for a `val` that is not like `train`.
    """
    check_alike(val, train, "val")
    each = [arms] * len(seeds) if isinstance(arms, Arm) else list(arms)
    device = torch.device(device)
    groups = _groups(networks, options.seeds, device)
    processes = min(torch.get_num_threads(), len(groups)) if device.type == "cpu" else 1

    def train_group(number: int) -> Fitted:
        group = groups[number]
        total = options.epochs * -(-len(train.labels) // options.batch_size)
        # One of the groups that train at the same time tells how far they are.
        with progress(total, "training", "step", shown=number % processes == 0) as bar:
            return _fit_stack(
                Stack([networks[i] for i in group], is_mixed(options.precision, networks[0], device)),
                [seeds[i] for i in group],
                train,
                val,
                _together([each[i] for i in group], device),
                options,
                device,
                loss,
                bar,
            )

    torch.optim.Adam([torch.zeros(1)])  # torch imports much for its first optimiser: here once, not in every process
    parts = list(spread(train_group, range(len(groups)), device))
    return Trained(
        {name: torch.from_numpy(np.concatenate([p.state[name] for p in parts])) for name in parts[0].state},
        {name: np.concatenate([p.history[name] for p in parts], axis=1) for name in parts[0].history},
        np.concatenate([p.val_correct for p in parts]),
    )


def _groups(networks: Sequence[Network], seeds: str, device: torch.device) -> list[list[int]]:
    """Which networks are trained as one stack: all that `seeds` allows, or an equal share of them for each CPU thread
    where a network's bits do not depend on the stack it is in."""
    batched, count = hasattr(networks[0], "batched_activations"), len(networks)
    if seeds == "loop" or (seeds == "auto" and not batched):
        return [[i] for i in range(count)]
    parts = min(torch.get_num_threads(), count) if batched and device.type == "cpu" else 1
    return [part.tolist() for part in np.array_split(np.arange(count), parts)]


def is_mixed(precision: str, network: Network, device: torch.device) -> bool:
    """Whether to train in mixed precision: networks with convolutions alone, by itself on a GPU that has bfloat16.

    Errors: UserError where it is asked for and the GPU has none.
    """
    if precision == "float32" or hasattr(network, "batched_activations"):
        return False
    if device.type == "cpu":
        return precision == "mixed"
    mixed = has_bfloat16()
    if precision == "mixed" and not mixed:
        raise found("training.precision", precision, "auto or float32 (this GPU has no bfloat16)")
    return mixed


def has_bfloat16() -> bool:
    return torch.cuda.is_bf16_supported(including_emulation=False)


def _together(arms: list[Arm], device: torch.device) -> Arm:
    """One arm for a stack; weights that differ become tensors `[S]`."""
    terms = [arm.isometry for arm in arms]
    term = None if terms[0] is None else side_by_side(terms, device)
    return Arm(side_by_side([arm.objective for arm in arms], device), term)


def _fit_stack(
    stack: Stack, seeds, train: Split, val: Split, arm: Arm, options: TrainingSettings, device, loss_of, bar
) -> Fitted:
    stack.to(device)
    dtype = stack.parameters()[0].dtype
    data, held_out = Images(train, device, dtype), Images(val, device, dtype)
    optimisers = _adam(stack, options)
    orders = [generator(seed, "order") for seed in seeds]
    noises = [generator(seed, "noise") for seed in seeds]
    history: dict[str, list[np.ndarray]] = {}
    for epoch in range(1, options.epochs + 1):
        stack.train()
        order = torch.stack([torch.randperm(len(train.labels), generator=g) for g in orders])  # [S, N]
        sums: dict[str, np.ndarray] = {}
        for step, index in enumerate(order.split(options.batch_size, dim=1), start=1):
            loss = loss_of(stack, Batch(*data.take(index), noises), arm)
            _check_finite("loss", loss.total.detach().double().cpu().numpy(), seeds, f"at epoch {epoch}, step {step}")
            for optimiser in optimisers:
                optimiser.zero_grad(set_to_none=True)
            loss.total.sum().backward()
            for optimiser in optimisers:
                optimiser.step()
            for name, part in {"train_loss": loss.total, **{f"train_{k}": v for k, v in loss.parts.items()}}.items():
                sums[name] = sums.get(name, 0) + part.detach().double().cpu().numpy() * index.shape[1]
            bar.update()
        val_loss, correct = evaluate(stack, held_out)
        _check_finite("val loss", val_loss, seeds, f"after epoch {epoch}")  # the last step's doing, which no later loss shows
        record = {name: value / len(train.labels) for name, value in sums.items()}
        record |= {"val_loss": val_loss, "val_accuracy": correct.mean(axis=1)}
        for name, value in record.items():
            history.setdefault(name, []).append(value)
        bar.set_postfix(epoch=epoch, val=f"{correct.mean():.3f}")
    state = {name: tensor.numpy() for name, tensor in stack.state().items()}
    return Fitted(state, {name: np.stack(values) for name, values in history.items()}, correct)


def _check_finite(name: str, losses: np.ndarray, seeds: Sequence[int], place: str) -> None:
    bad = np.flatnonzero(~np.isfinite(losses))
    if len(bad):
        raise UserError(
            f"training diverged: {name} is {losses[bad[0]]} {place}, seed {seeds[bad[0]]}; "
            "lower training.learning_rate or the weight of the arm's term; nothing was written"
        )


def _adam(stack: Stack, options: TrainingSettings) -> list[torch.optim.Adam]:
    """Adam, fused where that keeps a seed's bits independent of the stack it is in.

    The fused CPU kernel rounds the last elements of a tensor, those beyond a multiple of 16, unlike
    the others. A seed's weights are clear of that only if their number is such a multiple. Weight decay is
    for weights: a network's single numbers (a temperature, which may be fixed) have none.
    """
    even = [w for w in stack.parameters() if w[0].numel() % 16 == 0]
    rest = [w for w in stack.parameters() if w[0].numel() % 16 and w.ndim > 1]
    single = [w for w in stack.parameters() if w.ndim == 1]
    decay = options.weight_decay
    kinds = ((even, {"fused": True}, decay), (rest, {"foreach": True}, decay), (single, {"foreach": True}, 0.0))
    return [
        torch.optim.Adam(weights, lr=options.learning_rate, weight_decay=own, **kind) for weights, kind, own in kinds if weights
    ]


@torch.no_grad()
def evaluate(stack: Stack, data: Images) -> tuple[np.ndarray, np.ndarray]:
    """(mean cross-entropy `[S]`, correctness bool `[S, N]`) in eval mode, in fixed batches."""
    stack.eval()
    losses, correct = np.zeros(stack.size), []
    for index in torch.arange(len(data.labels)).split(EVALUATION_BATCH):
        images, labels = data.take(index.expand(stack.size, -1))
        logits = stack(images)
        losses += stacked_cross_entropy(logits, labels).double().cpu().numpy() * len(index)
        correct.append((logits.argmax(dim=2) == labels).cpu().numpy())
    return losses / len(data.labels), np.concatenate(correct, axis=1)
