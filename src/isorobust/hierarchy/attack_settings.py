"""The block `hierarchy-attack` of a recipe."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from isorobust.common.params import Count, Settings, Several, radii


class LevelAttack(Settings):
    """PGD on every level's own labels."""

    norm: Literal["linf", "l2"]
    eps: Several[float]
    steps: Count
    images: Count | None = None  # the first n test images; null: all

    @field_validator("eps", mode="before")
    @classmethod
    def _radii(cls, eps, info):
        return radii(info.data.get("norm", "linf"), eps)
