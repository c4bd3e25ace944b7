"""The block `attack` of a recipe."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field, model_validator

from isorobust.common.params import Count, Grid, Positive, Settings


class _Attack(Settings):
    eps: Grid | None = None  # its own radii; null: the grid of the whole block
    images: Count | None = None  # the first n test images; null: as many as the whole block
    seeds: Count | None = None  # the first n seeds; null: all
    batch: Count | None = None  # null: the batch of the whole block


class PaperFGSM(_Attack):
    """One step along the gradient of cross-entropy and the isometric term; other regularisers are left out."""

    gradient_batch: Count = 100  # images whose joint loss is differentiated; batch must be a multiple


class FGSM(_Attack):
    """One step along the gradient of cross-entropy."""


class PGD(_Attack):
    """Projected gradient ascent on cross-entropy from random starts."""

    steps: Count
    step_size: Positive = 2.5  # times eps / steps
    restarts: Count = 1


class Transfer(PGD):
    """PGD images made on the baseline; for the baseline, on another of its seeds."""


class Noise(_Attack):
    """The worst of several random draws on the ball's surface or corners."""

    draws: Count


class APGD(_Attack):
    """Auto-PGD on cross-entropy (apgd-ce) or on the targeted DLR margin (apgd-t), arXiv 2003.01690."""

    steps: Count
    restarts: Count = 1


class FAB(_Attack):
    """Targeted Fast Adaptive Boundary attack, arXiv 1907.02044."""

    steps: Count
    restarts: Count = 1


class Square(_Attack):
    """Black-box random search, arXiv 1912.00049."""

    queries: Count


class Attacks(Settings):
    """Which single attacks run; one that is missing, from `defaults` too or by `skip`, does not."""

    model_config = ConfigDict(validate_by_alias=True, validate_by_name=False)

    paper_fgsm: PaperFGSM | None = Field(default=None, alias="paper-fgsm")
    fgsm: FGSM | None = None
    pgd: PGD | None = None
    apgd_ce: APGD | None = Field(default=None, alias="apgd-ce")
    apgd_t: APGD | None = Field(default=None, alias="apgd-t")
    fab_t: FAB | None = Field(default=None, alias="fab-t")
    square: Square | None = None
    noise: Noise | None = None
    transfer: Transfer | None = None

    def chosen(self) -> dict[str, _Attack]:
        """Attack name -> settings of those that run, in the order above."""
        fields = type(self).model_fields
        found = {(fields[name].alias or name): getattr(self, name) for name in fields}
        return {name: options for name, options in found.items() if options is not None}


class WorstCase(Settings):
    """The AutoAttack composition with its reference budgets, each part on the samples still standing."""

    eps: Grid
    images: Count
    batch: Count
    seeds: Count | None = None
    apgd_steps: Count = 100
    fab_steps: Count = 100
    square_queries: Count = 5000


class AttackSettings(Settings):
    model_config = ConfigDict(validate_by_alias=True, validate_by_name=False)

    images: Count | None = None  # the first n test images; null: all
    batch: Count
    seed: Annotated[int, Field(ge=0)] = 0
    eps: Grid
    attacks: Attacks
    worst_case: WorstCase | None = Field(default=None, alias="worst-case")
    check_images: Count = 200  # images on which the evaluation checks itself
    examples: Annotated[int, Field(ge=0)] = 8  # adversarial images kept for the figures

    @model_validator(mode="after")
    def _whole_gradient_batches(self) -> AttackSettings:
        paper = self.attacks.paper_fgsm
        if paper is not None and (paper.batch or self.batch) % paper.gradient_batch:
            raise ValueError(f"a batch for paper-fgsm that is a multiple of its gradient_batch, {paper.gradient_batch}")
        return self
