"""Whole files or none, and the same bytes for the same content."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from isorobust.common import artifacts
from isorobust.errors import UserError


def test_json_is_plain_and_stable(tmp_path):
    artifacts.write_json(tmp_path / "a.json", {"b": np.float32(0.1), "a": [np.int64(3), True, None, 1 / 3]})
    assert (
        tmp_path / "a.json"
    ).read_text() == '{\n  "b": 0.100000001,\n  "a": [\n    3,\n    true,\n    null,\n    0.333333333\n  ]\n}\n'
    assert artifacts.read_json(tmp_path / "a.json")["a"][0] == 3


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_json_lacks_are_refused_and_write_nothing(tmp_path, value):
    with pytest.raises(UserError, match=r"a\.json: found results that are NaN or infinite"):
        artifacts.write_json(tmp_path / "a.json", {"x": value})
    with pytest.raises(UserError, match="nothing was written"):
        artifacts.write_measured(tmp_path / "a.json", {"x": value}, tmp_path / "a.npz", {"x": np.zeros(3)})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("read", "content", "message"),
    [
        (artifacts.read_json, b"[1]", "found a JSON list; allowed: a mapping"),
        (artifacts.read_json, b"{", "not valid JSON"),
        (artifacts.read_csv, b"epoch\n\xff\n", "damaged table"),
        (artifacts.read_npz, b"\x93NUMPY", "damaged npz file"),
    ],
    ids=["a list", "half a file", "a table that is not UTF-8", "the header of a single array"],
)
def test_a_damaged_file_is_told(tmp_path, read, content, message):
    path = tmp_path / "damaged"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read(path)


def test_a_single_array_is_no_npz(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(3))
    (tmp_path / "a.npy").rename(tmp_path / "a.npz")
    with pytest.raises(UserError, match="damaged npz file"):
        artifacts.read_npz(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("place", "value"),
    [(6, 1), (8, 99)],
    ids=["an entry that says it is encrypted", "an entry compressed in an unknown way"],
)
def test_an_npz_that_cannot_be_opened_is_told(tmp_path, place, value):
    artifacts.write_npz(tmp_path / "a.npz", {"x": np.zeros(3)})
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[place] = content[content.index(b"PK\1\2") + place + 2] = value  # the entry's own header and the directory's
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(UserError, match="damaged npz file"):
        artifacts.read_npz(tmp_path / "a.npz")


def test_an_npz_with_damaged_compressed_bytes_is_told(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", x=np.arange(1000))
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[60:200] = bytes(range(140))
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(UserError, match="damaged npz file"):
        artifacts.read_npz(tmp_path / "a.npz")


def test_csv_keeps_digits_and_empty_fields(tmp_path):
    artifacts.write_csv(tmp_path / "a.csv", ["x", "y"], [[1, None], [1 / 3, "b"]])
    assert artifacts.read_csv(tmp_path / "a.csv") == [{"x": "1", "y": ""}, {"x": "0.333333333", "y": "b"}]


@pytest.mark.parametrize("reader", [artifacts.read_json, artifacts.read_npz, artifacts.read_csv])
def test_a_missing_file_is_told(tmp_path, reader):
    with pytest.raises(UserError, match="no such file; `dvc repro` writes it"):
        reader(tmp_path / "absent")


def test_a_place_that_is_no_folder_is_told_and_nothing_changes(tmp_path):
    (tmp_path / "file").write_text("old")
    with pytest.raises(UserError, match="cannot write 3 bytes: .*; nothing was changed"):
        artifacts.write_bytes(tmp_path / "file" / "x", b"new")
    assert (tmp_path / "file").read_text() == "old"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_is_told_and_the_old_file_stays(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    path.write_text("old")
    real = artifacts.tempfile.mkstemp

    def on_full_device(*args, **more):
        handle, name = real(*args, **more)
        os.close(handle)
        return os.open("/dev/full", os.O_WRONLY), name

    monkeypatch.setattr(artifacts.tempfile, "mkstemp", on_full_device)
    with pytest.raises(UserError, match="No space left on device; nothing was changed"):
        artifacts.write_bytes(path, b"new")
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_kill_at_any_moment_leaves_the_old_file_or_the_new_one(tmp_path):
    path = tmp_path / "a.bin"
    script = (
        "import sys; from isorobust.common.artifacts import write_bytes\n"
        "i = 0\nwhile True:\n    i += 1; write_bytes(sys.argv[1], bytes([i % 256]) * 200_000)"
    )
    environment = {**os.environ, "PYTHONPATH": str(artifacts.__file__).rsplit("/isorobust/", 1)[0]}
    for delay in (0.0, 0.011, 0.023, 0.037):
        path.unlink(missing_ok=True)
        process = subprocess.Popen([sys.executable, "-c", script, str(path)], env=environment)
        deadline = time.time() + 30
        while not path.exists() and time.time() < deadline:  # it writes without a pause from here on
            time.sleep(0.001)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        content = path.read_bytes()
        assert len(content) == 200_000 and len(set(content)) == 1


def test_written_files_follow_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        artifacts.write_bytes(tmp_path / "a", b"x")
    finally:
        os.umask(old)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_digest_keeps_parts_apart():
    assert artifacts.digest("ab", "c") != artifacts.digest("a", "bc")
    assert artifacts.canonical({"b": 1, "a": 2}) == artifacts.canonical({"a": 2, "b": 1})
