"""Check all of params.yaml without running anything: `python -m isorobust.commands.check`.

Every stage does so too, but a misspelt key that no stage depends on runs none.
"""

from __future__ import annotations

from isorobust.commands import cli
from isorobust.common.params import Params
from isorobust.schema import validate


def main() -> None:
    validate(Params.read())
    print("params.yaml: valid")


if __name__ == "__main__":
    cli.run(main)
