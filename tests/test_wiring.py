"""dvc.yaml, params.yaml and the code say the same."""

from __future__ import annotations

import ast
import functools
import json
import os
import re
import runpy
import subprocess
import sys

import pytest
import yaml
from closure import EXEMPT, ROOT, closure, imports, path_of

from isorobust.common.params import Params
from isorobust.connectivity.settings import MEASURED
from stages import (
    attack,
    attack_hierarchy,
    attack_reclassifier,
    compare,
    connectivity,
    detect,
    download,
    edits,
    geometry,
    percolation,
    sweep,
    toys,
    train,
    train_hierarchy,
    train_reclassifier,
)

PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text())
ARMS = yaml.safe_load((ROOT / "params.yaml").read_text())["arms"]
PLUG_INS = list(yaml.safe_load((ROOT / "params.yaml").read_text())["reclassifiers"])


def stages():
    """Stage -> its body. Where the entries of a foreach bring their own numbers, one stage for each kind of entry."""
    found = {}
    for name, stage in PIPELINE["stages"].items():
        each = stage.get("foreach")
        entries = each if isinstance(each, dict) and all(isinstance(v, dict) for v in each.values()) else {}
        for entry in {entry["stage"]: entry for entry in entries.values()}.values():
            text = json.dumps(stage["do"])
            for field, value in {f"item.{f}": v for f, v in entry.items()}.items():
                text = text.replace(f"${{{field}}}", value)
            found[entry["stage"].replace("_", "-")] = json.loads(text)
        if not entries:
            found[name] = stage.get("do", stage)
    return found


STAGES = stages()
CODE = sorted(p.relative_to(ROOT) for folder in ("src", "stages") for p in (ROOT / folder).rglob("*.py"))
TUNED = PIPELINE["stages"]["sweep"]["foreach"]
ATTACKS = ("attack", "attack-hierarchy", "attack-reclassifier", "detect", "geometry")
EVALUATION = (*ATTACKS, "connectivity", "percolation")  # the stages that see the test images
each_stage = pytest.mark.parametrize("name", STAGES)


def module_of(stage):
    return re.match(r"python -m (\S+)", stage["cmd"])[1]


def files_of(entries):
    return [next(iter(e)) if isinstance(e, dict) else e for e in entries]


def test_the_stages_are_those_promised():
    shared = {"download", "sweep", "attack", "geometry", "connectivity", "detect", "percolation", "toys", "compare"}
    shared |= {"train-hierarchy", "attack-hierarchy"}
    assert set(PIPELINE["stages"]) == {*shared, *(f"train-{arm}" for arm in (*ARMS, *PLUG_INS))}
    attacked = PIPELINE["stages"]["attack"]["foreach"]
    assert list(attacked) == [*ARMS, *PLUG_INS]
    for arm, entry in attacked.items():
        assert entry["stage"] == ("attack_reclassifier" if arm in PLUG_INS else "attack")
        assert entry["beside"] == (f"${{reclassifiers.{arm}}}" if arm in PLUG_INS else "baseline")
    for name in ("download", "train-baseline", "train-isometric", "train-adversarial", "attack", "compare"):
        assert module_of(STAGES[name]) == f"stages.{name.replace('-', '_')}"


def code_deps(name):
    """Declared Python files; a folder stands for all of its modules."""
    files = set()
    for dep in STAGES[name]["deps"]:
        if dep.startswith(("src/", "stages/")):
            inside = [p for p in (ROOT / dep).glob("*.py") if p.name != "__init__.py"]
            files |= {str(p.relative_to(ROOT)) for p in inside} or {dep}
    return files


@each_stage
def test_code_deps_are_the_import_closure(name):
    assert code_deps(name) == closure(module_of(STAGES[name])), "declare exactly the files that the stage imports"


