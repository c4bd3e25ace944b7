"""The commands behind `make`, on the committed results."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT

from isorobust.commands import extend, provenance, tables, verify
from isorobust.commands.sync import records
from isorobust.common.params import check
from isorobust.common.splits import Split, write_split
from isorobust.errors import UserError
from isorobust.networks.checkpoint import Checkpoint
from isorobust.networks.settings import NetworkSettings
from isorobust.networks.stack import Stack
from isorobust.networks.zoo import build

TOYS = ("rings", "torus")
DATA = sorted(path.parent.name for path in (ROOT / "metrics").glob("*/compare.json"))
PAGES = {str(page): (ROOT / page).read_text() for page in (tables.README, tables.FINDINGS)}


@pytest.mark.parametrize("page", PAGES)
def test_a_pages_tables_are_current(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    names = tables.data_sets(PAGES[str(tables.FINDINGS)])
    assert tables.filled(PAGES[page], Path(page), names) == PAGES[page], "run `make tables`"


# A number, at most six words, and its limits: `-0.5 [-2.9, +2.0]`, `97 % [94, 100]`.
@pytest.mark.parametrize("command", ["check", "show", "sync", "verify", "tables", "extend"])
def test_a_command_tells_words_that_it_does_not_know(command):
    words = ["python", "-m", f"isorobust.commands.{command}", "mnist", "--junk"]
    done = subprocess.run(words, cwd=ROOT, env={**os.environ, "PYTHONPATH": "src"}, capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith(f"error: {command}: found mnist --junk; allowed: nothing") and done.stderr.count("\n") == 1


INTERVAL = re.compile(r"([-+]?\d+(?:\.\d+)?)(?: [a-zA-Z%-]+){0,6} \[([-+]?[\d.]+), ([-+]?[\d.]+)\]")


def sections():
    """(data set or "", prose) of the pages: what stands under a data set's heading in the findings, and all else."""
    yield "", PAGES[str(tables.README)]
    for part in PAGES[str(tables.FINDINGS)].split("\n## "):
        yield next((data for data in DATA if part.startswith(f"{data}: ")), ""), part


def test_every_interval_in_prose_is_a_committed_one_of_its_data_set():
    """Prose is written by hand: a number in it has to occur in the metrics, as it is or in percent, of either sign."""
    missing, count, off_by_one = [], 0, 0
    for data, text in sections():
        values = committed(ROOT / "metrics" / data)
        for value, *limits in (match.groups() for match in INTERVAL.finditer(" ".join(tables.BLOCK.sub("", text).split()))):
            if not occurs((value, *limits), values):
                missing.append((data, value, *limits))
            count += 1
            off_by_one += occurs((f"{float(value) + last_digit(value):.9g}", *limits), values)
    assert missing == [] and count > 40
    assert off_by_one < count / 2, "so many numbers that any would occur"


def committed(folder):
    """Values and limits `[T, 3]` of all measurements below a folder, and with the sign turned, and both in percent."""
    values = np.array([limits for path in folder.rglob("*.json") for limits in intervals(json.loads(path.read_text()))])
    values = np.concatenate([values, -values[:, [0, 2, 1]]])
    return np.concatenate([values, 100 * values])


def intervals(tree):
    """Value and limits of all measurements in a metrics file."""
    inner = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    if isinstance(tree, dict) and isinstance(tree.get("value"), (int, float)) and None not in (tree.get("lo"), tree.get("hi")):
        yield tree["value"], tree["lo"], tree["hi"]
    for part in inner:
        yield from intervals(part)


def occurs(numbers, values):
    """Whether a row of `values` [T, 3] rounds to these three numbers as they are written."""
    allowed = 0.5 * np.array([last_digit(number) for number in numbers]) + 1e-9
    return (np.abs(values - np.array(numbers, float)) <= allowed).all(axis=1).any()


