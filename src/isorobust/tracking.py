"""The mirror of results in MLflow. The only importer of mlflow; never stops or changes a run.

JSON files are the truth: a run is written from the result files after the stage has ended, by the
same function that rebuilds missing runs (a stage restored from DVC's run cache runs no Python).
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from isorobust.common import artifacts
from isorobust.common.params import Params
from isorobust.errors import UserError

EXPERIMENT = "isorobust"


class Start(NamedTuple):
    """What a stage began with, in the words of its run: parameters that concern it, and the tags of the commit."""

    settings: dict[str, str]
    git: dict[str, str]


class Record(NamedTuple):
    """One stage execution: its metric file, its curves (CSV by epoch), further files, and facts for tags.

    `facts` are versions, threads and device; a stage that picks no device leaves them to this module. `recipe`: what
    the result was made with, as provenance.json has it; without one, the recipe in params.yaml.
    """

    stage: str
    arm: str | None
    data: str
    metrics: Path
    curves: Path | None = None
    extra: tuple[Path, ...] = ()
    facts: dict[str, str] = {}
    recipe: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        return "-".join(part for part in (self.stage, self.arm, self.data) if part)

    def key(self) -> str:
        """Names the result: same stage, arm, data set and metric bytes, same key."""
        return artifacts.digest(self.stage, self.arm or "", self.data, Path(self.metrics).read_bytes())[:16]


def root() -> Path:
    """The main checkout, also from a queued experiment's temporary copy."""
    return Path(os.environ.get("DVC_ROOT") or ".").resolve()


def uri() -> str:
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root() / 'mlflow.db'}"


def log(record: Record, started: float | None = None, restored: bool = False, start: Start | None = None) -> bool:
    """Write one MLflow run; report a failure on stderr and go on. Gives whether it was written.

    `start`: parameters and commit as they were when the stage began; without it, as they are.
    """
    try:
        _write(record, started or time.time(), restored, start)
        return True
    except Exception as error:  # tracking is a side channel: whatever breaks in it must not reach the run
        reason = str(error).strip().split("\n", 1)[0]
        print(f"tracking: MLflow at {uri()} failed ({type(error).__name__}: {reason[:200]}); going on without", file=sys.stderr)
        return False


def sync(records: list[Record]) -> tuple[int, int, list[str]]:
    """(written, already there, what is wrong with the rest): one run for every record whose result has none yet.

    Errors: those of MLflow.
    """
    client, experiment = _client()
    known = set()
    token = None
    while True:
        page = client.search_runs([experiment], "attributes.status = 'FINISHED'", max_results=1000, page_token=token)
        known |= {run.data.tags.get("isorobust.key") for run in page}
        token = page.token
        if not token:
            break
    written, there, problems = 0, 0, []
    for record in records:
        try:
            if record.key() in known:
                there += 1
            else:
                _write(record, time.time(), restored=True)
                written += 1
        except UserError as error:  # a file that is damaged, a recipe that is gone: the others can be written
            problems.append(f"{record.name}: {error}")
    return written, there, problems


