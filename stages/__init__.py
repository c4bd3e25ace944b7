"""One thin module per DVC stage. Importing this package puts this checkout's own `src` first.

A queued experiment runs in a temporary copy; it must import the copy's library, never another one.
"""

import sys
from pathlib import Path

SRC = Path(__file__).resolve().parent.parent / "src"
sys.path.insert(0, str(SRC))

import isorobust  # noqa: E402

if not Path(isorobust.__file__).resolve().is_relative_to(SRC):
    sys.exit(f"error: isorobust is imported from {isorobust.__file__}; allowed: {SRC} (uninstall the other copy)")
