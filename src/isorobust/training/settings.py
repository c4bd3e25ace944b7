"""The blocks `training` and `seeds` of a recipe."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from isorobust.common.params import Count, Settings, Several

Seeds = Several[Annotated[int, Field(ge=0, lt=2**31)]]


class TrainingSettings(Settings):
    epochs: Count
    batch_size: Annotated[int, Field(ge=2)]
    learning_rate: Annotated[float, Field(gt=0, le=100)]  # of Adam
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    seeds: Literal["stacked", "loop", "auto"] = "auto"  # auto: stacked for MLPs, where it is faster
    precision: Literal["auto", "mixed", "float32"] = "auto"  # of networks with convolutions; auto: mixed on a GPU
