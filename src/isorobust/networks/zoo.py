"""The networks. Each maps pixels `[N, C, H, W]` in [0, 1] to logits `[N, K]`; normalisation is its first layer."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isorobust.errors import UserError
from isorobust.networks import settings


class Normalise(nn.Module):
    """(x - mean) / std per channel; nothing for mean 0 and std 1."""

    def __init__(self, mean: list[float], std: list[float], channels: int):
        super().__init__()
        if len(mean) not in (1, channels):
            raise UserError(f"network.mean: found {len(mean)} values; allowed: 1 or {channels} (the images' channels)")
        self.identity = set(mean) == {0.0} and set(std) == {1.0}
        shape = (-1, 1, 1)
        self.register_buffer("mean", torch.tensor(mean).view(shape), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(shape), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x if self.identity else (x - self.mean) / self.std


class Activations(NamedTuple):
    """What one pass gives: logits `[N, K]`, hidden layers `[N, D_l]` in order (the last are the representations), and the stem.

    `stem` `[N, F]` is the flattened output of the convolutions, on which `distances: features`
    compares inputs; the pixels where a network has no such part.
    """

    logits: Tensor
    hidden: tuple[Tensor, ...]
    stem: Tensor


class Network(nn.Module):
    """A body that gives hidden layers and a linear head that gives logits."""

    normalise: Normalise
    head: nn.Linear

    def body(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """(hidden layers, stem) of normalised pixels; see `Activations`."""
        raise NotImplementedError

    def activations(self, x: Tensor) -> Activations:
        """Logits, hidden layers and stem of pixels `[N, C, H, W]`."""
        hidden, stem = self.body(self.normalise(x))
        return Activations(self.head(hidden[-1]), tuple(hidden), stem)

    def features(self, x: Tensor) -> Tensor:
        """Representations `[N, D]` of pixels `[N, C, H, W]`: the input of the last linear layer."""
        return self.activations(x).hidden[-1]

    def forward(self, x: Tensor) -> Tensor:
        return self.activations(x).logits


def _tanh_layers(inputs: int, width: int, count: int) -> nn.ModuleList:
    layers = nn.ModuleList([nn.Linear(inputs if i == 0 else width, width) for i in range(count)])
    for layer in layers[1:]:
        nn.init.orthogonal_(layer.weight)
    return layers


def _tanh_outputs(layers: nn.ModuleList, x: Tensor) -> list[Tensor]:
    outputs = []
    for layer in layers:
        x = torch.tanh(layer(x))
        outputs.append(x)
    return outputs


class TanhMLP(Network):
    """Flatten, `hidden_layers` tanh layers, linear head (arXiv 2211.01236, MNIST)."""

    def __init__(self, options: settings.TanhMLP, shape: tuple[int, int, int], classes: int):
        super().__init__()
        self.normalise = Normalise(options.mean, options.std, shape[0])
        self.hidden = _tanh_layers(shape[0] * shape[1] * shape[2], options.width, options.hidden_layers)
        self.head = nn.Linear(options.width, classes)

    def body(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        x = x.flatten(1)
        return _tanh_outputs(self.hidden, x), x

    def batched_activations(self, weights: dict[str, Tensor], x: Tensor) -> Activations:
        """`activations` of S networks at once: weights `[S, ...]`, pixels `[S, N, C, H, W]`; one batched product per layer."""
        stem = self.normalise(x).flatten(2)
        hidden, x = [], stem
        for i in range(len(self.hidden)):
            x = torch.tanh(_batched_linear(weights, f"hidden.{i}", x))
            hidden.append(x)
        return Activations(_batched_linear(weights, "head", x), tuple(hidden), stem)


def _batched_linear(weights: dict[str, Tensor], layer: str, x: Tensor) -> Tensor:
    return torch.baddbmm(weights[f"{layer}.bias"].unsqueeze(1), x, weights[f"{layer}.weight"].transpose(1, 2))


class ConvFeatures(Network):
    """Conv blocks (3x3, ReLU, 2x2 max-pool), flatten, tanh layers, linear head (arXiv 2211.01236, CIFAR-10)."""

    def __init__(self, options: settings.ConvFeatures, shape: tuple[int, int, int], classes: int):
        super().__init__()
        channels = [shape[0], *options.channels]
        height, width = (side >> len(options.channels) for side in shape[1:])
        if not height or not width:
            raise UserError(f"network.channels: {len(options.channels)} poolings leave nothing of {shape[1:]} images")
        self.normalise = Normalise(options.mean, options.std, shape[0])
        self.convolutions = nn.ModuleList([nn.Conv2d(a, b, 3, padding=1) for a, b in zip(channels, channels[1:])])
        self.hidden = _tanh_layers(channels[-1] * height * width, options.width, options.hidden_layers)
        self.head = nn.Linear(options.width, classes)

    def body(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        x = _channels_last(x)
        for convolution in self.convolutions:
            x = F.relu(F.max_pool2d(convolution(x), 2))  # pooled first, which is the same, on a quarter of the numbers
        x = x.flatten(1)
        return _tanh_outputs(self.hidden, x), x


def _channels_last(x: Tensor) -> Tensor:
    """The same `[N, C, H, W]`, laid out as a CPU pools it twice as fast; by `permute`, which `vmap` takes.

    By way of one axis, which gives gradients in `x` the layout of `x`: attacks take views of them.
    """
    x = x.flatten(1).unflatten(1, x.shape[1:])
    return x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


class SmallCNN(Network):
    """Two 3x3 convolutions with stride 2, one linear layer, ReLU throughout."""

    def __init__(self, options: settings.SmallCNN, shape: tuple[int, int, int], classes: int):
        super().__init__()
        first, second = options.channels
        height, width = ((side + 3) // 4 for side in shape[1:])
        self.normalise = Normalise(options.mean, options.std, shape[0])
        self.conv1 = nn.Conv2d(shape[0], first, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(first, second, 3, stride=2, padding=1)
        self.hidden = nn.Linear(second * height * width, options.width)
        self.head = nn.Linear(options.width, classes)

    def body(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        first = F.relu(self.conv1(x))
        second = F.relu(self.conv2(first)).flatten(1)
        return [first.flatten(1), second, F.relu(self.hidden(second))], second


class ResNet18(Network):
    """torchvision's ResNet-18, first convolution 3x3 with stride 1 and no max-pool, as usual for 32x32 images.

    Its one hidden layer is the pooled output of the last stage.
    """

    def __init__(self, options: settings.ResNet18, shape: tuple[int, int, int], classes: int):
        super().__init__()
        from torchvision.models import resnet18

        self.normalise = Normalise(options.mean, options.std, shape[0])
        self.trunk = resnet18(weights=None, num_classes=classes)
        self.trunk.conv1 = nn.Conv2d(shape[0], 64, 3, padding=1, bias=False)
        self.trunk.maxpool = nn.Identity()
        self.head, self.trunk.fc = self.trunk.fc, nn.Identity()

    def body(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        return [self.trunk(x)], x.flatten(1)


NETWORKS = {"tanh-mlp": TanhMLP, "conv-features": ConvFeatures, "small-cnn": SmallCNN, "resnet18": ResNet18}


def build(options: settings.NetworkSettings, shape: tuple[int, int, int], classes: int, seed: int | None = None) -> Network:
    """A new network for images of shape (C, H, W); `seed` fixes its initial weights and leaves the global stream alone."""
    with torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.manual_seed(seed)
        return NETWORKS[options.name](options, tuple(shape), classes)


@torch.no_grad()
def predict(model: nn.Module, images: Tensor, batch: int = 1000) -> Tensor:
    """Predicted classes `[N]` of images `[N, C, H, W]`, in fixed batches."""
    return torch.cat([model(part).argmax(1) for part in images.split(batch)])
