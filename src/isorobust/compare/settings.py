"""The block `compare` of a recipe."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from isorobust.common.params import Settings, Several, radii


class Primary(Settings):
    """The primary endpoint, named before the first run here (README): a paired difference of robust accuracy."""

    arm: str
    attack: str
    norm: Literal["linf", "l2"]
    eps: Several[float]

    @field_validator("eps", mode="before")
    @classmethod
    def _radii(cls, eps, info):
        return radii(info.data.get("norm", "linf"), eps)


class CompareSettings(Settings):
    reference: Annotated[str, Field(min_length=1)]
    primary: Primary
