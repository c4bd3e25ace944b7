"""The block `connectivity` of a recipe."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from isorobust.common.params import Count, Positive, Settings, Several

UNTRAINED = "untrained"  # the pseudo-arm: architecture and seeds of another's checkpoint, with their first weights
MEASURED = ("baseline", "isometric", "adversarial", UNTRAINED)  # the arms of the stages `connectivity` and `detect`
JUDGED = {"trained": "real", "untrained": "synthetic"}  # networks -> the pairs on which their connection is judged


class Bypass(Settings):
    """Leading a path around a barrier; see `isorobust.bypass`."""

    rounds: Annotated[int, Field(ge=0)]
    steps: Count
    learning_rate: Positive
    closeness: Annotated[float, Field(ge=0)] = 0.1
    smoothness: Annotated[float, Field(ge=0)] = 1e-8


class Synthesis(Settings):
    """Feature visualisation: Adam from small noise on the cross-entropy of a class, until it is below `loss`."""

    steps: Count
    learning_rate: Positive = 0.05
    weight_decay: Annotated[float, Field(ge=0)] = 1e-7
    noise: Positive = 0.01
    loss: Positive = 5e-4


class Matched(Settings):
    """Adversarial images of a class whose loss matches that of a real image of it: Adam on the distance of both losses."""

    steps: Count
    learning_rate: Positive
    distortion: Annotated[float, Field(ge=0)]  # weight of the mean squared change
    tolerance: Positive  # of |log loss - log loss of the real image|; the image kept is the least changed within it


class ConnectivitySettings(Settings):
    arms: Several[str]  # those that the recipe measures, of the stage's
    pairs: Annotated[int, Field(ge=2)]  # of every kind, over all classes
    points: Annotated[int, Field(ge=2)]  # along a segment
    seeds: Count | None = None  # the first n; null: all
    # Of the highest loss of a path that is low, and of the rise above its higher end; around more than the least of them
    # a bypass is tried.
    thresholds: Several[Positive]
    threshold: Positive  # on which verdicts stand; one of `thresholds`
    connected: Annotated[float, Field(gt=0, lt=1)]  # share of pairs from which inputs of a class count as connected
    # |A - C| over the larger of |A| and |C|; ends below it are one input, and that a path joins them says nothing.
    distinct: Annotated[float, Field(ge=0, lt=1)]
    graph_images: Count  # per class, for the largest connected component
    bypass: Bypass
    synthesis: Synthesis
    matched: Matched

    @model_validator(mode="after")
    def _tried_where_judged(self) -> ConnectivitySettings:
        if self.threshold not in self.thresholds:
            raise ValueError(f"a threshold that is one of thresholds, {', '.join(map(str, self.thresholds))}")
        return self
