"""matplotlib, set up for files: no display, the same bytes for the same picture. Its only importer."""

from __future__ import annotations

import io

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

__all__ = ["Figure", "plt", "png"]
DOTS_PER_INCH = 110


def png(figure: Figure) -> bytes:
    """The figure as a file; closes it."""
    memory = io.BytesIO()
    # Without the software's version in it, the file depends on the picture alone.
    figure.savefig(memory, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    plt.close(figure)
    return memory.getvalue()
