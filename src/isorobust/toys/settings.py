"""The top-level block `toys`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from isorobust.common.params import Count, Positive, Settings
from isorobust.hierarchy.settings import BlockSettings, Levels
from isorobust.hierarchy.tree import parse_tree
from isorobust.objectives.settings import Isometry
from isorobust.training.settings import Seeds, TrainingSettings

Points = Annotated[int, Field(ge=2)]


class _Toy(Settings):
    """What both have: data, the network's size, the isometric term of the one arm (the other has beta 0), training, measures."""

    noise: Annotated[float, Field(ge=0)]  # standard deviation, in every coordinate
    test_points: Points  # drawn apart from the training points; as many for val
    seed: Annotated[int, Field(ge=0)]  # of the points
    isometry: Isometry
    seeds: Seeds  # of the networks
    training: TrainingSettings
    neighbours: Count  # nearest points of the class over which local distortion is taken


class Rings(_Toy):
    """Two linked circles of one radius in space, a class each; the second stands upright, its centre `offset` away."""

    points: Points  # per ring
    radius: Positive
    offset: Positive
    width: Count
    layers: Count

    @model_validator(mode="after")
    def _linked(self):
        if not 0 < self.offset < 2 * self.radius:
            raise ValueError(f"an offset below twice the radius, {2 * self.radius:g}, so that the rings are linked")
        return self


class Torus(_Toy):
    """A torus, cut into equal sectors along its long way round, with coarser sectors as levels above."""

    side: Points  # training points per angle, on a grid
    major: Positive  # R
    minor: Positive  # r
    levels: Levels
    network: BlockSettings

    @model_validator(mode="after")
    def _every_sector(self):
        sectors = parse_tree(self.levels).shape[1]
        if self.side < sectors:
            raise ValueError(f"a side of at least {sectors}, so that each of the levels' sectors holds training points")
        return self


class Toys(Settings):
    rings: Rings
    torus: Torus
