#!/usr/bin/env bash
# All checks and tests: bash launch/test.sh [arguments of pytest]
# Makes .venv with pinned versions if it is not there. Under 20 minutes on 2 cores, which it uses
# both (-n 0: one process, as a debugger needs it).
set -euo pipefail
cd "$(dirname "$0")/.."
extras=test,compiler
. launch/setup_venv.sh

ruff check .
ruff format --check .
mypy
python -m pytest -n 2 "$@"
