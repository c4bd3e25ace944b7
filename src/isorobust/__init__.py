"""Reproducible evidence about what makes neural networks robust.

Importing the package imports nothing heavy: the public names are resolved on first use, so that
a pipeline stage depends only on the modules it really uses.
"""

from importlib import import_module

_PUBLIC = {
    "BarrierDetector": "isorobust.detection.detector",
    "HybridPrototypeReclassifier": "isorobust.reclassifier.network",
    "barrier": "isorobust.connectivity.paths",
    "bypass": "isorobust.connectivity.paths",
    "isometric_loss": "isorobust.objectives.isometry",
    "linear_path": "isorobust.connectivity.paths",
    "load_model": "isorobust.loading",
    "worst_case": "isorobust.robustness",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str):
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'isorobust' has no attribute {name!r}; public names: {', '.join(__all__)}")


def __dir__():
    return sorted([*globals(), *_PUBLIC])