def last_digit(number):
    """What one in the last digit of a number, as it is written, is worth."""
    return 10.0 ** -len(number.partition(".")[2])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0.12 [0.10, 0.14] more", True),
        ("12 % [10, 14]", True),
        ("loses -12.3 points [-14.0, -10.0]", True),
        ("12.4 [10.0, 14.0]", False),
    ],
)
def test_an_interval_is_found_as_written(text, found):
    share = np.array([[0.123, 0.1, 0.14]])
    percent = 100 * np.concatenate([share, -share[:, [0, 2, 1]]])
    assert occurs(INTERVAL.search(text).groups(), np.concatenate([share, percent])) == found


def test_the_readmes_code_runs(tmp_path, monkeypatch):
    """On random images and a network of the recipe's form with its first weights."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    network = check(NetworkSettings, {"name": "tanh-mlp", "width": 8, "hidden_layers": 2}, "network")
    spec = {"network": network.model_dump(), "shape": [1, 28, 28], "classes": 10, "seeds": [0], "isometric": None}
    path = tmp_path / re.search(r'load_model\("(.*?)"', code)[1]
    path.parent.mkdir(parents=True)
    Checkpoint(spec, Stack([build(network, (1, 28, 28), 10, seed=0)]).state()).save(path)
    images = (255 * torch.rand(60, 1, 28, 28)).byte().numpy()
    (tmp_path / "data/mnist-5k").mkdir(parents=True)
    write_split(tmp_path / "data/mnist-5k/test.npz", Split(images, (torch.arange(60) % 10).numpy()))
    monkeypatch.chdir(tmp_path)
    told = {}
    exec(code, told)
    assert told["term"] > 0 and told["points"].shape == (30, 50, 1, 28, 28)
    assert torch.isfinite(told["around"].heights).all() and set(told["found"]) >= {"barrier", "endpoint-loss"}


def test_the_findings_have_a_block_for_every_data_set():
    assert {*tables.data_sets(PAGES[str(tables.FINDINGS)])} == {*DATA, *TOYS}


def test_a_word_that_the_tables_do_not_know_writes_nothing(monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError, match="found --chek; allowed: nothing, or --check"):
        tables.main(["--chek"])


def test_committed_figures_are_those_that_reports_show():
    listed = subprocess.run(["git", "ls-files", "*.png"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    shown = {f"metrics/{data}/{name}" for data in DATA for name in figures(data)}
    assert set(listed) == shown


def figures(data):
    """Names of the images in a data set's report."""
    return re.findall(r"\]\((\S+\.png)\)", (ROOT / "metrics" / data / "report.md").read_text())


@pytest.mark.parametrize("page", PAGES)
def test_a_page_links_what_there_is(page):
    """Files, and sections by the anchors that renderers of Markdown give to headings; no image that is not committed."""
    folder = (ROOT / page).parent
    for link in re.findall(r"\]\(([^)#\s]*)(?:#(\S+?))?\)", PAGES[page]):
        file, anchor = link
        if file.startswith("http"):
            continue
        path = folder / file if file else ROOT / page
        assert path.exists(), link
        if anchor:
            titles = [line.lstrip("#").strip().lower() for line in path.read_text().splitlines() if line.startswith("#")]
            assert anchor in {re.sub(r"[^a-z0-9 -]", "", title).replace(" ", "-") for title in titles}, link


def test_the_findings_link_every_report():
    assert {f"../metrics/{data}/report.md" for data in DATA} <= set(
        re.findall(r"\]\((\S+?report\.md)#", PAGES["docs/findings.md"])
    )


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


