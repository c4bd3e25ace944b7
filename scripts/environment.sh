#!/usr/bin/env bash
# Prints the folder with the environment's programs, after making sure that it holds the pinned packages.
# An active environment is used as it is; otherwise $VENV (default .venv) is created and filled once.
set -euo pipefail
cd "$(dirname "$0")/.."

active=${VIRTUAL_ENV:-${CONDA_PREFIX:-}}
if [ -n "$active" ] && [ -z "${VENV:-}" ]; then
    "$active/bin/python" scripts/missing.py >&2
    echo "$active/bin"
    exit
fi

venv=${VENV:-.venv}
want=$(cat requirements*.txt constraints.txt | cksum | cut -d' ' -f1)
stamp="$venv/isorobust-$want"
if [ ! -e "$stamp" ]; then
    python=${PYTHON:-$(command -v python3.11 || command -v python3 || true)}
    if [ -z "$python" ] || ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        echo "error: Python 3.11 or later is needed; found ${python:-none}. Set PYTHON=/path/to/python3.11" >&2
        exit 1
    fi
    mkdir -p "$venv"
    exec 9> "$venv/isorobust.lock"
    flock 9  # clones that share it do not fill it side by side
fi
if [ ! -e "$stamp" ]; then
    echo "setting up $venv (about 2 minutes and 6 GB)" >&2
    "$python" -m venv "$venv"
    rm -f "$venv"/isorobust-*  # what other pins left behind no longer holds once these are installed
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r requirements.txt -r requirements-dev.txt -c constraints.txt >&2
    # Its own requirements cannot be met beside a current mlflow, and it does not import them.
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-torchattacks.txt >&2
    touch "$stamp"
fi
(cd "$venv/bin" && pwd)
