"""The block `reclassifier` of a recipe."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from isorobust.common.params import Count, EpsLinf, Positive, Settings, Several

Share = Annotated[float, Field(ge=0, le=1)]


class Ablation(Settings):
    """One number changed at a time, everything else as in the block; judged on val."""

    mix: Several[Share]
    momentum: Several[Share]
    temperature: Several[Positive]  # fixed ones
    seeds: Count  # the first n
    images: Count  # the first n val images
    eps: EpsLinf
    steps: Count


class ReclassifierSettings(Settings):
    """Hybrid Prototype Mixing and the fine-tuning of its base."""

    arms: Several[str]  # those of the mapping `reclassifiers` that the recipe uses
    epochs: Count  # of fine-tuning; batch size as in the block `training`
    learning_rate: Positive
    mix: Share = 0.5  # weight of the dataset-level prototypes
    momentum: Share = 0.9  # of their moving average
    temperature: Positive = 0.1  # times squared distances; where learning starts, or fixed
    learn_temperature: bool = True
    ablation: Ablation | None = None