def in_folder(folder, command, *words):
    """A command's finished process, started in another folder."""
    whole = [sys.executable, "-m", f"isorobust.commands.{command}", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(whole, cwd=folder, capture_output=True, text=True, env=environment)


def tree(value=0.5):
    return {"arms": {"a": {"clean": {"value": value, "lo": 0.4, "hi": 0.6, "n": 10}, "seeds": 5}}}


@pytest.mark.parametrize(("value", "inside"), [(0.5, True), (0.6, True), (0.61, False), (0.39, False)])
def test_verify_asks_for_the_committed_interval(value, inside):
    ((path, _, seen, verdict),) = verify.compare(tree(), tree(value))
    assert (path, seen, verdict) == ("arms.a.clean", value, inside)


def test_nothing_is_added_where_nothing_ran(tmp_path):
    for name in ("params.yaml", "dvc.yaml", "metrics"):
        (tmp_path / name).symlink_to(ROOT / name)
    done = in_folder(tmp_path, "extend")
    assert done.returncode == 1 and "provenance.json: no such file; only published results with a record" in done.stderr
    (tmp_path / "params.yaml").unlink()
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text().replace("name: mnist-5k", "name: mnist", 1))
    done = in_folder(tmp_path, "extend")
    assert (
        done.returncode == 1
        and "results/mnist: no arm was attacked or measured here" in done.stderr
        and "Traceback" not in done.stderr
    )


@pytest.mark.parametrize(
    ("old", "new", "status", "told"),
    [
        ("", "", 0, "params.yaml: valid\n"),
        ("  cifar10:\n    seeds: 0-2\n", "  cifar10:\n    sedes: 0-2\n", 1, "recipes.cifar10: unknown key 'sedes'"),
    ],
    ids=["as committed", "misspelt where no stage looks"],
)
def test_check_looks_at_every_recipe(tmp_path, old, new, status, told):
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text().replace(old, new, 1))
    done = in_folder(tmp_path, "check")
    assert done.returncode == status and told in done.stdout + done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["verify", "verify mnist", "verify rings", "provenance write"])
def test_numbers_that_were_not_made_here_are_not_vouched_for(tmp_path, command):
    for name in ("params.yaml", "dvc.yaml", "metrics"):
        (tmp_path / name).symlink_to(ROOT / name)
    done = in_folder(tmp_path, *command.split())
    assert done.returncode == 1 and "not made here" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(("value", "told", "status"), [(0.5, "rings: 1", 0), (0.9, "outside:   0.9000, committed [", 1)])
def test_verify_looks_at_a_toys_summary(tmp_path, value, told, status):
    file = tmp_path / "metrics/rings/summary.json"
    for folder in (file.parent, tmp_path / "results/rings"):
        folder.mkdir(parents=True)
    file.write_text(json.dumps(tree()))
    for words in (
        ["init", "-q"],
        ["add", "metrics"],
        ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-q", "-m", "toys"],
    ):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    file.write_text(json.dumps(tree(value)))
    done = in_folder(tmp_path, "verify", "rings")
    assert done.returncode == status and done.stdout.startswith(told), done.stderr
    assert f"rings: {1 - status} of 1 numbers lie" in done.stdout


def test_without_git_verify_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="git: No such file or directory; this needs git"):
        provenance.git("status")


def test_verify_counts_a_lost_number_as_outside():
    assert verify.compare(tree(), {"arms": {}})[0][2:] == (None, False)


def test_provenance_tells_what_changed():
    record = {"code": {"a.py": "1", "b.py": "2"}, "source": {}, "recipe": {"x": 1}, "threads": 2}
    now = {"code": {"a.py": "1", "b.py": "3", "c.py": "4"}, "source": {}, "recipe": {"x": 2}, "threads": 2}
    assert provenance.reasons(record, record) == []
    assert provenance.reasons(record, now) == ["changed:", "  .: b.py", "new:", "  .: c.py", "params.yaml: recipe changed"]


def record(**changes):
    recipe = {"seeds": "0-4", "network": {}, "training": {}, "attack": {}, "geometry": {}, "compare": {}, "detection": "skip"}
    recipe["arms"] = {"baseline": {}, "trades": "skip", "noise": {"sigma": 0.3}}
    source = {"source": "folder", "root": "here", "val": 50}
    return {"commit": "1" * 40, "source": source, "recipe": {**recipe, **changes}, "runtime": {"device": "cpu"}}


