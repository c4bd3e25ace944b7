"""Add what ran here to the published results of the present data set: `python -m isorobust.commands.extend [--again]`.

With `--again` nothing is added: tables and figures are made anew, after a change of how results are compared or drawn.
For data sets whose runs take hours: train and attack new arms alone, and compare them, by verdicts per image, with the
published ones; or train published ones again and measure their geometry alone. Arms and studies that did not run here stay
as they are published, and provenance.json says which.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from isorobust.commands import cli, provenance
from isorobust.common import artifacts
from isorobust.common.params import SKIP, Params, Several, check
from isorobust.compare.results import measured, ran, remeasured
from isorobust.errors import UserError
from isorobust.schema import validate

SHARED = ("seeds", "network", "training", "attack", "geometry", "compare")  # what all arms of a recipe have in common
STUDIES = {  # of compare.json -> what a stage writes under results/, and the recipe's blocks
    "hierarchy": ("hierarchy/attack.json", ("hierarchy", "hierarchy-attack")),
    "connectivity": ("connectivity", ("connectivity",)),
    "percolation": ("percolation.json", ("percolation", "connectivity")),
    "detection": ("detect", ("detection",)),
}
GEOMETRY = "geometry@"  # before an arm's name: that stage's results alone
PLUG_IN = ("reclassifier", "reclassifier-attack")


def refusals(record: dict[str, Any], now: dict[str, Any], made_here: list[str]) -> list[str]:
    """Why numbers made here could not stand beside the published ones: by the recipes, but for what ran here.

    `made_here`: arms, plug-ins and studies.
    """
    old, new = record["recipe"], now["recipe"]
    told = [block for block in SHARED if old[block] != new[block]]
    kept = [arm for arm, block in old["arms"].items() if block != SKIP and arm not in made_here]
    told += [f"arms.{arm}" for arm in kept if new["arms"].get(arm) != old["arms"][arm]]
    before, after = _parts(old), _parts(new)
    used_here = {block for part in made_here for block in after.get(part, ())}
    used_kept = {block for part, blocks in before.items() if part not in made_here for block in blocks}
    told += sorted(block for block in used_here & used_kept if _numbers(old[block]) != _numbers(new[block]))
    plug_ins = record.get("plug-ins", {})
    told += [f"reclassifiers.{name}" for name in plug_ins if now.get("plug-ins", {}).get(name, plug_ins[name]) != plug_ins[name]]
    sources = [{key: value for key, value in one["source"].items() if key not in ("root", "mirrors")} for one in (record, now)]
    # To draw anew what is published no image is read, so where they would come from does not matter.
    return told + (["source"] if made_here and sources[0] != sources[1] else [])


def _parts(recipe: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """The studies and plug-ins that a recipe uses -> the blocks they are made by."""
    used = {study: blocks for study, (_, blocks) in STUDIES.items() if recipe.get(study, SKIP) != SKIP}
    plug_in = recipe.get("reclassifier", SKIP)
    return used if plug_in == SKIP else {**used, **dict.fromkeys(check(Several[str], plug_in["arms"], "arms"), PLUG_IN)}


def _numbers(block: Any) -> Any:
    """A block without the list of the arms or plug-ins it is used on."""
    return {key: value for key, value in block.items() if key != "arms"} if isinstance(block, dict) else block


def changed(record: dict[str, Any]) -> list[str]:
    """Code that makes arms, and is not what it was for the record: a new objective changes it without changing the others."""
    return [name for name, found in provenance.code_hashes(without=("compare",)).items() if record["code"].get(name) != found]


def extended(record: dict[str, Any], now: dict[str, Any], tree: dict[str, Any], results: Path) -> dict[str, Any]:
    """The record of published results and what ran here; `carried`: the rest, by the commits that compared it.

    Its recipe is the old one with the blocks of what ran here. `geometry`: arms carried of which geometry is new; in later
    records, as `geometry@ARM`, carried by itself.
    """
    here = [arm for arm in tree["arms"] if ran(results, arm)]
    studies = [study for study, (place, _) in STUDIES.items() if measured(results / place)]
    geometry = [arm for arm in tree["arms"] if remeasured(results, arm)]
    older = record.get("carried", [])
    known = {name for group in older for name in group["kept"]}
    apart = {name for name in known if name.startswith(GEOMETRY)} | {f"{GEOMETRY}{arm}" for arm in record.get("geometry", [])}
    kept = [arm for arm in tree["arms"] if arm not in here]
    kept += [f"{GEOMETRY}{arm}" for arm in kept if f"{GEOMETRY}{arm}" in apart and arm not in geometry]
    kept += [s for s in STUDIES if tree[s] and s not in studies]
    groups = [{"commit": record["commit"], "runtime": record["runtime"], "kept": [k for k in kept if k not in known]}]
    groups += [{**group, "kept": [name for name in group["kept"] if name in kept]} for group in older]
    new = changed(record)
    carried = [{**group, "changed": sorted({*group.get("changed", []), *new})} for group in groups if group["kept"]]
    recipe = {**record["recipe"], "arms": {**record["recipe"]["arms"]}}
    for arm in here:
        if arm in now["recipe"]["arms"]:
            recipe["arms"][arm] = now["recipe"]["arms"][arm]
    if any(name in tree["reclassifiers"] for name in here):
        recipe |= {block: now["recipe"][block] for block in PLUG_IN}
        recipe["reclassifier"] = {**recipe["reclassifier"], "arms": " ".join(tree["reclassifiers"])}
    for study in studies:
        recipe |= {block: now["recipe"][block] for block in STUDIES[study][1]}
    return {**now, "recipe": recipe, "carried": carried} | ({"geometry": geometry} if geometry else {})


def extend(again: bool = False) -> int:
    params = Params.read()
    validate(params)
    data = params.get("data", "name")
    results, metrics = cli.RESULTS / data, cli.METRICS / data
    if not (metrics / provenance.FILE).exists():
        raise UserError(f"{metrics / provenance.FILE}: no such file; only published results with a record can be added to")
    made = [path.stem for path in sorted((results / "attack").glob("*.json")) if not artifacts.read_json(path).get("skipped")]
    published = [arm for arm in params.get("arms") if measured(metrics / "attack" / f"{arm}.json")]
    made += [f"{GEOMETRY}{arm}" for arm in published if remeasured(results, arm)]
    made += [study for study, (place, _) in STUDIES.items() if measured(results / place)]
    if again:
        results, made = results / "none", []  # where nothing ran
    elif not made:
        raise UserError(
            f"{results}: no arm was attacked or measured here, and no study run; run its stages first, as "
            "`dvc repro attack@NAME geometry@NAME`"
        )
    record, now = artifacts.read_json(metrics / provenance.FILE), provenance.here(params, data)
    if told := refusals(record, now, made):
        raise UserError(
            f"params.yaml: {', '.join(told)} of {data} differ from what its published results were made with; "
            f"run all of it anew: `dvc exp run -S data.name={data}`"
        )
    for name in changed(record):
        print(f"{name} is not what the published results were made with; the record will say so")
    print(f"{metrics}: {'comparing anew what is published' if again else 'adding ' + ', '.join(made)}")
    done = subprocess.run([sys.executable, "-m", "stages.compare", *map(str, (results, metrics, metrics))])
    if again:
        shutil.rmtree(results, ignore_errors=True)  # figures that are not committed
    if done.returncode == 0:
        tree = artifacts.read_json(metrics / "compare.json")
        provenance.save(data, extended(record, now, tree, results))
    return done.returncode


def main(argv: list[str]) -> int:
    if argv not in ([], ["--again"]):
        raise UserError(f"extend: found {' '.join(argv)}; allowed: nothing, or --again")
    return extend(again=bool(argv))


if __name__ == "__main__":
    cli.run(lambda: main(sys.argv[1:]))
