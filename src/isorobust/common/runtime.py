"""Device, threads, versions and random streams: what a run's numbers depend on besides its settings."""

from __future__ import annotations

import platform
import zlib
from importlib.metadata import version
from typing import Literal

import numpy as np
import torch

from isorobust.errors import found

Device = Literal["auto", "cpu", "cuda"]
PACKAGES = ("torch", "torchvision", "torchattacks", "numpy")


def prepare(device: Device, threads: int) -> torch.device:
    """Set the CPU thread count before any work and pick the device.

    Weight bits change with the CPU's instruction set, so equal bytes are promised on one class of CPU
    only; on a GPU not at all, where sums over pairs of rows are added up in no fixed order.
    Errors: UserError for `cuda` without one.
    """
    if not 1 <= threads <= 4096:
        raise found("params.yaml: threads", threads, "a whole number from 1 to 4096")
    torch.set_num_threads(threads)
    if device == "cuda" and not torch.cuda.is_available():
        raise found("params.yaml: device", device, "auto or cpu (no CUDA device is visible here)")
    if device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    return torch.device("cuda")


def describe(device: torch.device) -> dict[str, str]:
    """Versions, threads and device of this process, for provenance; no host name, path or time."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu {_cpu_model()}"
    facts = {package: _version(package) for package in PACKAGES}
    return {**facts, "python": platform.python_version(), "threads": str(torch.get_num_threads()), "device": name}


def _version(package: str) -> str:
    try:
        return version(package)
    except ModuleNotFoundError:
        return "absent"


def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.machine()
    return f"{model} {torch.backends.cpu.get_cpu_capability()}"


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from any named parts: independent streams for (seed, purpose, batch, ...)."""
    words = [zlib.crc32(str(part).encode()) for part in parts]
    low, high = np.random.SeedSequence(words).generate_state(2)
    return (int(high) << 32 | int(low)) & (2**63 - 1)


def generator(*parts: object) -> torch.Generator:
    """A CPU generator seeded from the parts; draws are made on the CPU, so a GPU sees the same numbers."""
    return torch.Generator().manual_seed(derive_seed(*parts))
