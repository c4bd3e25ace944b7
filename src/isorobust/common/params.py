"""Reading params.yaml, and checking one block of it against a settings class.

The settings classes themselves stand beside the modules that use them, so that a new attack
setting is no dependency of training.
"""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Tag,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from isorobust.errors import UserError, choose

T = TypeVar("T")
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
Positive = Annotated[float, Field(gt=0, le=1e30)]
LONGEST = 10_000  # range of whole numbers
SKIP = "skip"  # what a recipe does not use: an arm, a measurement, an attack
Where = str | Callable[[list[str]], str]  # the name of a block, or from the path of a value below it to the value's name


class Settings(BaseModel):
    """Base of every settings class: immutable, strictly typed, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class _Loader(yaml.SafeLoader):
    """YAML 1.2 scalars, as DVC reads them: `1e-3` is a number and `on` is a word."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in rules if not tag.endswith((":bool", ":float", ":int", ":timestamp"))]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node, deep=False):
        if not isinstance(node, yaml.MappingNode):  # tagged `!!map`; the parent says what is wrong
            return super().construct_mapping(node, deep)
        keys = [key.value for key, _ in node.value]
        repeated = sorted({key for key in keys if keys.count(key) > 1})
        if repeated:
            raise UserError(f"line {node.start_mark.line + 1}: key {repeated[0]!r} is written twice; allowed: once")
        return super().construct_mapping(node, deep)


_INT, _FLOAT = r"[-+]?[0-9]+", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", _INT, "-+0123456789"),
    ("float", rf"{_FLOAT}|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+.0123456789"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), list(_first))


# PyYAML's own integer constructor reads 010 as octal; YAML 1.2 does not.
_Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(node.value))


class Params:
    """The parsed parameter file. Remembers which keys were asked for, which a test compares with dvc.yaml."""

    def __init__(self, tree: dict[str, Any], name: str = "params.yaml"):
        self.tree, self.name = tree, name
        self.asked: list[str] = []

    @classmethod
    def read(cls, path: str | Path = "params.yaml") -> Params:
        """Errors: UserError when the file is missing, is not YAML, or is not a mapping."""
        try:
            tree = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_Loader)
        except FileNotFoundError:
            raise UserError(f"{path}: no such file; run from the folder that holds it") from None
        except OSError as error:
            raise UserError(f"{path}: cannot read: {error.strerror}") from None
        except RecursionError:
            raise UserError(f"{path}: found brackets nested too deep; allowed: the form of the committed file") from None
        except (yaml.YAMLError, ValueError, KeyError, AttributeError, TypeError) as error:  # the last three: odd tags
            raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        if not isinstance(tree, dict):
            raise UserError(f"{path}: found {type(tree).__name__}; allowed: a mapping of keys to values")
        return cls(tree, Path(path).name)

    def get(self, *keys: str) -> Any:
        """The raw value at a path of keys (a key may hold dots: data-set names do).

        Errors: UserError for a key that is not there, with those that are, and for keys below what is no mapping.
        """
        self.asked.append(".".join(keys))
        node: Any = self.tree
        for depth, key in enumerate(keys):
            where = f"{self.name}: {'.'.join(keys[:depth]) or 'top level'}"
            if not isinstance(node, dict):
                raise UserError(f"{where}: found {node!r}; allowed: a mapping with the key {key!r}")
            node = choose(node, key, where)
        return node

    def block(self, kind: type[T], *keys: str) -> T:
        """The value at a path of keys, checked against a type (a Settings class, list[int], ...).

        Errors: UserError as of `get`, and for a value that does not fit, with what is allowed.
        """
        return check(kind, self.get(*keys), f"{self.name}: {'.'.join(keys)}")

    def recipe(self, kind: type[T], data: str, block: str) -> T:
        """A block of a data set's recipe, with `defaults` for what it leaves out, checked against a type."""
        self.get("recipes", data, block)
        self.get("defaults", block)
        return check(kind, self.whole(data)[block], lambda path: self.where(data, block, path))

    def arms(self, data: str, *names: str) -> dict[str, Any]:
        """Arm -> its block in a data set's recipe, unchecked, with `defaults` for what it leaves out; or `skip`.

        Without names: those of all arms.
        """
        for keys in [("arms", name) for name in names] or [("arms",)]:
            self.get("recipes", data, *keys)
            self.get("defaults", *keys)
        blocks = self.whole(data)["arms"]
        return {name: blocks[name] for name in names or blocks}

    def whole(self, data: str) -> dict[str, Any]:
        """A data set's recipe with `defaults` for what it leaves out; not counted as asked for."""
        own, defaults = choose(self.tree["recipes"], data, f"{self.name}: recipes"), self.tree["defaults"]
        recipe = {block: layered(value, defaults[block]) if block in defaults else value for block, value in own.items()}
        if isinstance(arms := own.get("arms"), dict):  # a recipe says of every arm whether it uses it
            recipe["arms"] = {arm: layered(block, defaults["arms"].get(arm, {})) for arm, block in arms.items()}
        return recipe

    def where(self, data: str, block: str, path: Sequence[str] = ()) -> str:
        """The full name of a value at a path below a recipe's block, which may stand in `defaults` alone."""
        own, key = f"recipes.{data}", ".".join([block, *path])
        shared = _stands(self.tree["defaults"], [block, *path]) and not _stands(self.tree["recipes"][data], [block, *path])
        return f"{self.name}: defaults.{key} (for {own})" if shared else f"{self.name}: {own}.{key}"


