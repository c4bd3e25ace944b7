"""The whole of params.yaml at once. Only accepts or refuses; no stage's output depends on it."""

from __future__ import annotations

import re
from collections.abc import Callable
from math import prod
from typing import Annotated, Literal, get_args

from pydantic import Field

from isorobust.attacks.settings import AttackSettings
from isorobust.common.params import SKIP, Distinct, Params, Where, check, eps_key
from isorobust.compare.settings import CompareSettings
from isorobust.connectivity.settings import MEASURED, UNTRAINED, ConnectivitySettings
from isorobust.data.settings import DataSettings, Name
from isorobust.detection.settings import DetectionSettings
from isorobust.errors import UserError, choose, found
from isorobust.fine_tuning.settings import ReclassifierSettings
from isorobust.geometry.settings import GeometrySettings
from isorobust.hierarchy.attack_settings import LevelAttack
from isorobust.hierarchy.settings import HierarchySettings
from isorobust.networks.settings import NetworkSettings
from isorobust.objectives.settings import ArmSettings, Tuned, base_of, cells, checked, twin_of, with_choice
from isorobust.percolation.settings import PercolationSettings
from isorobust.reclassifier.settings import ReclassifierAttack
from isorobust.sweep.settings import SweepSettings
from isorobust.toys.settings import Toys
from isorobust.training.settings import Seeds, TrainingSettings

TOP = {
    "data": DataSettings,
    "device": Literal["auto", "cpu", "cuda"],
    "threads": Annotated[int, Field(ge=1, le=4096)],
    "arms": Annotated[list[Name], Distinct],  # a block list: dvc.yaml runs over it
    "reclassifiers": dict[Name, str],
    "toys": Toys,
    "defaults": dict[str, dict],
    "recipes": dict[str, dict],
}
RECIPE = {
    "seeds": Seeds,
    "network": NetworkSettings,
    "training": TrainingSettings,
    "arms": dict,
    "sweep": SweepSettings,
    "geometry": GeometrySettings,
    "hierarchy": HierarchySettings | Literal["skip"],
    "hierarchy-attack": LevelAttack | Literal["skip"],
    "connectivity": ConnectivitySettings | Literal["skip"],
    "detection": DetectionSettings | Literal["skip"],
    "percolation": PercolationSettings | Literal["skip"],
    "reclassifier": ReclassifierSettings | Literal["skip"],
    "attack": AttackSettings,
    "reclassifier-attack": ReclassifierAttack | Literal["skip"],
    "compare": CompareSettings,
}
OWN = ("seeds", "network")  # what `defaults` may not hold: it tells data sets apart
DERIVED = ("strongest", "worst-case")
MOST_RADII = 6  # of the primary endpoint, three numbers each: summary.json holds at most 20
RESERVED = (SKIP, UNTRAINED, "hierarchy")  # names of files that stages write beside those of arms, and words with a meaning
MOST_CELLS = 1000  # of a sweep, each of which is trained
# `isometric` and `<base>-isometric`, each with a variant's name behind it or none: dvc.yaml wires twins by these.
TWIN = re.compile(r"(?:(?P<base>.+?)-)?isometric(?:-.+)?")


def validate(params: Params) -> None:
    """Check every block of every recipe and how they fit together. Errors: UserError naming the key."""
    values = _blocks(params.tree, TOP, params.name)
    data, arms, recipes = values["data"], values["arms"], values["recipes"]
    if "baseline" not in arms:
        raise found(f"{params.name}: arms", arms, "a list that holds baseline, on which transfer images are made")
    plug_ins = values["reclassifiers"]
    for where, names in (("arms", arms), ("reclassifiers", plug_ins)):
        for name in names:
            if name in RESERVED:
                raise found(f"{params.name}: {where}", name, f"a name other than {', '.join(RESERVED)}")
    for name, base in plug_ins.items():
        if base not in arms:
            raise found(f"{params.name}: reclassifiers.{name}", base, f"an arm of the list `arms`: {', '.join(arms)}")
        if name in arms:
            raise found(f"{params.name}: reclassifiers", name, "a name that is no arm's")
    _defaults(values["defaults"], arms, f"{params.name}: defaults")
    for name in recipes:
        if name not in data.sets:
            raise found(f"{params.name}: recipes", name, ", ".join(sorted(data.sets)))
        _recipe(params, name, arms, plug_ins)
    if data.name not in data.sets:
        raise found(f"{params.name}: data.name", data.name, ", ".join(sorted(data.sets)))
    if data.name not in recipes:
        raise UserError(
            f"{params.name}: recipes: no recipe for data.name {data.name!r}; allowed: one of {', '.join(sorted(recipes))}"
        )


