"""Stages on files that do not belong together: told in one message, before any work."""

from __future__ import annotations

import runpy
import shutil
import subprocess
import sys

import numpy as np
import pytest
import yaml
from conftest import NETWORKS, ROOT, tiny_recipe

from isorobust.common import artifacts
from isorobust.common.splits import Split, read_split, write_split
from isorobust.errors import UserError
from isorobust.hierarchy import network as hierarchy
from isorobust.hierarchy.settings import BlockSettings
from isorobust.hierarchy.tree import parse_tree
from isorobust.networks.checkpoint import Checkpoint
from isorobust.networks.stack import Stack
from isorobust.networks.zoo import build
from stages import attack, attack_hierarchy, attack_reclassifier, connectivity, detect, download, geometry, train_reclassifier

SPEC = {"shape": [1, 8, 8], "classes": 3, "seeds": [0], "isometric": None}
LEVELS = ["0 1 | 2"]


def save_arm(path, **changed):
    options = NETWORKS["tanh-mlp"]
    tensors = Stack([build(options, (1, 8, 8), 3, seed=0)]).state()
    Checkpoint({**SPEC, "network": options.model_dump(), **changed}, tensors).save(path)


def save_hierarchy(path, width=8, **changed):
    """A file of one hierarchy; `width` is that of its networks, whatever its spec says."""
    options = BlockSettings(width=8, layers=2)
    network = hierarchy.build(options.model_copy(update={"width": width}), parse_tree(LEVELS), 64, seed=0)
    tensors = {f"two-level/{name}": tensor for name, tensor in Stack([network]).state().items()}
    Checkpoint({**SPEC, "network": options.model_dump(), "trees": {"two-level": LEVELS}, **changed}, tensors).save(path)


def save_split(path, shape=(1, 8, 8), classes=3):
    labels = np.arange(12) % classes
    write_split(path, Split(np.zeros((12, *shape), np.uint8), labels))


