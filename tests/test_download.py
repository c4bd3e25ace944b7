"""The real download path against real HTTP servers on loopback."""

from __future__ import annotations

import gzip
import hashlib
import struct
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from conftest import SHARED

from isorobust.data import download, settings
from isorobust.data.sources import make
from isorobust.errors import UserError

REAL = SHARED / "MNIST" / "raw"


def idx(array: np.ndarray) -> bytes:
    return gzip.compress(
        struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes(), mtime=0
    )


@pytest.fixture(scope="module")
def mnist_files(tmp_path_factory):
    """The official files where they lie beside the checkout, else generated ones of the same names and format."""
    from torchvision.datasets import MNIST

    if REAL.is_dir():
        return REAL, dict(MNIST.resources)
    folder, random = tmp_path_factory.mktemp("mnist"), np.random.default_rng(0)
    for name, _ in MNIST.resources:
        count = 300 if name.startswith("train") else 50
        shape = (count, 28, 28) if "images" in name else (count,)
        array = random.integers(0, 256 if "images" in name else 10, shape, dtype=np.uint8)
        (folder / name).write_bytes(idx(array))
    return folder, {name: hashlib.md5((folder / name).read_bytes()).hexdigest() for name, _ in MNIST.resources}


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


class Broken(BaseHTTPRequestHandler):
    """Answers 500, or half a file, or a file with one wrong byte, or what is no HTTP, as `kind` says."""

    def __init__(self, kind, folder, *args):
        self.kind, self.folder = kind, folder
        super().__init__(*args)

    def do_GET(self):
        if self.kind == "error":
            self.send_error(500)
            return
        if self.kind == "no HTTP":
            self.wfile.write(b"SSH-2.0-none\r\n")
            return
        if self.kind == "chunks cut off":
            self.protocol_version = "HTTP/1.1"
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"100\r\nhalf of it")
            self.close_connection = True
            return
        content = bytearray((self.folder / self.path.rsplit("/", 1)[1]).read_bytes())
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.kind == "corrupt":
            content[len(content) // 2] ^= 0xFF
        self.wfile.write(content if self.kind == "corrupt" else content[: len(content) // 2])

    def log_message(self, *args):
        pass


@pytest.fixture
def serve():
    servers = []

    def start(handler) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch, mnist_files):
    monkeypatch.setattr(download, "BACK_OFF", 0.01)
    from torchvision.datasets import MNIST

    monkeypatch.setattr(MNIST, "resources", list(mnist_files[1].items()))


def source_of(mirrors, **more):
    return settings.Torchvision(source="torchvision", dataset="MNIST", mirrors=mirrors, val=more.pop("val", 40), **more)


def first_mirror(kind, folder, serve):
    known = {"dead": "http://127.0.0.1:9", "a port that is none": "http://127.0.0.1:80a"}
    return known.get(kind) or serve(partial(Broken, kind, folder))


@pytest.mark.parametrize("kind", ["dead", "error", "truncate", "corrupt", "chunks cut off", "no HTTP", "a port that is none"])
def test_a_bad_first_mirror_is_passed_over(kind, mnist_files, serve, tmp_path, capsys):
    folder, checksums = mnist_files
    good = serve(partial(Quiet, directory=str(folder)))
    splits = make("mnist", source_of([first_mirror(kind, folder, serve), good]), tmp_path)
    assert len(splits.train.labels) + 40 == (60000 if folder == REAL else 300)
    assert splits.test.images.shape[1:] == (1, 28, 28) and len(splits.val.labels) == 40
    stored = sorted(p.name for p in tmp_path.rglob("*") if p.is_file())
    assert stored == sorted(checksums), "a half-written file was left"
    assert "trying the next mirror" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["dead", "error", "truncate", "corrupt"])
def test_without_a_good_mirror_nothing_is_left(kind, mnist_files, serve, tmp_path):
    mirror = first_mirror(kind, mnist_files[0], serve)
    with pytest.raises(UserError, match=f"no mirror delivered it in {download.ATTEMPTS} rounds") as caught:
        make("mnist", source_of([mirror]), tmp_path)
    assert mirror in str(caught.value)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_a_verified_file_is_not_fetched_again(mnist_files, serve, tmp_path):
    folder, _ = mnist_files
    make("mnist", source_of([serve(partial(Quiet, directory=str(folder)))]), tmp_path)
    make("mnist", source_of(["http://127.0.0.1:9"]), tmp_path)


def test_the_official_test_set_stays_and_val_comes_from_train(mnist_files, tmp_path):
    folder, _ = mnist_files
    root = tmp_path / "root"
    (root / "MNIST").mkdir(parents=True)
    (root / "MNIST" / "raw").symlink_to(folder)
    splits = make("mnist", source_of(["http://127.0.0.1:9"], root=str(root)), tmp_path / "cache")
    with gzip.open(folder / "t10k-labels-idx1-ubyte.gz") as file:
        official = np.frombuffer(file.read()[8:], np.uint8)
    assert np.array_equal(splits.test.labels, official)
    with gzip.open(folder / "train-images-idx3-ubyte.gz") as file:
        train = np.frombuffer(file.read()[16:], np.uint8).reshape(-1, 1, 28, 28)
    together = sorted(hash(image.tobytes()) for split in splits[:2] for image in split.images)
    assert together == sorted(hash(image.tobytes()) for image in train)


@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_a_root_with_a_bad_file_is_told(mnist_files, tmp_path, damage):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in mnist_files[1]:
        (raw / name).write_bytes((mnist_files[0] / name).read_bytes())
    victim = raw / "train-labels-idx1-ubyte.gz"
    victim.unlink() if damage == "missing" else victim.write_bytes(b"x")
    with pytest.raises(UserError, match={"missing": "no such file", "changed": "wrong checksum: found md5"}[damage]):
        make("mnist", source_of(["http://127.0.0.1:9"], root=str(tmp_path)), tmp_path)


def test_cifar10_archives_are_read(tmp_path, monkeypatch):
    """A generated archive in the official format: the real one is 170 MB."""
    import io
    import pickle
    import tarfile

    from torchvision.datasets import CIFAR10

    random = np.random.default_rng(0)
    files = {}
    for name in [n for n, _ in CIFAR10.train_list + CIFAR10.test_list]:
        batch = {"data": random.integers(0, 256, (20, 3072), dtype=np.uint8), "labels": [i % 10 for i in range(20)]}
        files[name] = pickle.dumps(batch)
    files["batches.meta"] = pickle.dumps({"label_names": [str(i) for i in range(10)]})
    archive = tmp_path / CIFAR10.filename
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"{CIFAR10.base_folder}/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))

    def checksum(name):
        return hashlib.md5(files[name]).hexdigest()

    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    monkeypatch.setattr(CIFAR10, "train_list", [[n, checksum(n)] for n, _ in CIFAR10.train_list])
    monkeypatch.setattr(CIFAR10, "test_list", [[n, checksum(n)] for n, _ in CIFAR10.test_list])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": checksum("batches.meta")})
    source = settings.Torchvision(
        source="torchvision", dataset="CIFAR10", mirrors=["http://127.0.0.1:9"], val=10, root=str(tmp_path)
    )
    splits = make("cifar10", source, tmp_path)
    assert [len(s.labels) for s in splits] == [90, 10, 20]
    expected = pickle.loads(files["test_batch"])["data"][3].reshape(3, 32, 32)
    assert np.array_equal(splits.test.images[3], expected)
