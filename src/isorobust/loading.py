"""Reading a trained arm back, whatever kind it is."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from isorobust.errors import found
from isorobust.networks.checkpoint import Checkpoint


def load_model(path: Path | str, seed: int = 0, device: torch.device | str = "cpu") -> nn.Module:
    """The trained network of one seed, in eval mode: pixels `[N, C, H, W]` in [0, 1] to logits `[N, K]`.

    `seed` is the seed's value as written in params.yaml, not its position. Usable with any attack
    library; `features(x)` gives representations `[N, D]`. A reclassifier comes as a
    `HybridPrototypeReclassifier`, whose logits depend on the batch unless its `mode` is "ema" or "fc".
    Errors: UserError for a missing, truncated or foreign file, one of hierarchies (those have a `load` of
    their own in `isorobust.hierarchy.network`), an unknown seed, or weights of another architecture.
    """
    checkpoint = Checkpoint.read(path)
    if "reclassifier" in checkpoint.spec:
        from isorobust.reclassifier.checkpoint import plug_in

        return plug_in(checkpoint, seed, device)
    if "trees" in checkpoint.spec:
        allowed = "an arm; isorobust.hierarchy.network.load reads these"
        raise found(str(path), f"hierarchies {', '.join(checkpoint.spec['trees'])}", allowed)
    return checkpoint.network(seed, device)
