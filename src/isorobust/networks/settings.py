"""The block `network` of a recipe."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from isorobust.common.params import Count, Positive, Settings


class _Network(Settings):
    mean: list[float] = Field(default=[0.0], min_length=1)  # per channel, in pixel units [0, 1]
    std: list[Positive] = Field(default=[1.0], min_length=1)

    @model_validator(mode="after")
    def _same_channels(self):
        if len(self.mean) != len(self.std):
            raise ValueError(f"as many values in mean ({len(self.mean)}) as in std ({len(self.std)})")
        return self


class TanhMLP(_Network):
    """The published MNIST network: the first layer with default weights, the others orthogonal."""

    name: Literal["tanh-mlp"]
    width: Count
    hidden_layers: Count


class ConvFeatures(_Network):
    """The published CIFAR-10 network: conv blocks, then tanh layers, all but the first orthogonal."""

    name: Literal["conv-features"]
    channels: Annotated[list[Count], Field(min_length=1)]
    width: Count
    hidden_layers: Count


class SmallCNN(_Network):
    """Two strided ReLU convolutions and one ReLU layer."""

    name: Literal["small-cnn"]
    channels: Annotated[list[Count], Field(min_length=2, max_length=2)]
    width: Count


class ResNet18(_Network):
    """torchvision's ResNet-18 with a 3x3 first convolution and no first pooling."""

    name: Literal["resnet18"]


NetworkSettings = Annotated[TanhMLP | ConvFeatures | SmallCNN | ResNet18, Field(discriminator="name")]