@pytest.mark.slow
def test_every_stage_refuses_a_mistake_anywhere_in_params_before_any_work(tmp_path):
    text = (ROOT / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text.replace("  mnist:  # the published", "  mnist:\n    seds: []  # the published"))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    commands = {module_of(stage): stage["cmd"].split()[3:] for stage in STAGES.values()}
    started = {
        module: subprocess.Popen(
            [sys.executable, "-m", module, *words], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
        )
        for module, words in sorted(commands.items())
    }
    told = {module: (process.communicate()[1], process.returncode) for module, process in started.items()}
    assert len(told) > 12
    for module, (text, status) in told.items():
        assert (status, text.count("\n")) == (1, 1), f"{module}: {text}"
        assert text.startswith("error: params.yaml: recipes.mnist: unknown key 'seds'; allowed: seeds"), module
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


@pytest.mark.parametrize("module", sorted({module_of(stage) for stage in STAGES.values()}))
def test_a_stage_without_its_arguments_tells_its_usage(module, monkeypatch):
    monkeypatch.setattr(sys, "argv", [module])
    with pytest.raises(SystemExit, match=rf"error: found 0 arguments; usage: python -m {module} [A-Z_ \[\]]+$"):
        runpy.run_path(str(ROOT / f"{module.replace('.', '/')}.py"), run_name="__main__")


@each_stage
def test_runtime_pins_are_a_dep(name):
    assert "requirements.txt" in STAGES[name]["deps"]
    assert ("requirements-torchattacks.txt" in STAGES[name]["deps"]) == (name in ATTACKS)


def test_exempt_modules_write_no_output():
    """They may not import what writes results, save the tracking mirror, which writes to MLflow alone."""
    for module in EXEMPT:
        assert path_of(module), f"{module} is gone"
        tree = ast.parse(path_of(module).read_text())
        called = {n.func.attr for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)}
        assert not called & {"write_bytes", "write_text", "write_json", "write_csv", "write_npz", "save"}


CHOICE = {"objective": {}, "isometry": {"beta": 0.1}}
LOADERS = {
    "download": lambda params: download.load(params),
    "attack": lambda params: attack.load(params),
    "attack-reclassifier": lambda params: attack_reclassifier.load(params),
    "connectivity": lambda params: connectivity.load(params),
    "detect": lambda params: detect.load(params),
    "percolation": lambda params: percolation.load(params),
    "geometry": lambda params: geometry.load(params),
    "compare": lambda params: compare.load(params),
    "sweep": lambda params: sweep.load(params, "jacobian-isometric-tuned"),
    "train-hierarchy": lambda params: train_hierarchy.load(params),
    "attack-hierarchy": lambda params: attack_hierarchy.load(params),
    "toys": lambda params: toys.load(params, "torus"),
    **{f"train-{arm}": lambda params, arm=arm: train.load(params, arm, CHOICE) for arm in ARMS},
    **{f"train-{name}": lambda params: train_reclassifier.load(params) for name in PLUG_INS},
}


@each_stage
def test_declared_params_are_those_read(name):
    params = Params.read(ROOT / "params.yaml")
    data = "cifar10" if name == "train-isometric-features" else "mnist"  # between them they use every arm
    params.tree["data"]["name"] = data
    LOADERS[name](params)
    keys = {"${data.name}": data, "${item}": "torus" if name == "toys" else "jacobian", "${key}": "jacobian-isometric-tuned"}
    declared = {re.sub(r"\$\{[a-z.]+\}", lambda match: keys[match[0]], key) for key in STAGES[name]["params"]}
    # Keys and paths hold the data set's name; that alone re-runs a stage when it changes.
    assert declared - {"data.name"} == set(params.asked) - {"data.name"}


def leaves(node, path):
    """Paths to the values below one that are no mapping."""
    return [leaf for key, child in node.items() for leaf in leaves(child, (*path, key))] if isinstance(node, dict) else [path]


NAMED = {  # what `base.run` is called with by stages that do not say so themselves
    **{name: (name, "jacobian") for name in ("attack", "geometry")},
    **{name: (name, "baseline") for name in ("connectivity", "detect")},
    **{f"train-{arm}": ("train", arm) for arm in (*ARMS, *PLUG_INS)},
    "attack-reclassifier": ("attack", "reclassifier"),
    "sweep": ("sweep", "jacobian-isometric-tuned"),
}


