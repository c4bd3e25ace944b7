"""The pipeline as a user runs it: real DVC, real git, real sqlite, on data that trains in seconds."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time

import pytest
from conftest import KEPT

from isorobust.connectivity.settings import MEASURED

pytestmark = pytest.mark.slow
ARMS = KEPT
CONNECTED = [f"{stage}@{arm}" for stage in ("connectivity", "detect") for arm in MEASURED] + ["percolation"]
ALL = [
    "download",
    "sweep@isometric-tuned",
    *(f"train-{arm}" for arm in ARMS),
    *(f"{stage}@{arm}" for stage in ("attack", "geometry") for arm in ARMS),
    *("train-reclassifier", "attack@reclassifier", *CONNECTED),
    *("train-hierarchy", "attack-hierarchy", "toys@rings", "toys@torus", "compare"),
]


def runs_in(database):
    with sqlite3.connect(database) as connection:
        rows = connection.execute("select key, value, run_uuid from tags").fetchall()
    tags = {}
    for key, value, run in rows:
        tags.setdefault(run, {})[key] = value
    return list(tags.values())


def test_the_first_repro_runs_every_stage(finished):
    assert sorted(finished.ran_first) == sorted(ALL)


def test_results_are_whole_and_tracked(finished):
    tree = json.loads((finished.root / "metrics/tiny/compare.json").read_text())
    assert list(tree["arms"]) == ["baseline", "isometric", "isometric-tuned", "adversarial", "reclassifier"]
    mixed = tree["reclassifiers"]["reclassifier"]["attacked"]["msa"]["linf"]["0.1"]
    assert tree["arms"]["reclassifier"]["robust"]["linf"]["0.1"]["worst-case"] == mixed
    assert "reclassifier-vs-baseline" in tree["differences"]
    assert list(tree["connectivity"]["arms"]) == list(tree["detection"]["arms"]) == ["baseline", "untrained"]
    assert list(tree["percolation"]["sizes"]) == ["4", "8"]
    assert tree["twins"] == {"isometric": "baseline", "isometric-tuned": "baseline"}
    assert tree["sweeps"]["isometric-tuned"]["cells"] == 4
    estimate = tree["arms"]["isometric"]["robust"]["linf"]["0.1"]["worst-case"]
    assert estimate.keys() == {"value", "lo", "hi", "n"} and 0 <= estimate["lo"] <= estimate["value"] <= estimate["hi"] <= 1
    assert "isometric-vs-baseline" in tree["differences"] and tree["checks"]["adversarial"]
    assert json.loads((finished.root / "metrics/tiny/train/isometric-published.json").read_text()) == {"skipped": True}
    figures = {p.name for p in (finished.root / "results/tiny/figures").iterdir()}
    assert figures == {"training-curves.png", "confusion.png", "adversarial-images.png", "sweep-isometric-tuned.png"}
    assert finished.tracked() == ""


def test_mlflow_holds_one_run_per_stage_with_tags(finished):
    runs = runs_in(finished.root / "mlflow.db")
    names = sorted(run["mlflow.runName"] for run in runs)
    used = [arm for arm in ARMS if arm != "isometric-published"]
    assert names == sorted(
        [
            *("download-tiny", "compare-tiny"),
            "sweep-isometric-tuned-tiny",
            *("train-hierarchy-tiny", "attack-hierarchy-tiny", "toys-rings", "toys-torus"),
            *("train-reclassifier-tiny", "attack-reclassifier-tiny", "percolation-tiny"),
            *(f"{stage}-{arm}-tiny" for stage in ("connectivity", "detect") for arm in ("baseline", "untrained")),
            *(f"{stage}-{arm}-tiny" for stage in ("train", "attack", "geometry") for arm in used),
        ]
    )
    head = finished.run("git", "rev-list", "--max-parents=0", "HEAD").stdout.strip()
    assert all(run["commit"] == head and run["data"] in ("tiny", "rings", "torus") for run in runs)
    assert all({"torch", "threads", "device"} <= run.keys() for run in runs)


def test_a_second_repro_runs_nothing(copied):
    assert copied.repro() == set()


def test_dvcs_own_views_work(finished):
    assert "summary.json" in finished.run("dvc", "metrics", "show").stdout
    plots = json.loads(finished.run("dvc", "plots", "show", "--json").stdout)["data"]
    assert len(plots) == 6 and all(plots.values())
    robust = next(value for name, value in plots.items() if "strongest attack, L-infinity" in name)
    fields = {row["field"] for row in robust[0]["content"]["data"]["values"]}
    assert set(ARMS) <= fields


def test_queued_experiments_use_their_own_code_and_the_same_database(copied):
    """One is queued with another beta, one with changed code; both log beside the first runs."""
    before = len(runs_in(copied.root / "mlflow.db"))
    copied.run("dvc", "exp", "run", "--queue", "--name", "new-beta", "-S", "recipes.tiny.arms.isometric.isometry.beta=0.7")
    report = copied.root / "src/isorobust/compare/report.py"
    told = report.read_text()
    report.write_text(told.replace("## Primary endpoint", "## Primary endpoint, queued"))
    copied.run("dvc", "exp", "run", "--queue", "--name", "new-code")
    report.write_text(told)
    copied.run("dvc", "queue", "start", "--jobs", "1")
    deadline = time.time() + 240
    while time.time() < deadline:
        status = copied.run("dvc", "queue", "status").stdout
        if "Queued" not in status and "Running" not in status:
            break
        time.sleep(2)
    assert status.count("Success") == 2, status
    reference = copied.run("git", "for-each-ref", "--format=%(refname)", "refs/exps").stdout.split()
    texts = {
        ref.rsplit("/", 1)[1]: copied.run("git", "show", f"{ref}:metrics/tiny/report.md", check=False).stdout for ref in reference
    }
    assert "## Primary endpoint, queued" in texts["new-code"]
    assert "## Primary endpoint, queued" not in texts["new-beta"]
    runs = runs_in(copied.root / "mlflow.db")[before:]
    assert {run["experiment"] for run in runs} == {"new-beta", "new-code"}
    assert {run["mlflow.runName"] for run in runs if run["experiment"] == "new-beta"} == {
        "train-isometric-tiny",
        "attack-isometric-tiny",
        "geometry-isometric-tiny",
        "compare-tiny",
    }


def test_a_clean_clone_gives_the_same_bytes(finished, tmp_path):
    finished.run("git", "clone", "-q", str(finished.root), str(tmp_path / "clone"))
    clone = type(finished)(tmp_path / "clone")
    clone.run("dvc", "repro")
    assert clone.tracked() == ""
    assert (clone.root / "dvc.lock").read_bytes() == (finished.root / "dvc.lock").read_bytes()
    assert "outside" not in clone.run("python", "-m", "isorobust.commands.verify").stdout
    clone.run("python", "-m", "isorobust.commands.sync")
    assert len(runs_in(clone.root / "mlflow.db")) == 26


def test_a_killed_stage_and_a_new_repro_give_the_same_bytes(copied):
    """The whole group is killed while it attacks; a result half-written would be kept or change the bytes."""
    expected = copied.published("tiny"), (copied.root / "dvc.lock").read_bytes()
    for folder in (".dvc/cache/runs", ".isorobust"):
        shutil.rmtree(copied.root / folder)
    for ending in ("json", "npz"):  # so that DVC can neither keep nor restore what the stage is about to write
        result = copied.root / f"results/tiny/attack/baseline.{ending}"
        digest = hashlib.md5(result.read_bytes()).hexdigest()
        (copied.root / ".dvc/cache/files/md5" / digest[:2] / digest[2:]).unlink()
        result.unlink()
    environment = {**os.environ, "PATH": f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"}
    stage = ["python", "-m", "stages.attack", "baseline", "data/tiny", "models/tiny", "results/tiny/attack"]
    process = subprocess.Popen(stage, cwd=copied.root, env=environment, start_new_session=True, stderr=subprocess.DEVNULL)
    deadline = time.time() + 60
    while not list((copied.root / ".isorobust/units").rglob("*.npz")) and time.time() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert copied.repro() == {"attack@baseline"}
    assert (copied.published("tiny"), (copied.root / "dvc.lock").read_bytes()) == expected


MISTAKES = {
    "unknown data set": (lambda t: t["data"].update(name="minst"), "data.name: found 'minst'; allowed: cifar10"),
    "misspelt key": (lambda t: t["recipes"]["tiny"]["training"].update(epoch=3), "epoch: unknown key (did you mean 'epochs'?)"),
    "huge eps": (lambda t: t["recipes"]["tiny"]["attack"]["eps"].update(linf=[8]), "found 8.0; allowed: a radius"),
    "of the comparison alone": (
        lambda t: t["recipes"]["tiny"]["compare"].update(reference="basline"),
        "found 'basline'; allowed: ",
    ),
    "of a toy": (lambda t: t["toys"]["rings"].update(test_points=0), "toys.rings.test_points: found 0"),
    "a block is gone": (lambda t: t["recipes"]["tiny"].pop("training"), "'recipes.tiny.training' are missing"),  # DVC's words
}


@pytest.mark.parametrize(("change", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_told_before_anything_changes(copied, change, message):
    before = copied.published("tiny")
    copied.edit_params(change)
    done = copied.run("dvc", "repro", check=False)
    assert done.returncode != 0
    assert message in done.stderr and "Traceback" not in done.stderr
    assert copied.published("tiny") == before


def test_a_missing_or_damaged_input_is_told(copied):
    def stage(*words):
        done = copied.run("python", "-m", *words, check=False)
        assert done.returncode == 1 and "Traceback" not in done.stderr
        return done.stderr

    folders = ("data/tiny", "models/tiny", "results/tiny/attack")
    model = copied.root / "models/tiny/isometric.safetensors"
    content = model.read_bytes()
    model.unlink()  # a link into the cache may be read-only
    model.write_bytes(content[:-5])
    assert "error: models/tiny/isometric.safetensors: damaged" in stage("stages.attack", "isometric", *folders)
    model.unlink()
    assert "no such file" in stage("stages.attack", "isometric", *folders)
    (copied.root / "data/tiny/test.npz").unlink()
    assert "error: data/tiny/test.npz: no such file" in stage("stages.attack", "baseline", *folders)
    (copied.root / "results/tiny/attack/baseline.json").unlink()
    told = stage("stages.compare", "results/tiny", "metrics/tiny")
    assert "error: results/tiny/attack/baseline.json: no such file; `dvc repro` writes it" in told


def test_training_that_diverges_leaves_no_output(copied):
    copied.edit_params(lambda tree: tree["recipes"]["tiny"]["arms"]["isometric"]["isometry"].update(beta=1e39))
    done = copied.run("dvc", "repro", "train-isometric", check=False)
    assert done.returncode != 0 and "training diverged: loss is inf at epoch 1, step 1, seed 0" in done.stderr
    assert not (copied.root / "models/tiny/isometric.safetensors").exists()


def test_an_unreachable_mlflow_stops_nothing(copied):
    path = copied.root / "src/isorobust/compare/tables.py"
    path.write_text(path.read_text() + "# a remark\n")
    done = copied.run("dvc", "repro", MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert "going on without" in done.stderr


def test_stale_results_and_their_provenance_are_told(copied):
    copied.run("dvc", "exp", "run", "-S", "data.name=other")
    copied.commit("other")
    copied.run("python", "-m", "isorobust.commands.provenance", "write")
    copied.run("dvc", "exp", "run", "-S", "data.name=tiny")
    copied.commit("tiny again")
    told = copied.run("python", "-m", "isorobust.commands.provenance", "stale").stdout
    assert "other: current (commit " in told and "tiny: described by dvc.lock" in told
    path = copied.root / "src/isorobust/training/fit.py"
    path.write_text(path.read_text() + "# a remark\n")
    done = copied.run("python", "-m", "isorobust.commands.provenance", "stale", check=False)
    assert done.returncode == 1 and "other: STALE" in done.stdout and "src/isorobust/training: fit.py" in done.stdout


def test_an_arm_added_to_published_results_is_compared_as_if_all_had_run_here(copied):
    """The published ones by their verdicts per image: the same bytes as from one run, and a record of who made what."""

    def extend(check=True):
        return copied.run("python", "-m", "isorobust.commands.extend", check=check)

    metrics = copied.root / "metrics/tiny"
    as_it_was = (copied.root / "params.yaml").read_text()
    whole = {path.name: path.read_bytes() for path in metrics.iterdir() if path.is_file()}
    verdicts = {path.name: path.read_bytes() for path in (metrics / "attack").iterdir()}
    geometry = (metrics / "geometry/baseline.json").read_bytes()
    copied.edit_params(lambda tree: tree["recipes"]["tiny"]["arms"].update({"isometric-tuned": "skip"}))
    copied.run("dvc", "repro", "compare")
    copied.run("python", "-m", "isorobust.commands.provenance", "write")
    copied.commit("without the tuned arm")
    assert "isometric-tuned" not in json.loads((metrics / "compare.json").read_text())["arms"]
    assert not (metrics / "attack/isometric-tuned.npz").exists()

    shutil.rmtree(copied.root / "results/tiny")
    assert "no arm was attacked or measured here" in extend(check=False).stderr
    (copied.root / "params.yaml").write_text(as_it_was)
    copied.run("dvc", "repro", "attack@isometric-tuned", "geometry@isometric-tuned")
    assert not (copied.root / "results/tiny/attack/baseline.npz").exists()
    for name in ("percolation.json", "connectivity/baseline.json", "hierarchy/attack.json"):  # of a recipe that skips them
        (copied.root / "results/tiny" / name).parent.mkdir(exist_ok=True)
        (copied.root / "results/tiny" / name).write_text('{"skipped": true}')
    assert "metrics/tiny: adding isometric-tuned\n" in extend().stdout
    for name, content in whole.items():
        assert (metrics / name).read_bytes() == content, name
    assert {path.name: path.read_bytes() for path in (metrics / "attack").iterdir()} == verdicts
    (carried,) = json.loads((metrics / "provenance.json").read_text())["carried"]
    kept = ["baseline", "isometric", "adversarial", "reclassifier", "hierarchy", "connectivity", "percolation", "detection"]
    assert carried["kept"] == kept and carried["changed"] == []

    shutil.rmtree(copied.root / "results/tiny")
    copied.run("dvc", "repro", "attack@reclassifier")
    assert "metrics/tiny: adding reclassifier" in extend().stdout
    for name, content in whole.items():
        assert (metrics / name).read_bytes() == content, name

    shutil.rmtree(copied.root / "results/tiny")
    copied.run("dvc", "repro", "geometry@baseline")
    (metrics / "geometry/baseline.json").write_text("{}")
    assert "metrics/tiny: adding geometry@baseline\n" in extend().stdout
    for name, content in whole.items():
        assert (metrics / name).read_bytes() == content, name
    assert (metrics / "geometry/baseline.json").read_bytes() == geometry
    assert json.loads((metrics / "provenance.json").read_text())["geometry"] == ["baseline"]
    trained = copied.root / "results/tiny/train/baseline.json"
    trained.write_text(json.dumps(json.loads(trained.read_text()) | {"epochs": 99}))
    refused = extend(check=False)
    assert refused.returncode == 1 and "other numbers than the published ones, so geometry here is of other" in refused.stderr
    shutil.rmtree(copied.root / "results/tiny")
    copied.run("dvc", "repro", "attack@reclassifier")

    copied.edit_params(lambda tree: tree["recipes"]["tiny"]["training"].update(epochs=9))
    assert "params.yaml: training of tiny differ from what its published results were made with" in extend(check=False).stderr
    (copied.root / "params.yaml").write_text(as_it_was)
    path = copied.root / "src/isorobust/training/fit.py"
    path.write_text(path.read_text() + "# a remark\n")
    assert "the code differs from the commit; commit it first" in extend(check=False).stderr
    copied.commit("other code")
    assert "src/isorobust/training/fit.py is not what the published results were made with" in extend().stdout
    carried = json.loads((metrics / "provenance.json").read_text())["carried"]
    parts = {*kept, "isometric-tuned", "geometry@baseline"} - {"reclassifier"}
    assert {name for group in carried for name in group["kept"]} == parts
    assert all(group["changed"] == ["src/isorobust/training/fit.py"] for group in carried)

    report = copied.root / "src/isorobust/compare/report.py"
    report.write_text(report.read_text().replace("## Primary endpoint", "## Primary endpoint, again"))
    copied.commit("another report")
    drawn = copied.run("python", "-m", "isorobust.commands.extend", "--again").stdout
    assert "metrics/tiny: comparing anew what is published" in drawn
    told = whole["report.md"].replace(b"## Primary endpoint", b"## Primary endpoint, again")
    assert (metrics / "report.md").read_bytes() == told
    for name in whole.keys() - {"report.md"}:
        assert (metrics / name).read_bytes() == whole[name], name
    assert set().union(*(group["kept"] for group in json.loads((metrics / "provenance.json").read_text())["carried"])) >= {*kept}
