"""The only file I/O of results: whole files or none, the same bytes for the same content.

Every write goes to memory first, then to a temporary file beside its target, is synced, and
takes the target's place in one step; a kill at any moment leaves the old file or the new one.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from isorobust.errors import UserError


def write_bytes(path: Path | str, content: bytes) -> None:
    """Replace `path` by `content` in one step. Errors: UserError for a full disk or a read-only place."""
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        shared(temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"{path}: cannot write {len(content)} bytes: {error.strerror}; nothing was changed") from None
    finally:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)


def shared(temporary: Path | str) -> None:
    """Give a temporary file, which its maker alone may read, the rights that new files have here."""
    mask = os.umask(0)
    os.umask(mask)
    os.chmod(temporary, 0o666 & ~mask)


def write_text(path: Path | str, text: str) -> None:
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path | str, tree: Any) -> None:
    """Errors: UserError for a number that is NaN or infinite, and those of `write_bytes`."""
    write_bytes(path, _finite_json(path, tree))


def write_measured(metrics: Path | str, numbers: Any, place: Path | str, arrays: Mapping[str, np.ndarray]) -> None:
    """Numbers as JSON and arrays as NPZ, or neither. Errors: those of `write_json`."""
    content = _finite_json(metrics, numbers)
    write_npz(place, arrays)
    write_bytes(metrics, content)


def _finite_json(path: Path | str, tree: Any) -> bytes:
    try:
        return json_bytes(tree)
    except ValueError:
        raise UserError(
            f"{path}: found results that are NaN or infinite; allowed: settings under which all are finite "
            "(smaller learning rates and weights); nothing was written"
        ) from None


def json_bytes(tree: Any) -> bytes:
    """Indented JSON in the order given. Errors: ValueError for NaN or infinity, which JSON lacks."""
    return (json.dumps(_plain(tree), indent=2, allow_nan=False) + "\n").encode()


def _plain(node: Any) -> Any:
    """Plain numbers, rounded to 9 digits: float noise in the last place is no change worth a diff."""
    if isinstance(node, Mapping):
        return {str(key): _plain(value) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return [_plain(value) for value in node]
    if isinstance(node, np.generic):
        node = node.item()
    if isinstance(node, float) and math.isfinite(node):
        return float(f"{node:.9g}")
    return node


def read_json(path: Path | str) -> dict[str, Any]:
    """Errors: UserError when the file is missing, is not JSON or holds no mapping."""
    try:
        tree = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; `dvc repro` writes it") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error}); delete it and run `dvc repro`") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path}: found a JSON {type(tree).__name__}; allowed: a mapping; delete it and run `dvc repro`")
    return tree


def write_csv(path: Path | str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    write_bytes(path, csv_bytes(header, rows))


def csv_bytes(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """A table; None becomes an empty field and floats keep 9 digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow(["" if v is None else f"{v:.9g}" if isinstance(v, float) else v for v in row])
    return text.getvalue().encode()


def read_csv(path: Path | str) -> list[dict[str, str]]:
    """Rows as mappings from column to text. Errors: UserError when the file is missing or no UTF-8."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; `dvc repro` writes it") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: damaged table ({error}); delete it and run `dvc repro`") from None


def write_npz(path: Path | str, arrays: Mapping[str, np.ndarray]) -> None:
    """Uncompressed, because compressed bytes depend on the zlib at hand."""
    memory = io.BytesIO()
    np.savez(memory, **arrays)
    write_bytes(path, memory.getvalue())


def read_npz(path: Path | str) -> dict[str, np.ndarray]:
    """Errors: UserError when the file is missing, truncated or not an npz."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; `dvc repro` writes it") from None
    except (ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile, zlib.error, KeyError, RuntimeError) as error:
        # RuntimeError: an entry that says it is encrypted, or compressed in a way that is not known.
        raise UserError(f"{path}: damaged npz file ({error}); delete it and run `dvc repro`") from None


def digest(*parts: bytes | str) -> str:
    """SHA-256 over the parts, each with its length, as 64 hex digits."""
    total = hashlib.sha256()
    for part in parts:
        part = part.encode() if isinstance(part, str) else part
        total.update(len(part).to_bytes(8, "little"))
        total.update(part)
    return total.hexdigest()


def canonical(tree: Any) -> str:
    """One text for one content: sorted keys, no spaces."""
    return json.dumps(_plain(tree), sort_keys=True, separators=(",", ":"), allow_nan=False)
