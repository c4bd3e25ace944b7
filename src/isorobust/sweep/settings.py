"""The block `sweep` of a recipe."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from isorobust.common.params import Count, Settings, radius
from isorobust.training.settings import Seeds


class SweepSettings(Settings):
    """How the cells of a grid are judged, on val alone."""

    seeds: Seeds
    images: Count  # the first n val images are attacked
    min_clean: Annotated[float, Field(ge=0, le=1)]  # clean accuracy on val that a choice needs
    norm: Literal["linf", "l2"]
    eps: float
    steps: Count

    @field_validator("eps", mode="before")
    @classmethod
    def _radius(cls, eps, info):
        return radius(info.data.get("norm", "linf"), eps)
