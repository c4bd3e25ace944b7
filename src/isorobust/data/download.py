"""Official data sets: fetched from several mirrors, checked by checksum before anything is parsed."""

from __future__ import annotations

import hashlib
import http.client
import os
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np

from isorobust.common.artifacts import shared
from isorobust.common.splits import Split
from isorobust.data.settings import Torchvision
from isorobust.errors import UserError
from isorobust.progress import progress, say

ATTEMPTS = 3  # rounds through the mirrors
BACK_OFF = 1.0  # seconds before the second round, doubled each time
TIMEOUT = 30.0  # seconds without a byte
CHUNK = 1 << 16


def official(source: Torchvision, cache: Path) -> tuple[Split, Split]:
    """(train, test) of the official files, from `source.root` when it holds them and from the mirrors otherwise."""
    from torchvision import datasets

    kind = getattr(datasets, source.dataset)
    cifar = source.dataset == "CIFAR10"
    files = {kind.filename: kind.tgz_md5} if cifar else dict(kind.resources)
    root = Path(source.root) if source.root else Path(cache)
    folder = root if cifar else root / source.dataset / "raw"
    for name, md5 in files.items():
        if source.root is None:
            fetch(folder / name, md5, [f"{mirror.rstrip('/')}/{name}" for mirror in source.mirrors])
        else:
            _verify(folder / name, md5)
    if cifar:
        return tuple(_cifar(folder / kind.filename, part) for part in ("train", "test"))
    names = list(files)
    return tuple(Split(_idx(folder / names[i])[:, None], _idx(folder / names[i + 1]).astype(np.int64)) for i in (0, 2))


def fetch(path: Path, md5: str, urls: list[str]) -> None:
    """Bring a file with the given md5 to `path`, from the first of `urls` that delivers it.

    Goes through all mirrors ATTEMPTS times with a growing pause. `path` appears whole and checked or
    not at all. Errors: UserError listing every mirror's failure.
    """
    if path.exists() and _md5(path) == md5:
        return None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path.parent}: cannot write: {error.strerror}") from None
    failures: dict[str, str] = {}
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(BACK_OFF * 2 ** (attempt - 1))
        for url in urls:
            try:
                return _fetch_once(path, md5, url)
            except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError, EOFError) as error:
                if getattr(error, "errno", None) in (28, 30, 13):  # ENOSPC, EROFS, EACCES: no mirror can help
                    raise UserError(f"{path}: cannot write: {error.strerror}; nothing was changed") from None
                failures[url] = str(getattr(error, "reason", error)) or type(error).__name__
                say(f"{url}: {failures[url]}; trying the next mirror")
    told = "\n".join(f"  {url}: {why}" for url, why in failures.items())
    raise UserError(
        f"{path.name}: no mirror delivered it in {ATTEMPTS} rounds; check the network or data.sets.*.mirrors:\n{told}"
    )


def _fetch_once(path: Path, md5: str, url: str) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        total = hashlib.md5(usedforsecurity=False)
        request = urllib.request.Request(url, headers={"User-Agent": "isorobust"})
        with os.fdopen(handle, "wb") as file, urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            length = answer.headers.get("Content-Length")
            size = int(length) if length else None
            got = 0
            with progress(total=size, label=path.name, unit="B") as bar:
                while chunk := answer.read(CHUNK):
                    file.write(chunk)
                    total.update(chunk)
                    got += len(chunk)
                    bar.update(len(chunk))
            if size is not None and got != size:
                raise EOFError(f"{got} of {size} bytes came")
            file.flush()
            os.fsync(file.fileno())
        if total.hexdigest() != md5:
            raise ValueError(f"wrong checksum: found md5 {total.hexdigest()}, expected {md5}")
        shared(temporary)
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def _verify(path: Path, md5: str) -> None:
    if not path.exists():
        raise UserError(f"{path}: no such file; allowed: a root with the official files, or root: null to download them")
    if (seen := _md5(path)) != md5:
        raise UserError(f"{path}: wrong checksum: found md5 {seen}; allowed: {md5}")


def _md5(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _idx(path: Path) -> np.ndarray:
    """One gzipped IDX file through torchvision's own reader."""
    from torchvision.datasets.mnist import read_sn3_pascalvincent_tensor
    from torchvision.datasets.utils import extract_archive

    with tempfile.TemporaryDirectory() as folder:
        return read_sn3_pascalvincent_tensor(extract_archive(str(path), folder)).numpy()


def _cifar(archive: Path, part: str) -> Split:
    """CIFAR-10 through torchvision's own reader, unpacked outside the cache."""
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import extract_archive

    with tempfile.TemporaryDirectory() as folder:
        extract_archive(str(archive), folder)
        data = CIFAR10(folder, train=part == "train")
        return Split(np.ascontiguousarray(data.data.transpose(0, 3, 1, 2)), np.array(data.targets, dtype=np.int64))