PLUG_IN = {"reclassifier": {"mix": 0.5, "arms": "old"}, "reclassifier-attack": {"eps": 1}}
PUBLISHED = {"connectivity": {"points": 5, "arms": "baseline"}, "percolation": "skip", **PLUG_IN}


@pytest.mark.parametrize(
    ("here", "changes", "told"),
    [
        ("", {}, []),
        ("", {"arms": {"baseline": {}, "trades": {}, "noise": {"sigma": 0.3}}}, []),
        ("", {"arms": {"baseline": {}, "trades": {}, "noise": {"sigma": 0.5}}}, ["arms.noise"]),
        ("", {"arms": {"baseline": {"x": 1}, "trades": {}}}, ["arms.noise"]),
        ("", {"seeds": "0-1"}, ["seeds"]),
        ("", {"attack": {"images": 7}, "detection": {}}, ["attack"]),
        ("", {"connectivity": {"points": 9}}, []),
        ("percolation", {"percolation": {"sizes": 7}}, []),
        ("connectivity", {"connectivity": {"points": 9, "arms": "noise"}}, []),
        ("percolation", {"connectivity": {"points": 9}, "percolation": {"sizes": 7}}, ["connectivity"]),
        ("new", {"reclassifier": {"mix": 0.5, "arms": "old new"}}, []),
        ("new", {"reclassifier": {"mix": 0.9, "arms": "old new"}}, ["reclassifier"]),
        ("old new", {"reclassifier": {"mix": 0.9, "arms": "old new"}}, []),
    ],
    ids=[
        *("same", "new arm", "other number", "arm gone", "other seeds", "other attack", "kept study in other numbers"),
        *("new study", "study run anew", "new study by other numbers of a kept one"),
        *("new plug-in", "new plug-in by other numbers", "both plug-ins by other numbers"),
    ],
)
def test_only_what_is_shared_with_published_results_may_not_differ(here, changes, told):
    """`baseline` and `trades` ran here, and what stands in `here`."""
    made = ["baseline", "trades", *here.split()]
    assert extend.refusals(record(**PUBLISHED), record(**PUBLISHED | changes), made) == told


def test_results_from_another_source_are_not_added():
    now = record()
    now["source"] = {**now["source"], "root": "elsewhere"}
    assert extend.refusals(record(), now, ["trades"]) == []
    now["source"]["val"] = 60
    assert extend.refusals(record(), now, ["trades"]) == ["source"]
    assert extend.refusals(record(), now, []) == [], "to draw anew no image is read"


def test_the_record_says_by_whom_each_arm_was_compared(tmp_path, monkeypatch):
    """After a first addition by another commit, `trades` and the study of detection ran here."""
    monkeypatch.setattr(extend, "changed", lambda record: ["b.py"])
    (tmp_path / "attack").mkdir()
    (tmp_path / "attack/trades.json").write_text("{}")
    (tmp_path / "detect").mkdir()
    (tmp_path / "detect/baseline.json").write_text("{}")
    (tmp_path / "percolation.json").write_text('{"skipped": true}')
    tree = {"arms": dict.fromkeys(["baseline", "trades", "noise"]), "reclassifiers": {}, "hierarchy": {"x": 1}}
    tree |= {"connectivity": {}, "percolation": {}, "detection": {"y": 1}}
    first = {"commit": "0" * 40, "runtime": {"device": "old"}, "kept": ["noise", "trades"], "changed": ["a.py"]}
    now = record(arms={"baseline": {}, "trades": {}, "noise": {"sigma": 0.3}}, detection={"images": 9}, seeds="others")
    told = extend.extended({**record(), "carried": [first]}, {**now, "commit": "2" * 40}, tree, tmp_path)
    assert told["commit"] == "2" * 40
    assert told["recipe"] == record(arms=now["recipe"]["arms"], detection={"images": 9})["recipe"]
    assert told["carried"] == [
        {"commit": "1" * 40, "runtime": {"device": "cpu"}, "kept": ["baseline", "hierarchy"], "changed": ["b.py"]},
        {**first, "kept": ["noise"], "changed": ["a.py", "b.py"]},
    ]
    ours, theirs = ({**told, "code": {}, "threads": 1} for _ in range(2))
    assert provenance.reasons(ours, theirs) == [
        "baseline, hierarchy older than:",
        "  .: b.py",
        "noise older than:",
        "  .: a.py, b.py",
    ]


