"""Name the pinned packages that this environment lacks (exit status 1) or has in another version (a remark)."""

import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

FILES = ("requirements.txt", "requirements-torchattacks.txt", "requirements-dev.txt")


def main() -> int:
    pins = [line.strip().split("==") for file in FILES for line in Path(file).read_text().splitlines() if "==" in line]
    absent = []
    for name, pinned in pins:
        try:
            if (found := version(name)) != pinned:
                print(f"remark: {name} {found}; pinned: {pinned}", file=sys.stderr)
        except PackageNotFoundError:
            absent.append(f"{name}=={pinned}")
    if absent:
        print(f"error: the active environment lacks {' '.join(absent)}; nothing was installed into it.", file=sys.stderr)
        print("  install them there (torchattacks with --no-deps), or deactivate it and let make set up .venv", file=sys.stderr)
    return bool(absent)


if __name__ == "__main__":
    sys.exit(main())
