"""The block `reclassifier-attack` of a recipe."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from isorobust.attacks.settings import Count, WorstCase
from isorobust.common.params import Several


class ReclassifierAttack(WorstCase):
    """The Mixed Surrogate Attack: the composition of `WorstCase` on every surrogate, in whole batches of `batch` images."""

    order: Annotated[int, Field(ge=0)] = 0  # seed of the order in which test images fill the batches
    adaptive_steps: Count = 100  # PGD with expectation over batches
    adaptive_draws: Count = 4  # random batchings per step
    batch_sizes: Several[Count]  # for batch dependence
    shuffles: Count = 5  # of all images, for predictions that flip

    @model_validator(mode="after")
    def _several_full_batches(self) -> ReclassifierAttack:
        if self.images % self.batch or self.images < 2 * self.batch:
            raise ValueError(
                f"images that fill two batches of {self.batch} or more (found {self.images}): in one there is no chance"
            )
        return self