def _client():
    """(client, experiment id). Two processes on a fresh database break it, so the first set-up happens under a lock."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    warnings.filterwarnings("ignore", module="mlflow")
    import logging

    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    from mlflow import MlflowClient

    state = root() / ".isorobust"
    state.mkdir(exist_ok=True)
    with open(state / "mlflow.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        client = MlflowClient(tracking_uri=uri())
        found = client.get_experiment_by_name(EXPERIMENT)
        if found is not None:
            return client, found.experiment_id
        local = uri().startswith("sqlite:")
        # Absolute, because a relative one would be lost with a queued experiment's temporary copy.
        return client, client.create_experiment(EXPERIMENT, (root() / "mlruns").as_uri() if local else None)


def _write(record: Record, started: float, restored: bool, start: Start | None = None) -> None:
    """Errors: UserError, before anything is written, for a record whose files or recipe cannot be read."""
    from mlflow.entities import Metric, Param

    now = int(time.time() * 1000)
    start = start or Start(settings(record.stage, record.arm, record.data, record.recipe), git_tags())
    chosen = [Param(key, value) for key, value in start.settings.items()]
    points = [Metric(key, value, now, 0) for key, value in _numbers(artifacts.read_json(record.metrics)).items()]
    try:
        for row in artifacts.read_csv(record.curves) if record.curves else []:
            step = int(row["epoch"])
            points += [Metric(f"epoch/{k}", float(v), now, step) for k, v in row.items() if k != "epoch" and v]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{record.curves}: no table of numbers by epoch ({error}); run `dvc repro` again") from None
    client, experiment = _client()
    tags = {
        "mlflow.runName": record.name,
        "mlflow.source.name": f"stages.{record.stage}",
        "isorobust.key": record.key(),
        "stage": record.stage,
        "arm": record.arm or "",
        "data": record.data,
        "restored": str(restored).lower(),
        "experiment": os.environ.get("DVC_EXP_NAME", ""),
        **start.git,
        **(record.facts if record.facts or restored else _process()),
    }
    run = client.create_run(experiment, start_time=int(started * 1000), tags=tags).info.run_id
    status = "FAILED"
    try:
        for first in range(0, len(chosen), 100):
            client.log_batch(run, params=chosen[first : first + 100])
        for first in range(0, len(points), 1000):
            client.log_batch(run, metrics=points[first : first + 1000])
        for path in (record.metrics, record.curves, *record.extra):
            if path is not None and Path(path).exists():
                client.log_artifact(run, str(path))
        status = "FINISHED"
    finally:
        client.set_terminated(run, status)


def _process() -> dict[str, str]:
    """Facts about this process, for a stage that works on the CPU alone."""
    import torch

    from isorobust.common.runtime import describe

    return describe(torch.device("cpu"))


def settings(stage: str, arm: str | None, data: str, recipe: dict[str, Any] | None = None) -> dict[str, str]:
    """The parameters that concern a stage, flattened; values cut at MLflow's 6,000 characters.

    `recipe`: instead of the one in params.yaml. Errors: UserError without either.
    """
    params = Params.read()
    recipe = recipe or (params.get("toys", data) if stage == "toys" else params.whole(data))
    plug_ins = params.get("reclassifiers")
    blocks = (
        recipe
        if stage == "toys"
        else {"base": plug_ins[arm], **{key: recipe.get(key) for key in ("reclassifier", "reclassifier-attack", "training")}}
        if arm in plug_ins
        else {
            "download": {"data": params.get("data", "sets").get(data)},
            "train": {key: recipe.get(key) for key in ("network", "training", "seeds")} | _blocks_of(arm, recipe["arms"]),
            "sweep": {key: recipe.get(key) for key in ("sweep", "network", "training")} | _blocks_of(arm, recipe["arms"]),
            "attack": {"attack": recipe.get("attack")},
            "connectivity": {"connectivity": recipe.get("connectivity")},
            "detect": {"detection": recipe.get("detection")},
            "percolation": {key: recipe.get(key) for key in ("percolation", "connectivity", "network", "training", "seeds")},
            "geometry": {"geometry": recipe.get("geometry")},
            "train-hierarchy": {key: recipe.get(key) for key in ("hierarchy", "training", "seeds")},
            "attack-hierarchy": {"hierarchy-attack": recipe.get("hierarchy-attack")},
            "compare": {key: recipe.get(key) for key in ("compare", "network", "training", "arms", "connectivity")}
            | {"tables": {"arms": params.get("arms"), "reclassifiers": plug_ins}},
        }[stage]
    )
    return {_name(key): str(value)[:6000] for key, value in _flatten(blocks).items()}


def _blocks_of(arm: str | None, arms: dict[str, Any]) -> dict[str, Any]:
    """An arm's block, and of a twin that of the arm whose numbers it shares."""
    base = arms[arm].get("twin_of") if isinstance(arms.get(arm), dict) else None
    return {"arm": arms.get(arm), **({} if base is None else {"base": arms.get(base)})}


def _numbers(tree: Any) -> dict[str, float]:
    return {_name(k): float(v) for k, v in _flatten(tree).items() if isinstance(v, (int, float))}


def _flatten(node: Any, path: str = "") -> dict[str, Any]:
    if isinstance(node, dict):
        return {k: v for key, child in node.items() for k, v in _flatten(child, f"{path}.{key}" if path else str(key)).items()}
    return {path: node}


def _name(key: str) -> str:
    """MLflow's alphabet: letters, digits, and `_ - . : /` and space."""
    return "".join(c if c.isalnum() or c in "_-.:/ " else "_" for c in key)


def git_tags() -> dict[str, str]:
    """The commit that the code of this run came from and whether files differed from it; nothing where git cannot say."""

    def ask(*words: str) -> str:
        return subprocess.run(["git", *words], capture_output=True, text=True, timeout=30, check=True).stdout.strip()

    try:
        changed = ask("status", "--porcelain", "--untracked-files=no")
        return {"commit": ask("rev-parse", "HEAD"), "dirty": str(bool(changed)).lower()}
    except (OSError, subprocess.SubprocessError):
        return {}