def layered(own: Any, default: Any) -> Any:
    """A block of a recipe, completed from `default` key by key; an empty one is all default, one that says `skip` stays so.

    Below the block, `skip` takes out what it stands in the place of.
    """
    if own is None:
        return default
    return _over(own, default) if isinstance(own, dict) else own


def _over(own: Any, default: Any) -> Any:
    if not isinstance(own, dict):
        return own
    below = default if isinstance(default, dict) else {}
    keys = [*below, *(key for key in own if key not in below)]
    both = {key: _over(own[key], below.get(key)) if key in own else below[key] for key in keys}
    return {key: value for key, value in both.items() if value != SKIP}


def _stands(node: Any, path: Sequence[str]) -> bool:
    for key in path:
        if isinstance(node, list) and key.isdecimal() and int(key) < len(node):
            node = node[int(key)]
        elif isinstance(node, dict) and key in node:
            node = node[key]
        else:
            return False
    return True


def check(kind: type[T], value: Any, where: Where, whole: bool = True) -> T | None:
    """Validate `value` as `kind`; None if all that is wrong is that keys are missing, where it need not be `whole`.

    Errors: UserError naming the key below `where`, what was found and what is allowed.
    """
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        problems = [problem for problem in error.errors() if whole or problem["type"] != "missing"]
        # Of a block that could be a word instead, what is wrong inside it is told, not that it is no word.
        words = [p for p in problems if p["type"] == "literal_error" and isinstance(p["input"], dict)]
        problems = [problem for problem in problems if problem not in words] or words
    if problems:
        raise UserError("\n".join(_explain(kind, value, where, problem) for problem in problems))
    return None


