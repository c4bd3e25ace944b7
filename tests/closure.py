"""Which files a stage's outputs depend on: its import closure, without the modules that may not change outputs."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# May not change any output: messages, bars, the MLflow mirror, locks, checks that only accept or refuse, lazy names.
EXEMPT = (
    "isorobust.errors",
    "isorobust.progress",
    "isorobust.tracking",
    "isorobust.schema",
    "stages.base",
    "stages.edits",
)
WHOLE = ("isorobust.common", "isorobust.networks", "isorobust.attacks", "isorobust.evaluation")


def path_of(module: str) -> Path | None:
    base = ROOT / ("src" if module.split(".")[0] == "isorobust" else ".") / Path(*module.split("."))
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.exists():
            return candidate
    return None


def imports(file: Path) -> set[str]:
    """Modules of this project that a file imports anywhere, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            # `from package import name` names a module when there is one of that name.
            found |= {m if path_of(m := f"{node.module}.{alias.name}") else node.module for alias in node.names}
    return {name for name in found if name.split(".")[0] in ("isorobust", "stages")}


def closure(module: str, exempt: tuple[str, ...] = EXEMPT, whole: tuple[str, ...] = WHOLE) -> set[str]:
    """Files, relative to the root; packages' `__init__` hold no code that decides outputs and are left out.

    Who imports one module of a package in `whole` depends on all of them: DVC takes as long over each dep of each stage,
    and who needs one of these nearly always needs nearly all.
    """
    seen: set[str] = set()
    queue = [module]
    while queue:
        name = queue.pop()
        if name in seen or name in exempt:
            continue
        seen.add(name)
        queue += imports(path_of(name))
        package = name.rpartition(".")[0]
        if package in whole:
            queue += [f"{package}.{file.stem}" for file in path_of(package).parent.glob("*.py") if file.stem != "__init__"]
    files = {path_of(name) for name in seen}
    return {str(file.relative_to(ROOT)) for file in files if file.name != "__init__.py"}
