"""Networks of several seeds as one: parameters `[S, ...]`, batches `[S, N, ...]`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from isorobust.networks.zoo import Activations, Network


class Stack:
    """S networks of one architecture, trained and evaluated together.

    Networks with `batched_activations` (MLPs) run as batched products, bit for bit the same per seed
    whatever S is. Others run through `vmap` when S > 1; their per-seed numbers agree to rounding.

    `mixed`: while training, `activations` are taken in bfloat16, convolutions channels last, and come out
    as float32 with bfloat16's 8 bits. Weights, gradients of weights, and logits by a plain call are float32.
    """

    def __init__(self, networks: Sequence[Network], mixed: bool = False):
        self.template, self.mixed = networks[0], mixed
        self.batched = hasattr(self.template, "batched_activations")
        self.size = len(networks)
        self.weights, self.buffers = stack_module_state(list(networks))
        self.weights = {name: self._laid_out(w.detach()).requires_grad_() for name, w in self.weights.items()}

    def _laid_out(self, weight: Tensor) -> Tensor:
        """Stacked convolution kernels `[S, O, I, H, W]` with each seed's channels last in memory, if `mixed`."""
        if not self.mixed or weight.dim() != 5:
            return weight
        return weight.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)

    def train(self, mode: bool = True) -> Stack:
        self.template.train(mode)
        return self

    def eval(self) -> Stack:
        return self.train(False)

    def to(self, device: torch.device | str) -> Stack:
        self.template.to(device)
        self.weights = {name: w.detach().to(device).requires_grad_() for name, w in self.weights.items()}
        self.buffers = {name: b.to(device) for name, b in self.buffers.items()}
        return self

    def parameters(self) -> list[Tensor]:
        return list(self.weights.values())

    def activations(self, x: Tensor) -> Activations:
        """`Activations` with `[S, ...]` in front, of pixels `[S, N, C, H, W]`."""
        if not (self.mixed and self.template.training):
            return self._activations(x)
        with torch.autocast(x.device.type, torch.bfloat16):
            found = self._activations(x)
        return Activations(found.logits.to(x.dtype), tuple(h.to(x.dtype) for h in found.hidden), found.stem.to(x.dtype))

    def _activations(self, x: Tensor) -> Activations:
        if self.batched:
            return self.template.batched_activations(self.weights, x)
        if self.size == 1:
            state = {name: t[0] for name, t in {**self.weights, **self.buffers}.items()}
            one = x[0].contiguous(memory_format=torch.channels_last) if self.mixed and x.dim() == 5 else x[0]
            logits, hidden, stem = functional_call(_Activations(self.template), _prefixed(state), (one,))
            return Activations(logits.unsqueeze(0), tuple(h.unsqueeze(0) for h in hidden), stem.unsqueeze(0))

        def one(weights, buffers, inputs):
            return functional_call(_Activations(self.template), _prefixed({**weights, **buffers}), (inputs,))

        return Activations(*torch.vmap(one, randomness="different")(self.weights, self.buffers, x))

    def __call__(self, x: Tensor) -> Tensor:
        """Logits `[S, N, K]` for evaluation and for the attacks inside training; never in mixed precision."""
        return self._activations(x).logits

    def state(self) -> dict[str, Tensor]:
        """Persistent tensors `[S, ...]` on the CPU, detached."""
        names = self.template.state_dict().keys()
        tensors = {**self.weights, **self.buffers}
        return {name: tensors[name].detach().cpu().contiguous().clone() for name in names}


class _Activations(nn.Module):
    """`activations` as a forward, which `functional_call` needs."""

    def __init__(self, network: Network):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor):
        return tuple(self.network.activations(x))


def _prefixed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"network.{name}": tensor for name, tensor in state.items()}
