#!/usr/bin/env bash
# All checks and tests: bash launch/test.sh [arguments of pytest]
# Makes .venv with pinned versions if it is not there. Uses 2 cores (-n 0: one process, as a debugger
# needs it). --quick: the core of every room alone, for each commit.
set -euo pipefail
cd "$(dirname "$0")/.."
extras=test,compiler,docs
unset PYTHONDONTWRITEBYTECODE  # set in many containers: every worker and command would compile all sources anew
. launch/setup_venv.sh

ruff check .
ruff format --check .
mypy
python -m pytest -n 2 --dist worksteal "$@"