def _defaults(blocks: dict[str, dict], arms: list[str], where: str) -> None:
    """Every block that recipes share and no other; what stands there is right by itself, though it need not be whole."""
    shared = {block: kind for block, kind in RECIPE.items() if block not in OWN}
    for block in blocks:
        choose(shared, block, where)
    for block, kind in shared.items():
        if block not in blocks:
            raise UserError(f"{where}: key {block!r} is missing; allowed: a mapping, {{}} if recipes share nothing of it")
        model = next((one for one in get_args(kind) if isinstance(one, type)), kind)  # without the word skip
        check(model, blocks[block], f"{where}.{block}", whole=False)
    for arm in {**dict.fromkeys(arms), **blocks["arms"]}:
        _listed(arm, arms, blocks["arms"], f"{where}.arms", "{} if recipes share nothing of it")
        if check(dict, blocks["arms"][arm], f"{where}.arms.{arm}"):
            check(ArmSettings, blocks["arms"][arm], f"{where}.arms.{arm}", whole=False)


def _recipe(params: Params, name: str, arms: list[str], plug_ins: dict[str, str]) -> None:
    where = f"{params.name}: recipes.{name}"
    values = _blocks(params.whole(name), RECIPE, where, lambda block: lambda path: params.where(name, block, path))
    check(dict, params.tree["recipes"][name]["arms"], f"{where}.arms")  # says of every arm whether it is used; no defaults
    for arm in {**dict.fromkeys(arms), **values["arms"]}:
        _listed(arm, arms, values["arms"], f"{where}.arms", f"{{}} for what stands in `defaults`, or {SKIP}")
    for arm in arms:
        if values["arms"][arm] != SKIP:
            _arm(arm, values["arms"], lambda *path: params.where(name, "arms", path))
    used = [arm for arm in arms if values["arms"][arm] != SKIP]
    for block in ("connectivity", "detection"):
        for arm in [] if values[block] == SKIP else values[block].arms:
            if arm not in MEASURED:
                raise found(params.where(name, block, ["arms"]), arm, f"the arms of the stage: {', '.join(MEASURED)}")
    untrained = [block for block in ("connectivity", "detection") if values[block] != SKIP and UNTRAINED in values[block].arms]
    needed = [*(["hierarchy"] if values["hierarchy"] != SKIP else []), *(f"{block}.arms ({UNTRAINED})" for block in untrained)]
    if "baseline" not in used and needed:
        raise UserError(f"{where}.arms.baseline: found {SKIP} beside {', '.join(needed)}, which need it; allowed: a block")
    if values["percolation"] != SKIP and values["connectivity"] == SKIP:
        raise UserError(f"{where}.percolation: found a block beside connectivity: {SKIP}; allowed: {SKIP}, or both blocks")
    _compare(values["compare"], values["attack"], used, lambda *path: params.where(name, "compare", path))
    for block in ("hierarchy", "reclassifier"):
        if (values[block] == SKIP) != (values[f"{block}-attack"] == SKIP):
            raise UserError(f"{where}: {block} and {block}-attack: found {SKIP} for one; allowed: both or neither")
    _reclassifier(values["reclassifier"], plug_ins, used, where)


def _listed(arm: str, arms: list[str], blocks: dict, where: str, otherwise: str) -> None:
    """The list `arms` and the keys of a mapping by arm must be the same: dvc.yaml names each of them."""
    if arm not in arms:
        raise found(where, arm, f"the arms of the list `arms`: {', '.join(arms)}")
    if arm not in blocks:
        raise UserError(f"{where}.{arm}: missing; allowed: an objective's settings, {otherwise}")