@pytest.fixture
def project(tmp_path, monkeypatch):
    """params.yaml, splits, an arm of each name, a hierarchy; all of one shape."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    (tmp_path / "params.yaml").symlink_to(ROOT / "params.yaml")
    for part in ("train", "val", "test"):
        save_split(tmp_path / f"{part}.npz")
    for arm in ("baseline", "isometric", "reclassifier"):
        save_arm(tmp_path / f"{arm}.safetensors")
    save_hierarchy(tmp_path / "hierarchy.safetensors")
    return tmp_path


STAGES = {
    "attack": lambda here: attack.attack("isometric", here, here, here),
    "attack-hierarchy": lambda here: attack_hierarchy.attack(here, here, here),
    "attack-reclassifier": lambda here: attack_reclassifier.attack("reclassifier", here, here, here),
    "geometry": lambda here: geometry.geometry("isometric", here, here, here),
    "connectivity": lambda here: connectivity.connectivity("baseline", here / "baseline.safetensors", here, here),
    "detect": lambda here: detect.detect("baseline", here / "baseline.safetensors", here, here),
    "train-reclassifier": lambda here: train_reclassifier.train("reclassifier", here / "baseline.safetensors", here, here, here),
}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"shape": (1, 9, 9)},
            r"found images \[1, 9, 9\] and labels up to 2; allowed: images \[1, 8, 8\] and labels up to 2",
        ),
        ({"shape": (3, 8, 8)}, r"found images \[3, 8, 8\]"),
        ({"classes": 4}, r"found images \[1, 8, 8\] and labels up to 3; allowed: .*labels up to 2"),
    ],
    ids=["size", "channels", "classes"],
)
@pytest.mark.parametrize("stage", STAGES)
def test_images_of_another_kind_than_the_networks_are_told(project, stage, changed, message):
    part = "train" if stage == "train-reclassifier" else "test"
    save_split(project / f"{part}.npz", **changed)
    with pytest.raises(UserError, match=rf"{part}\.npz: {message}"):
        STAGES[stage](project)
    assert not list(project.glob("*.json"))


@pytest.mark.parametrize(("stage", "part"), [("detect", "train"), ("detect", "val"), ("train-reclassifier", "val")])
def test_every_split_that_a_stage_reads_is_checked(project, stage, part):
    save_split(project / f"{part}.npz", shape=(1, 9, 9))
    with pytest.raises(UserError, match=rf"{part}\.npz: found images \[1, 9, 9\]"):
        STAGES[stage](project)


@pytest.mark.parametrize("stage", ["attack", "attack-hierarchy"])
def test_a_baseline_of_other_data_is_told(project, stage):
    save_arm(project / "baseline.safetensors", shape=[1, 9, 9])
    with pytest.raises(UserError, match=r"test\.npz: found images \[1, 8, 8\].*baseline\.safetensors was trained on"):
        STAGES[stage](project)


@pytest.mark.parametrize(
    ("module", "name", "told"),
    [
        ("train_reclassifier", "baseline", "params.yaml: reclassifiers: found 'baseline'; allowed: reclassifier"),
        ("connectivity", "bseline", "stages.connectivity: found 'bseline'; allowed: adversarial, baseline"),
        ("detect", "isometric-tuned", "stages.detect: found 'isometric-tuned'; allowed: adversarial, baseline"),
    ],
)
def test_a_name_that_is_not_of_the_stage_writes_over_nothing(project, monkeypatch, capsys, module, name, told):
    before = (project / "baseline.safetensors").read_bytes()
    folders = [str(project)] * (4 if module == "train_reclassifier" else 3)
    monkeypatch.setattr(sys, "argv", [module, name, *folders])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / f"stages/{module}.py"), run_name="__main__")
    assert str(ended.value).startswith(f"error: {told}") and (project / "baseline.safetensors").read_bytes() == before
    assert not list(project.glob("*.json"))


def test_the_file_of_a_skipped_arm_takes_any_images(project):
    split = read_split(project / "test.npz")
    assert Checkpoint({"skipped": True}, {}).check_split(split, "test.npz") is split


HIERARCHIES = {
    "a plain arm's file": (save_arm, r"hierarchy\.safetensors: spec: found .*'network'.*; allowed: one with trees, as"),
    "another width": (
        lambda path: save_hierarchy(path, width=9),
        r"another architecture: two-level/blocks.0.0.bias is \[9\], hierarchy two-level needs \[8\]",
    ),
    "another tree": (
        lambda path: save_hierarchy(path, trees={"two-level": ["0 1 | 2 3"]}),
        "another architecture: two-level/",
    ),
    "another hierarchy's name": (
        lambda path: save_hierarchy(path, trees={"three-level": LEVELS}),
        r"another architecture: three-level/\S+ is None, hierarchy three-level needs",
    ),
}


@pytest.mark.parametrize(("save", "message"), HIERARCHIES.values(), ids=HIERARCHIES.keys())
def test_a_bad_hierarchy_file_is_told(project, save, message):
    path = project / "hierarchy.safetensors"
    save(path)
    with pytest.raises(UserError, match=message):
        checkpoint = Checkpoint.read(path)
        hierarchy.load(checkpoint, next(iter(hierarchy.trees_of(checkpoint))), seed=0)


def test_the_stage_tells_a_plain_arms_file_in_the_place_of_the_hierarchies(project):
    save_arm(project / "hierarchy.safetensors")
    with pytest.raises(UserError, match="allowed: one with trees"):
        STAGES["attack-hierarchy"](project)


def test_download_writes_what_its_run_shows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    tiny_recipe(params, "tiny", 0)
    params["data"]["name"] = "tiny"
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    record = download.download(tmp_path / "data", tmp_path / "results")
    assert record.name == "download-tiny" and record.metrics == tmp_path / "results" / "data.json"
    numbers = artifacts.read_json(record.metrics)
    assert numbers["train"] == {"images": 200, "by-class": dict.fromkeys("0123", 50)} and numbers["channels"] == 1
    assert read_split(tmp_path / "data" / "train.npz").images.shape == (200, 1, 8, 8)


EDITS = {  # file, what is replaced by what while the stage geometry@isometric runs -> what is told, nothing if it does not matter
    "a number of the stage": ("params.yaml", "jacobian_images: ", "jacobian_images: 1", "params.yaml: geometry.jacobian_images"),
    "the data set": ("params.yaml", "  name: mnist-5k", "  name: mnist", "params.yaml: data.name"),
    "a number of another stage": ("params.yaml", "square_queries: ", "square_queries: 1", ""),
    "code that it uses": ("src/isorobust/common/params.py", "import re\n", "import re\n\n", "src/isorobust/common/params.py"),
    "code that it does not use": ("src/isorobust/compare/tables.py", "SHOWN", "SHOWED", ""),
    "code that is gone": ("stages/base.py", None, None, "stages/base.py"),
}


@pytest.mark.parametrize(("file", "old", "new", "told"), EDITS.values(), ids=EDITS.keys())
def test_what_was_edited_while_a_stage_ran_is_not_taken_for_what_made_its_result(tmp_path, file, old, new, told):
    for folder in ("src", "stages"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "params.yaml", tmp_path)
    code = (
        "import sys; sys.path[:0] = ['src', '.']\nfrom pathlib import Path\nfrom stages import base\n"
        f"file, old, new = Path({file!r}), {old!r}, {new!r}\n"
        "work = lambda: file.unlink() if old is None else file.write_text(file.read_text().replace(old, new)) and None\n"
        "base.run('geometry', 'isometric', work)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    if told:
        assert done.returncode == 1 and done.stderr.startswith(f"error: {told}: edited while this stage ran"), done.stderr
    else:
        assert (done.returncode, done.stderr) == (0, "")