def test_the_record_says_where_geometry_alone_is_newer(tmp_path, monkeypatch):
    """`baseline` was measured again here, `noise` by an earlier commit, and `trades` by none."""
    monkeypatch.setattr(extend, "changed", lambda record: [])
    (tmp_path / "geometry").mkdir()
    (tmp_path / "geometry/baseline.json").write_text("{}")
    (tmp_path / "geometry/trades.json").write_text('{"skipped": true}')
    studies = dict.fromkeys(["hierarchy", "connectivity", "percolation", "detection"], {})
    tree = {"arms": dict.fromkeys(["baseline", "trades", "noise"]), "reclassifiers": {}, **studies}
    oldest = {"commit": "0" * 40, "runtime": {"device": "old"}, "kept": ["baseline", "trades", "noise"], "changed": []}
    before = {**record(), "carried": [oldest], "geometry": ["baseline", "noise"]}
    told = extend.extended(before, {**record(), "commit": "2" * 40}, tree, tmp_path)
    middle = {"commit": "1" * 40, "runtime": {"device": "cpu"}, "kept": ["geometry@noise"], "changed": []}
    assert (told["geometry"], told["carried"]) == (["baseline"], [middle, oldest])
    again = extend.extended(told, {**record(), "commit": "3" * 40}, tree, tmp_path / "none")
    newest = {"commit": "2" * 40, "runtime": {"device": "cpu"}, "kept": ["geometry@baseline"], "changed": []}
    assert "geometry" not in again and again["carried"] == [newest, middle, oldest]
    (tmp_path / "attack").mkdir()
    (tmp_path / "attack/noise.json").write_text("{}")
    attacked = extend.extended(told, {**record(), "commit": "3" * 40}, tree, tmp_path)
    assert attacked["carried"] == [{**oldest, "kept": ["baseline", "trades"]}] and attacked["geometry"] == ["baseline"]


@pytest.mark.parametrize(
    ("kept", "geometry", "told"),
    [
        (["noise"], [], "Compared by commit `111111111111` on cpu, 1 threads, torch 2, torchattacks 3 ([provenance](p))."),
        (["noise", "baseline"], [], "Drawn anew by commit `111111111111` on"),
        (
            ["noise", "baseline"],
            ["noise"],
            ", of these geometry alone: noise. Compared by commit `000000000000`",
        ),
    ],
    ids=["an arm", "nothing", "geometry alone"],
)
def test_pages_tell_which_commit_compared_what(kept, geometry, told):
    runtime = {"device": "cpu", "threads": 1, "torch": "2", "torchattacks": "3"}
    carried = [{"commit": "0" * 40, "kept": kept, "changed": []}]
    record = {"commit": "1" * 40, "runtime": runtime, "carried": carried, "geometry": geometry}
    assert told in tables._origin({"arms": {"baseline": {}, "noise": {}}}, record, "p")


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


def test_a_reader_that_stops_reading_ends_a_command_quietly(tmp_path):
    code = "from isorobust.commands import cli; cli.run(lambda: print('line\\n' * 100_000))"
    done = subprocess.run(
        ["bash", "-c", f'"{sys.executable}" -c "{code}" | head -1; echo "${{PIPESTATUS[0]}}"'], capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("line\n1\n", "")