def base_by_name(twin: str) -> str | None:
    """The arm whose twin an arm of this name is; None for a name that is no twin's."""
    match = TWIN.fullmatch(twin)
    return (match["base"] or "baseline") if match else None


def _arm(name: str, blocks: dict, where: Callable[..., str]) -> None:
    block = checked(name, blocks, where)
    if twin_of(blocks[name]) is None:
        return
    base = base_of(name, blocks, where)
    if (named := base_by_name(name)) != blocks[name]["twin_of"]:
        allowed = "only twins named isometric, <base>-isometric or one of these with -<variant>" if named is None else named
        raise found(where(name, "twin_of"), blocks[name]["twin_of"], f"{allowed} (dvc.yaml wires twins by their names)")
    if not isinstance(block, Tuned):
        return
    if (count := prod(len(values) for lists in (block.grid, block.isometry_grid) for values in lists.values())) > MOST_CELLS:
        raise found(where(name), f"a grid of {count} cells", f"at most {MOST_CELLS}")
    for cell in cells(block):
        with_choice(base, cell, where(name))


def _reclassifier(block, plug_ins: dict[str, str], used: list[str], where: str) -> None:
    """Only plug-ins that are listed, on arms that the recipe uses."""
    for name in [] if block == SKIP else block.arms:
        if name not in plug_ins:
            raise found(f"{where}.reclassifier.arms", name, f"a name of the mapping `reclassifiers`: {', '.join(plug_ins)}")
        if plug_ins[name] not in used:
            raise found(f"{where}.reclassifier.arms", name, f"a plug-in whose base ({plug_ins[name]}) the recipe uses")


def _compare(compare: CompareSettings, attack: AttackSettings, used: list[str], where: Callable[..., str]) -> None:
    """The endpoints must be among what the recipe trains and attacks."""
    for key, arm in (("reference", compare.reference), ("primary.arm", compare.primary.arm)):
        if arm not in used:
            raise found(where(*key.split(".")), arm, f"an arm that the recipe uses: {', '.join(used)}")
    if compare.primary.arm == compare.reference:
        raise found(where("primary", "arm"), compare.primary.arm, "another arm than the reference")
    chosen, primary = attack.attacks.chosen(), compare.primary
    if len(primary.eps) > MOST_RADII:
        allowed = f"at most {MOST_RADII} radii, so that summary.json keeps within 20 numbers"
        raise found(where("primary", "eps"), primary.eps, allowed)
    names = [*chosen, *DERIVED]
    if primary.attack not in names:
        raise found(where("primary", "attack"), primary.attack, ", ".join(names))
    if primary.attack == "worst-case" and attack.worst_case is None:
        raise found(where("primary", "attack"), primary.attack, "an attack that runs (the recipe has no attack.worst-case)")
    grid = (
        attack.worst_case.eps
        if primary.attack == "worst-case"
        else getattr(chosen.get(primary.attack), "eps", None) or attack.eps
    )
    allowed = [eps_key(eps) for norm, eps in grid.points() if norm == primary.norm]
    for eps in primary.eps:
        if eps_key(eps) not in allowed:
            raise found(
                where("primary", "eps"),
                eps_key(eps),
                f"a radius at which {primary.attack} runs under {primary.norm}: {', '.join(allowed)}",
            )


def _blocks(tree: dict, kinds: dict, where: str, place: Callable[[str], Where] | None = None) -> dict:
    """Every key known and present, every value of its kind; `place`: from a key to where its value is said to stand."""
    for key in tree:
        if key not in kinds:
            close = ", ".join(kinds)
            raise UserError(f"{where}: unknown key {key!r}; allowed: {close}")
    for key in kinds:
        if key not in tree:
            raise UserError(f"{where}: key {key!r} is missing; allowed: all of {', '.join(kinds)}")
    place = place or (lambda key: f"{where}: {key}")
    return {key: check(kind, tree[key], place(key)) for key, kind in kinds.items()}
