"""The block `percolation` of a recipe; what it measures with stands in the block `connectivity`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from isorobust.common.params import Count, Settings, Several
from isorobust.networks.settings import NetworkSettings


class Random(Settings):
    """Networks with their first weights, at the data's own size."""

    networks: list[NetworkSettings]  # of different names, by which they are told
    seeds: Count
    pairs: Annotated[int, Field(ge=2)]

    @field_validator("networks")
    @classmethod
    def _told_apart(cls, networks: list[NetworkSettings]) -> list[NetworkSettings]:
        if len({network.name for network in networks}) < len(networks):
            raise ValueError("networks of different names")
        return networks


class PercolationSettings(Settings):
    sizes: Annotated[Several[Annotated[int, Field(ge=2)]], Field(min_length=2)]  # side lengths that images are scaled to
    seeds: Count  # the first n
    pairs: Annotated[int, Field(ge=2)]  # of every kind
    random: Random | None = None