@each_stage
def test_an_edit_of_any_number_that_a_stage_reads_is_noticed_while_it_runs(name, tmp_path, monkeypatch):
    data = "cifar10" if name == "train-isometric-features" else "mnist"
    params = Params.read(ROOT / "params.yaml")
    tree = params.tree
    tree["data"]["name"] = data
    LOADERS[name](params)
    asked = list(params.asked)
    monkeypatch.setattr(Params, "read", classmethod(lambda cls: params))
    monkeypatch.chdir(tmp_path)  # no code there, which is not what this is about

    def seen():
        return edits.state(*NAMED.get(name, (name, None)), "torus" if name == "toys" else data).settings

    before, whole, missed = seen(), params.whole(data), []
    for path in sorted({leaf for key in asked for leaf in leaves(*below(tree, key.split(".")))}):
        *above, last = path
        node = functools.reduce(dict.__getitem__, above, tree)
        kept, node[last] = node[last], "another"
        concerns = path[:3] == ("data", "sets", data) if path[0] == "data" else True
        if path[0] in ("recipes", "defaults"):
            concerns = params.whole(data) != whole
        if concerns and seen() == before:
            missed.append(".".join(path))
        node[last] = kept
    assert not missed


def below(tree, keys):
    """(value, path) that a list of keys leads to."""
    return functools.reduce(dict.__getitem__, keys, tree), tuple(keys)


def test_every_key_of_a_recipe_is_read_by_a_stage():
    declared = {key for stage in STAGES.values() for key in stage["params"]}
    recipe = Params.read(ROOT / "params.yaml").tree["recipes"]["mnist"]
    for block in recipe:
        keys = [f"arms.{arm}" for arm in recipe["arms"]] if block == "arms" else [block]
        for key in keys:
            assert f"recipes.${{data.name}}.{key}" in declared, f"no stage reads {key}"
            if block == "arms":
                assert f"defaults.{key}" in declared, f"no stage reads what {key} is"
    for block in Params.read(ROOT / "params.yaml").tree["defaults"]:
        assert f"defaults.{block}" in declared, f"no stage reads the defaults of {block}"


def test_the_sweep_covers_every_tuned_arm_with_its_base():
    params = Params.read(ROOT / "params.yaml")
    for data in params.tree["recipes"]:
        blocks = {arm: block for arm, block in params.whole(data)["arms"].items() if "isometry_grid" in block}
        assert {arm: block["twin_of"] for arm, block in blocks.items()}.items() <= TUNED.items()
    for arm in TUNED:
        assert f"results/${{data.name}}/sweep/{arm}.json" in STAGES[f"train-{arm}"]["deps"]


@each_stage
def test_only_evaluation_sees_the_test_images(name):
    sees = any("test.npz" in dep for dep in STAGES[name]["deps"])
    assert sees == (name in EVALUATION)
    assert not any(dep.rstrip("/").endswith("data/${data.name}") for dep in STAGES[name]["deps"])