def _explain(kind, value: Any, where: Where, problem) -> str:
    path = _written(value, problem)
    key = ".".join([where, *path]) if isinstance(where, str) else where(path)
    match problem["type"]:
        case "extra_forbidden":
            allowed = sorted(_fields(kind, problem["loc"][:-1]))
            close = difflib.get_close_matches(path[-1], allowed, n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            return f"{key}: unknown key{hint}; allowed: {', '.join(allowed)}"
        case "missing":
            return f"{key}: missing; allowed: a value (it cannot be left out)"
        case "union_tag_invalid":
            allowed = problem["ctx"]["expected_tags"].replace("'", "")
            return f"{key}.{problem['ctx']['discriminator'].strip(chr(39))}: found {problem['ctx']['tag']!r}; allowed: {allowed}"
        case "union_tag_not_found":
            return f"{key}: key {problem['ctx']['discriminator']} is missing; it says which kind of block this is"
        case "model_type" | "model_attributes_type" | "dict_type":
            keys = ", ".join(sorted(_fields(kind, problem["loc"])))
            return f"{key}: found {problem['input']!r}; allowed: a block{f' with the keys {keys}' if keys else ''}"
    text = problem["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    return f"{key}: found {problem['input']!r}; allowed: {text}"


def _written(value: Any, problem) -> list[str]:
    """The path of a problem as the file has it: pydantic's own adds the names of the union members."""
    path = []
    for place, part in enumerate(problem["loc"], start=1):
        last_missing = place == len(problem["loc"]) and problem["type"] == "missing"
        if isinstance(value, dict) and (part in value or last_missing):
            path.append(str(part))
            value = value.get(part)
        elif isinstance(value, list) and isinstance(part, int):
            path.append(str(part))
            value = value[part]
    return path


def _fields(kind, path) -> set[str]:
    """Names of the keys allowed at `path` below `kind` (best effort through unions, optionals and mappings)."""
    kinds = [kind]
    for part in [*path, None]:
        models, queue, members = [], list(kinds), {}
        while queue:
            one = queue.pop()
            if isinstance(one, type) and issubclass(one, BaseModel):
                models.append(one)
            else:
                below = typing.get_args(one)
                members |= {arg.tag: [below[0]] for arg in below if isinstance(arg, Tag)}
                queue.extend(arg for arg in below if not isinstance(arg, str))
        if part is None:
            return {field.alias or name for model in models for name, field in model.model_fields.items()}
        tagged = [m for m in models for f in m.model_fields.values() if part in typing.get_args(f.annotation)]
        nested = [f.annotation for m in models for name, f in m.model_fields.items() if part in (name, f.alias)]
        kinds = members.get(part) or tagged or nested or models
    return set()


def _parse_eps(value: Any) -> float:
    """A radius, written as a number or a fraction of whole numbers (8/255), rounded to 4 significant digits."""
    if isinstance(value, str):
        try:
            value = float(Fraction(value.replace(" ", "")))
        except (ValueError, ZeroDivisionError, OverflowError):
            raise ValueError("a number or a fraction such as 8/255") from None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("a number or a fraction such as 8/255")
    return float(f"{float(value):.4g}")


def eps_key(eps: float) -> str:
    """The name of a radius in every file: 4 significant digits, `0.0464`."""
    return f"{eps:.4g}"


def _distinct(values: list) -> list:
    if not values:
        raise ValueError("at least one value")
    repeated = sorted({str(v) for v in values if values.count(v) > 1})
    if repeated:
        raise ValueError(f"distinct values ({', '.join(repeated)} stands more than once)")
    return values


def _listed(value: Any) -> Any:
    """A list as it is, or written in one line: `0-4 7` is 0, 1, 2, 3, 4, 7, and `0.1 8/255` is 0.1, "8/255"."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return [value]
    if not isinstance(value, str):
        return value
    items: list[Any] = []
    for word in value.split():
        if limits := re.fullmatch(r"([0-9]+)-([0-9]+)", word):
            first, last = int(limits[1]), int(limits[2])
            if not first < last <= first + LONGEST:
                raise ValueError(f"a range that rises, over at most {LONGEST:,} numbers (found {word})")
            items.extend(range(first, last + 1))
        else:
            kind = int if re.fullmatch(_INT, word) else float if re.fullmatch(_FLOAT, word) else str
            items.append(kind(word))
    return items


def _bounded(low: float, high: float, text: str):
    def inside(value: float) -> float:
        if not low < value <= high:
            raise ValueError(text)
        return value

    return inside


EpsLinf = Annotated[
    float, AfterValidator(_bounded(0, 1, "a radius above 0 and at most 1 (pixels lie in [0, 1])")), BeforeValidator(_parse_eps)
]
EpsL2 = Annotated[
    float,
    AfterValidator(_bounded(0, 100, "a radius above 0 and at most 100 (pixels lie in [0, 1])")),
    BeforeValidator(_parse_eps),
]
Distinct = AfterValidator(_distinct)
# Different values, a block list in the file or all in one line, which DVC reads faster.
Several = Annotated[list[T], BeforeValidator(_listed), Distinct]


class Grid(Settings):
    """Radii per norm."""

    linf: Several[EpsLinf] | None = None
    l2: Several[EpsL2] | None = None

    @model_validator(mode="after")
    def _some(self):
        if not (self.linf or self.l2):
            raise ValueError("radii for linf, l2 or both")
        return self

    def points(self) -> list[tuple[str, float]]:
        """All (norm, eps), L-infinity first, in rising order of eps."""
        return [(norm, eps) for norm in ("linf", "l2") for eps in sorted(getattr(self, norm) or [])]


_RADII = {"linf": TypeAdapter(EpsLinf), "l2": TypeAdapter(EpsL2)}


def radius(norm: str, value: Any) -> float:
    """A radius checked against its norm's range, for validators. Errors: ValueError."""
    try:
        return _RADII[norm].validate_python(value)
    except ValidationError as error:
        raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None


def radii(norm: str, values: Any) -> Any:
    """Several radii, in a list or in one line, each checked against its norm's range. Errors: ValueError."""
    values = _listed(values)
    return [radius(norm, value) for value in values] if isinstance(values, list) else values
