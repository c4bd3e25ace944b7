"""Where committed results came from, and whether code or recipe have changed since.

`python -m isorobust.commands.provenance write` records, for the data set that params.yaml names,
commit, recipe, hashes of the code, versions, threads and device; `... stale` tells which results
are out of date. The data set in dvc.lock needs no record: `dvc status` knows.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import yaml

from isorobust.commands import cli
from isorobust.common import artifacts
from isorobust.common.params import SKIP, Params, Several, check
from isorobust.errors import UserError
from isorobust.schema import validate

FILE = "provenance.json"


def code_hashes(pipeline: Path = Path("dvc.yaml"), without: Collection[str] = ()) -> dict[str, str]:
    """File -> hash of every code file that a stage of dvc.yaml depends on, but for those `without`.

    The toys have no part in a data set's results.
    """
    stages = yaml.safe_load(pipeline.read_text(encoding="utf-8"))["stages"]
    deps = {Path(dep) for name, stage in stages.items() if name not in ("toys", *without) for dep in _deps(stage)}
    code = [dep for dep in deps if dep.parts[0] in ("src", "stages") or dep.name.startswith("requirements")]
    files = sorted({file for dep in code for file in (dep.glob("*.py") if dep.is_dir() else [dep])})
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest()[:16] for file in files}


def _deps(stage: dict[str, Any]) -> Iterator[str]:
    """The deps of a stage, or of every entry of a foreach that brings fields of its own."""
    entries = stage.get("foreach")
    for entry in entries.values() if isinstance(entries, dict) else [None]:
        fields = entry if isinstance(entry, dict) else {}
        for dep in stage.get("do", stage)["deps"]:
            for field, value in fields.items():
                dep = dep.replace(f"${{item.{field}}}", value)
            yield dep


def recipe(params: Params, data: str) -> dict[str, Any]:
    """All of params.yaml that a data set's results depend on."""
    whole, bases = params.whole(data), params.get("reclassifiers")
    used = [] if whole["reclassifier"] == SKIP else check(Several[str], whole["reclassifier"]["arms"], "reclassifier.arms")
    plug_ins = {name: bases[name] for name in used}
    return {"source": params.get("data", "sets", data), "recipe": whole, "plug-ins": plug_ins, "threads": params.get("threads")}


def locked_data() -> str | None:
    """The data set whose outputs dvc.lock describes."""
    lock = Path("dvc.lock")
    if not lock.exists():
        return None
    stages = yaml.safe_load(lock.read_text(encoding="utf-8")).get("stages", {})
    return stages.get("compare", {}).get("params", {}).get("params.yaml", {}).get("data.name")


def write() -> None:
    params = Params.read()
    validate(params)
    data = params.get("data", "name")
    cli.made_here(data)
    save(data, here(params, data))


def here(params: Params, data: str) -> dict[str, Any]:
    """The record of what this checkout makes. Errors: UserError if the code is not committed."""
    from isorobust.common.runtime import describe, prepare

    changed = git("status", "--porcelain", "--untracked-files=all", "--", "src", "stages", "requirements*.txt")
    if changed:
        raise UserError(f"the code differs from the commit; commit it first, so that the record names it:\n{changed}")
    runtime = describe(prepare(params.get("device"), params.block(int, "threads")))
    return {"commit": git("rev-parse", "HEAD"), **recipe(params, data), "code": code_hashes(), "runtime": runtime}


def save(data: str, record: dict[str, Any]) -> None:
    artifacts.write_json(cli.METRICS / data / FILE, record)
    print(f"{cli.METRICS / data / FILE}: written, commit {record['commit'][:12]}")


def reasons(record: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs between a record and the present checkout, in lines; files by folder."""
    told = _by_folder("changed", [file for file in record["code"] if now["code"].get(file) != record["code"][file]])
    told += _by_folder("new", [file for file in now["code"] if file not in record["code"]])
    for group in record.get("carried", []):
        told += _by_folder(f"{', '.join(group['kept'])} older than", group["changed"])
    known = [key for key in ("source", "recipe", "plug-ins", "threads") if key in record]
    return told + [f"params.yaml: {key} changed" for key in known if record[key] != now[key]]


def _by_folder(title: str, files: list[str]) -> list[str]:
    """The title and a line for each folder; nothing without a file."""
    folders: dict[str, list[str]] = {}
    for file in files:
        folders.setdefault(str(Path(file).parent), []).append(Path(file).name)
    return [f"{title}:", *(f"  {folder}: {', '.join(names)}" for folder, names in folders.items())] if files else []


def stale() -> int:
    params, locked, count = Params.read(), locked_data(), 0
    validate(params)
    for data in cli.data_sets():
        path = cli.METRICS / data / FILE
        if data == locked:
            print(f"{data}: described by dvc.lock; `dvc status` tells")
            continue
        if not path.exists():
            told, commit = ["no provenance.json"], "unknown"
        else:
            record = artifacts.read_json(path)
            known = data in params.tree["recipes"]
            now = {"code": code_hashes(), **recipe(params, data)} if known else None
            told, commit = reasons(record, now) if now else ["its recipe is gone"], record["commit"][:12]
        count += bool(told)
        print(f"{data}: {'STALE' if told else 'current'} (commit {commit})" + "".join(f"\n  {line}" for line in told))
    return 1 if count else 0


def git(*words: str) -> str:
    """What git answers. Errors: UserError where there is none, and with its message."""
    try:
        answer = subprocess.run(["git", *words], capture_output=True, text=True)
    except OSError as error:
        raise UserError(f"git: {error.strerror}; this needs git") from None
    if answer.returncode:
        raise UserError(f"git {' '.join(words)}: {answer.stderr.strip()}")
    return answer.stdout.strip()


if __name__ == "__main__":
    actions = {"write": write, "stale": stale}
    word = sys.argv[1] if len(sys.argv) == 2 else ""
    cli.run(actions[word] if word in actions else lambda: sys.exit("usage: provenance write | stale"))
