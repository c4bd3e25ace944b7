"""Attacks that look for a near adversarial image instead of one inside a ball."""

from __future__ import annotations

import torch
import torchattacks
from torch import Tensor, nn

from isorobust.attacks.perturb import untouched

MARGIN = 1e-3  # CW's change of variables has no gradient at pixels of exactly 0 or 1


class _AboveZero(nn.Module):
    """Logits raised until none is negative, which torchattacks' margin takes for granted."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits = self.model(x)
        return logits - logits.detach().amin(1, keepdim=True)


def carlini_wagner(model: nn.Module, images: Tensor, labels: Tensor, weight: float, steps: int, learning_rate: float) -> Tensor:
    """Images `[N, C, H, W]` in [0, 1] by the L2 attack of arXiv 1608.04644, untargeted, without a search over `weight`.

    The clean image comes back (up to a margin of 0.001) where none was found.
    """
    attack = torchattacks.CW(_AboveZero(model), c=weight, steps=steps, lr=learning_rate)
    return _run(attack, model, images.clamp(MARGIN, 1 - MARGIN), labels)


def deep_fool(model: nn.Module, images: Tensor, labels: Tensor, steps: int, overshoot: float) -> Tensor:
    """Images `[N, C, H, W]` in [0, 1] just across the nearest linearised boundary, arXiv 1511.04599.

    The whole change is stretched by `overshoot`, as published, on top of torchattacks' stretch of each step, whose
    images stop on the boundary, where rounding decides their class: together 4 % near a plane for an overshoot of 0.02.
    """
    made = _run(torchattacks.DeepFool(model, steps=steps, overshoot=overshoot), model, images, labels)
    return (images + (1 + overshoot) * (made - images)).clamp(0, 1)


def _run(attack: torchattacks.attack.Attack, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    with untouched(model), torch.enable_grad():
        made = attack(images, labels).detach()
    return torch.where(made.isfinite(), made, images).clamp(0, 1)