def test_compare_takes_every_arms_files_and_is_alone_in_metrics():
    results = "results/${data.name}"
    wanted = {
        f"{results}/{f}"
        for arm in ARMS
        for f in (f"train/{arm}.json", f"train/{arm}.csv", f"attack/{arm}.json", f"attack/{arm}.npz", f"geometry/{arm}.json")
    }
    wanted |= {f"{results}/sweep/{arm}.{ending}" for arm in TUNED for ending in ("json", "csv")}
    wanted |= {f"{results}/hierarchy/attack.json", f"{results}/percolation.json"}
    wanted |= {
        f"{results}/{part}/{arm}.{ending}"
        for part in ("connectivity", "detect")
        for arm in MEASURED
        for ending in ("json", "npz")
    }
    for name in PLUG_INS:
        wanted |= {f"{results}/train/{name}{end}" for end in (".json", ".csv", "-ablation.csv")}
        wanted |= {f"{results}/attack/{name}{end}" for end in (".json", ".npz")}
    assert wanted == {d for d in STAGES["compare"]["deps"] if d.startswith("results/")}
    published = {f"metrics/${{data.name}}/{part}" for part in ("train", "attack", "geometry", "connectivity", "detect")}
    outs = files_of(STAGES["compare"]["outs"])
    assert published <= set(outs)
    for entry in STAGES["compare"]["outs"]:
        tracked = files_of([entry])[0].startswith("metrics/")
        assert isinstance(entry, dict) == tracked and (
            not tracked or next(iter(entry.values())) == {"cache": False, "persist": True}
        )
    for name, stage in STAGES.items():
        if name not in ("compare", "toys"):
            written = files_of([*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])])
            assert not any(path.startswith("metrics/") for path in written)
            assert not any(isinstance(e, dict) for e in stage.get("outs", []))


def test_top_level_metrics_and_plots_are_what_compare_writes():
    outs = set(files_of(STAGES["compare"]["outs"]))
    plotted = {path for plot in PIPELINE["plots"] for body in plot.values() for path in body["y"]}
    assert set(PIPELINE["metrics"]) | plotted <= outs
    assert PIPELINE["metrics"] == ["metrics/${data.name}/summary.json"]


def test_no_path_of_the_pipeline_stands_in_code():
    for file in CODE:
        if "commands" in file.parts:
            continue  # they work on the published folders, which they name once
        for node in ast.walk(ast.parse((ROOT / file).read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not re.fullmatch(r"(data|models|results|metrics)/\S*", node.value), f"{file}: {node.value}"


FORBIDDEN = {  # who may import what: (package, modules allowed to)
    "mlflow": {"isorobust.tracking"},
    "torchattacks": {  # apart from the attacks on single images, those on whole batches; the benchmark measures against it
        "isorobust.attacks.minimal",
        "isorobust.attacks.perturb",
        "isorobust.reclassifier.whole_batches",
        "isorobust.commands.bench",
    },
    "matplotlib": {"isorobust.drawing"},
    "safetensors": {"isorobust.networks.checkpoint", "isorobust.common.skipped"},
    "dvc": set(),
}


def module_name(file):
    parts = file.with_suffix("").parts
    return ".".join(parts[1:] if parts[0] == "src" else parts)


@pytest.mark.parametrize("package", FORBIDDEN)
def test_one_module_per_outside_tool(package):
    users = set()
    for file in CODE:
        for node in ast.walk(ast.parse((ROOT / file).read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.split(".")[0] == package for name in names):
                users.add(module_name(file))
    assert users <= FORBIDDEN[package]


def test_imports_go_one_way():
    """The library does not import stages; domain code neither tracks nor builds paths; training and attacks stay apart."""
    for file in CODE:
        name, used = module_name(file), imports(ROOT / file)
        if name.startswith("isorobust"):
            assert not any(m.startswith("stages") for m in used), name
        if not name.startswith(("isorobust.commands", "stages")):
            assert "isorobust.tracking" not in used, name
        if name.startswith(("isorobust.attacks", "isorobust.evaluation")):
            assert not any(m.startswith(("isorobust.training", "isorobust.compare")) for m in used), name
        if name.startswith("isorobust.training"):
            assert not any(m.startswith(("isorobust.attacks", "isorobust.evaluation", "isorobust.compare")) for m in used), name


def test_importing_the_package_imports_nothing_heavy():
    code = (
        "import sys; sys.path.insert(0, 'src'); import isorobust; "
        "print([m for m in ('torch', 'numpy', 'mlflow') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True).stdout.strip() == "[]"


def test_every_committed_name_in_gitignore_covers_the_pipelines_outputs():
    ignored = (ROOT / ".gitignore").read_text().split()
    assert {"/data/", "/models/", "/results/"} <= set(ignored)
