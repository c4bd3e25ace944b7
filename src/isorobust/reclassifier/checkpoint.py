"""What a reclassifier's file holds, and the two networks that come out of it.

Tensors `plug-in/<name>` and `control/<name>`, both `[S, ...]`: the base as fine-tuned with the plug-in,
and the base after the same fine-tuning without it.
"""

from __future__ import annotations

import torch

from isorobust.errors import UserError
from isorobust.networks.checkpoint import Checkpoint
from isorobust.networks.zoo import Network
from isorobust.reclassifier.network import HybridPrototypeReclassifier

PLUG_IN, CONTROL = "plug-in", "control"
EXTRA = ("log_temperature", "prototypes")  # what the plug-in adds to the tensors of its base


def plug_in(checkpoint: Checkpoint, seed: int, device: torch.device | str = "cpu") -> HybridPrototypeReclassifier:
    """The plug-in of one seed, in eval mode. Errors: those of `Checkpoint.network`."""
    own = {name.split("/", 1)[1]: t for name, t in checkpoint.tensors.items() if name.startswith(f"{PLUG_IN}/")}
    if absent := [name for name in EXTRA if name not in own]:
        raise UserError(f"{checkpoint.path}: found no {PLUG_IN}/{absent[0]}; allowed: the file of a plug-in")
    weights = {name: t for name, t in own.items() if name not in EXTRA}
    base = Checkpoint(checkpoint.spec, weights, checkpoint.path).network(seed, device)
    index = checkpoint.seeds.index(seed)
    numbers = checkpoint.said("reclassifier")
    model = HybridPrototypeReclassifier(base, checkpoint.spec["classes"], prototypes=own["prototypes"][index], **numbers)
    with torch.no_grad():
        model.log_temperature.copy_(own["log_temperature"][index])
    return model.to(device).eval()


def control(checkpoint: Checkpoint, seed: int, device: torch.device | str = "cpu") -> Network:
    """The base after the same fine-tuning without prototypes, in eval mode."""
    weights = {name.split("/", 1)[1]: t for name, t in checkpoint.tensors.items() if name.startswith(f"{CONTROL}/")}
    return Checkpoint(checkpoint.spec, weights, checkpoint.path).network(seed, device)
