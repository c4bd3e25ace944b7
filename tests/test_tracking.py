"""The MLflow mirror against a real sqlite database."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version

import pytest
from conftest import ROOT

from isorobust import tracking
from isorobust.commands.sync import records


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder with params.yaml and a result, as the present one."""
    monkeypatch.chdir(tmp_path)
    for name in ("DVC_ROOT", "MLFLOW_TRACKING_URI", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    (tmp_path / "isometric.json").write_text(json.dumps({"val_accuracy": {"value": 0.9, "lo": 0.8, "hi": 0.95, "n": 10}}))
    (tmp_path / "isometric.csv").write_text("epoch,train_loss,val_accuracy\n1,2.0,0.5\n2,1.0,0.9\n")
    return tmp_path


def record(workplace, **more):
    facts = {"threads": "2", "device": "cpu", "torch": "x"}
    return tracking.Record(
        "train", "isometric", "mnist-5k", workplace / "isometric.json", workplace / "isometric.csv", facts=facts, **more
    )


def in_a_process(workplace) -> subprocess.Popen:
    """Log the record from a process of its own."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; from isorobust import tracking\n"
        "r = tracking.Record('train', 'isometric', 'mnist-5k', Path('isometric.json'), Path('isometric.csv'))\n"
        "sys.exit(0 if tracking.log(r) else 3)"
    )
    return subprocess.Popen([sys.executable, "-c", code, str(ROOT / "src")], cwd=workplace)


def runs():
    client, experiment = tracking._client()
    return list(client.search_runs([experiment])), client


def test_a_run_holds_params_epoch_metrics_artifacts_and_tags(workplace):
    assert tracking.log(record(workplace))
    (run,), client = runs()
    assert run.info.status == "FINISHED" and run.info.run_name == "train-isometric-mnist-5k"
    assert run.data.metrics["val_accuracy.value"] == 0.9
    assert [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "epoch/train_loss")] == [(1, 2.0), (2, 1.0)]
    assert run.data.params["arm.isometry.beta"] == "0.1" and run.data.params["training.epochs"] == "86"
    wanted = {"data": "mnist-5k", "arm": "isometric", "stage": "train", "threads": "2", "restored": "false"}
    assert wanted.items() <= run.data.tags.items() and {"experiment", "device"} <= run.data.tags.keys()
    assert {f.path for f in client.list_artifacts(run.info.run_id)} == {"isometric.json", "isometric.csv"}


@pytest.mark.parametrize("stage", ["download", "compare"])
def test_a_stage_that_picks_no_device_is_tagged_with_what_it_ran_on(workplace, stage):
    one = tracking.Record(stage, None, "mnist-5k", workplace / "isometric.json")
    assert tracking.log(one) and tracking.log(one, restored=True)
    by_restored = {run.data.tags["restored"]: run.data for run in runs()[0]}
    tags = by_restored["false"].tags
    assert tags["torch"] == version("torch") and tags["threads"].isdigit() and tags["device"].startswith("cpu ")
    assert not {"torch", "threads", "device"} & by_restored["true"].tags.keys(), "what it ran on is not known"
    if stage == "download":
        assert by_restored["false"].params["data.train"] == "3500" and by_restored["false"].params["data.seed"] == "0"


def test_sync_takes_versions_threads_and_device_from_where_they_are_recorded(workplace):
    runtime = {"torch": "1.2.3", "threads": "7", "device": "cpu old"}
    for data in ("mnist", "mnist-5k"):
        files = {"metrics": ("compare.json", "summary.json", "train/baseline.json"), "results": ("data.json",)}
        for folder, names in files.items():
            for name in names:
                (workplace / folder / data / name).parent.mkdir(parents=True, exist_ok=True)
                (workplace / folder / data / name).write_text("{}")
    (workplace / "metrics/mnist/provenance.json").write_text(json.dumps({"runtime": runtime}))
    assert tracking.sync(records()) == (6, 0, [])
    tags = {run.info.run_name: run.data.tags for run in runs()[0]}
    stages = ("download", "train-baseline", "compare")
    assert set(tags) == {f"{stage}-{data}" for stage in stages for data in ("mnist", "mnist-5k")}
    for name, told in tags.items():
        assert {key: told.get(key) for key in runtime} == (dict.fromkeys(runtime) if name.endswith("-5k") else runtime)


def test_sync_writes_only_what_is_missing(workplace):
    assert tracking.sync([record(workplace)]) == (1, 0, [])
    assert tracking.sync([record(workplace)]) == (0, 1, [])
    (workplace / "isometric.json").write_text("{}")
    assert tracking.sync([record(workplace)]) == (1, 0, [])
    assert sorted(run.data.tags["restored"] for run in runs()[0]) == ["true", "true"]


def test_sync_gives_a_run_its_tables_and_the_recipe_it_was_made_with(workplace):
    """A sweep's table is no curve; a plug-in's ablation stands beside its curves."""
    recipe = {"sweep": {"images": 7}, "arms": {}, "network": {"name": "old"}, "training": {}, "seeds": "0-1"}
    files = {
        "metrics/mnist/compare.json": "{}",
        "metrics/mnist/summary.json": "{}",
        "metrics/mnist/provenance.json": json.dumps({"runtime": {}, "recipe": recipe}),
        "metrics/mnist/train/noise.json": "{}",
        "metrics/mnist/train/reclassifier.json": "{}",
        "results/mnist/train/noise.csv": "epoch,train_loss\n1,2.0\n",
        "results/mnist/train/reclassifier.csv": "epoch,train_loss\n1,2.0\n",
        "results/mnist/train/reclassifier-ablation.csv": "changed,to\nmix,0.0\n",
        "results/mnist/sweep/isometric-tuned.json": "{}",
        "results/mnist/sweep/isometric-tuned.csv": "beta,val_clean\n0.1,0.9\n",
        "results/mnist/hierarchy/train.json": "{}",
        "results/mnist/hierarchy/train.csv": "epoch,train_loss\n1,2.0\n",
    }
    for name, content in files.items():
        (workplace / name).parent.mkdir(parents=True, exist_ok=True)
        (workplace / name).write_text(content)
    assert tracking.sync(records()) == (5, 0, [])
    found, client = runs()
    kept = {run.info.run_name: {f.path for f in client.list_artifacts(run.info.run_id)} for run in found}
    assert kept["sweep-isometric-tuned-mnist"] == {"isometric-tuned.json", "isometric-tuned.csv"}
    assert kept["train-reclassifier-mnist"] == {"reclassifier.json", "reclassifier.csv", "reclassifier-ablation.csv"}
    assert kept["train-hierarchy-mnist"] == {"train.json", "train.csv"}
    told = {run.info.run_name: run.data for run in found}
    assert told["sweep-isometric-tuned-mnist"].params["sweep.images"] == "7"
    assert told["train-noise-mnist"].params["network.name"] == "old"
    assert "epoch/train_loss" in told["train-noise-mnist"].metrics


def test_sync_goes_on_past_what_it_cannot_read(workplace):
    gone = tracking.Record("train", "isometric", "svhn", workplace / "isometric.json")
    broken = record(workplace)._replace(metrics=workplace / "broken.json")
    (workplace / "broken.json").write_text("{")
    written, there, problems = tracking.sync([gone, broken, record(workplace)])
    assert (written, there) == (1, 0) and ["train-isometric-svhn: " in problems[0], "broken.json" in problems[1]] == [True, True]
    assert [run.info.status for run in runs()[0]] == ["FINISHED"], "nothing is begun that cannot be finished"


@pytest.mark.parametrize(
    ("damaged", "content", "told"),
    [
        ("metrics/mnist/train/noise.json", "{", "train-noise-mnist: metrics/mnist/train/noise.json: not valid JSON"),
        ("metrics/mnist/summary.json", None, ""),
        ("results/mnist/train/noise.csv", "epoch,train_loss\n1,0.x\n", "train-noise-mnist: results/mnist/train/noise.csv: "),
    ],
    ids=["metrics", "no summary", "curves"],
)
def test_one_damaged_file_costs_one_run(workplace, damaged, content, told):
    for data in ("mnist", "mnist-5k"):
        for name in ("metrics/{}/compare.json", "metrics/{}/summary.json", "metrics/{}/train/noise.json"):
            path = workplace / name.format(data)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("{}")
    (workplace / "results/mnist/train").mkdir(parents=True)
    if content is None:
        (workplace / damaged).unlink()
    else:
        (workplace / damaged).write_text(content)
    written, _, problems = tracking.sync(records())
    assert written == 3 and [problem.startswith(told) for problem in problems] == [True] * bool(told)
    assert {run.info.status for run in runs()[0]} == {"FINISHED"}


def test_a_run_is_told_with_what_its_stage_began_with(workplace):
    start = tracking.Start(tracking.settings("train", "isometric", "mnist-5k"), {"commit": "c" * 40, "dirty": "false"})
    (workplace / "params.yaml").write_text((ROOT / "params.yaml").read_text().replace("epochs: 86", "epochs: 7"))
    assert tracking.log(record(workplace), start=start)
    (run,), _ = runs()
    assert run.data.params["training.epochs"] == "86" and run.data.tags["commit"] == "c" * 40


def test_without_git_a_run_has_no_commit(workplace, monkeypatch):
    monkeypatch.setenv("GIT_DIR", str(workplace / "none"))
    assert tracking.git_tags() == {}
    monkeypatch.setenv("PATH", str(workplace))
    assert tracking.git_tags() == {}


def test_a_lost_database_is_rebuilt(workplace):
    assert in_a_process(workplace).wait(timeout=120) == 0
    (workplace / "mlflow.db").unlink()  # by another process, as in life: MLflow keeps a database it has open
    assert tracking.sync([record(workplace)]) == (1, 0, [])


@pytest.mark.parametrize(
    "uri",
    ["http://127.0.0.1:9", "sqlite:////proc/nothing/mlflow.db", "nonsense://x"],
    ids=["dead server", "no folder", "unknown"],
)
def test_an_unreachable_mlflow_is_reported_and_nothing_else(workplace, monkeypatch, capsys, uri):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert tracking.log(record(workplace)) is False
    told = capsys.readouterr().err
    assert f"tracking: MLflow at {uri} failed" in told and "going on without" in told and "Traceback" not in told


def test_a_queued_copy_logs_to_the_main_checkout(workplace, monkeypatch):
    copy = workplace / "copy"
    copy.mkdir()
    (copy / "params.yaml").write_text((workplace / "params.yaml").read_text())
    monkeypatch.chdir(copy)
    monkeypatch.setenv("DVC_ROOT", str(workplace))
    monkeypatch.setenv("DVC_EXP_NAME", "sly-fox")
    assert tracking.log(record(workplace))
    assert (workplace / "mlflow.db").exists() and not (copy / "mlflow.db").exists()
    (run,), _ = runs()
    assert run.data.tags["experiment"] == "sly-fox"
    assert run.info.artifact_uri.startswith(workplace.as_uri())


@pytest.mark.slow
def test_several_processes_on_a_fresh_database(workplace):
    processes = [in_a_process(workplace) for _ in range(4)]
    assert [p.wait(timeout=120) for p in processes] == [0, 0, 0, 0]
    assert len(runs()[0]) == 4


def test_names_fit_mlflows_alphabet():
    assert tracking._name("robust.linf.0.1[x]=@,") == "robust.linf.0.1_x____"
