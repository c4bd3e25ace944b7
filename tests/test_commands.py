"""The commands behind `make`, on the committed results."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from conftest import ROOT

from isorobust.commands import provenance, readme, verify
from isorobust.commands.sync import records

TOYS = ("rings", "torus")
DATA = sorted(path.parent.name for path in (ROOT / "metrics").glob("*/compare.json"))


def test_the_readmes_tables_are_current(monkeypatch):
    monkeypatch.chdir(ROOT)
    text = (ROOT / "README.md").read_text()
    assert readme.filled(text) == text, "run `make tables`"


def test_the_readme_has_a_block_for_every_data_set():
    assert {match[2] for match in readme.BLOCK.finditer((ROOT / "README.md").read_text())} == {*DATA, *TOYS}


def test_committed_figures_are_those_the_readme_shows():
    listed = subprocess.run(["git", "ls-files", "*.png"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    text = (ROOT / "README.md").read_text()
    assert listed and all(f"]({name})" in text for name in listed)


def test_results_besides_the_locked_data_set_carry_provenance(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert provenance.locked_data() in DATA
    for data in DATA:
        if data != provenance.locked_data():
            record = json.loads((ROOT / "metrics" / data / "provenance.json").read_text())
            assert {"commit", "recipe", "code", "runtime"} <= record.keys()
            assert {"threads", "device", "torch"} <= record["runtime"].keys()


def test_every_used_result_has_its_mlflow_record(monkeypatch):
    monkeypatch.chdir(ROOT)
    names = {record.name for record in records()}
    for data in DATA:
        arms = json.loads((ROOT / "metrics" / data / "compare.json").read_text())["arms"]
        wanted = {f"{stage}-{arm}-{data}" for stage in ("train", "attack") for arm in arms}
        assert wanted | {f"compare-{data}"} <= names


def tree(value=0.5):
    return {"arms": {"a": {"clean": {"value": value, "lo": 0.4, "hi": 0.6, "n": 10}, "seeds": 5}}}


@pytest.mark.parametrize(("value", "inside"), [(0.5, True), (0.6, True), (0.61, False), (0.39, False)])
def test_verify_asks_for_the_committed_interval(value, inside):
    ((path, _, seen, verdict),) = verify.compare(tree(), tree(value))
    assert (path, seen, verdict) == ("arms.a.clean", value, inside)


def test_verify_counts_a_lost_number_as_outside():
    assert verify.compare(tree(), {"arms": {}})[0][2:] == (None, False)


def test_provenance_tells_what_changed():
    record = {"code": {"a.py": "1", "b.py": "2"}, "source": {}, "recipe": {"x": 1}, "threads": 2}
    now = {"code": {"a.py": "1", "b.py": "3", "c.py": "4"}, "source": {}, "recipe": {"x": 2}, "threads": 2}
    assert provenance.reasons(record, record) == []
    assert provenance.reasons(record, now) == ["b.py changed", "c.py is new", "params.yaml: recipe changed"]


def test_the_active_environment_holds_the_pins():
    done = subprocess.run([sys.executable, "scripts/missing.py"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_environment_without_the_packages_is_told_and_left_alone(tmp_path):
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    environment = {"VIRTUAL_ENV": str(bare), "PATH": f"{bare}/bin:/usr/bin:/bin"}
    done = subprocess.run(["scripts/environment.sh"], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode != 0 and "lacks torch==" in done.stderr and "nothing was installed into it" in done.stderr


def test_make_help_lists_every_target():
    text = (ROOT / "Makefile").read_text()
    targets = {line.split(":")[0] for line in text.splitlines() if line and line[0].isalpha() and ":" in line and "=" not in line}
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True).stdout
    assert all(f"make {target}" in shown for target in targets)


def test_committed_files_name_no_machine_and_no_package_index():
    """Relative paths only, and no address of an index in what pip reads."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    for name in listed:
        if name.endswith((".txt", ".toml", ".sh", "Makefile", "run")):
            text = (ROOT / name).read_text()
            assert "index-url" not in text and "find-links" not in text, name
