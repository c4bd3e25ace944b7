"""Check all of params.yaml without running anything: `python -m isorobust.commands.check`.

Every stage does so too, but a misspelt key that no stage depends on runs none.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from isorobust.commands import cli
from isorobust.common.params import Params
from isorobust.schema import validate


def main(argv: Sequence[str] = ()) -> None:
    cli.no_arguments("check", argv)
    validate(Params.read())
    print("params.yaml: valid")


if __name__ == "__main__":
    cli.run(lambda: main(sys.argv[1:]))
