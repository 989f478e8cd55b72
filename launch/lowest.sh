#!/usr/bin/env bash
# The tests with the lowest versions that setup.cfg allows: bash launch/lowest.sh [arguments of pytest]
# Makes .venv-lowest, of some 6 GB, since torch of these versions brings CUDA along. Warnings are no errors here:
# old packages warn of what newer ones have changed. One test is left out: NVRTC of CUDA 12.4, which comes with torch
# 2.6, writes the drawing kernel for sm_80 and for sm_90 in two ways.
set -euo pipefail
cd "$(dirname "$0")/.."
python="${PYTHON:-python3}"
[ -x .venv-lowest/bin/python ] || "$python" -m venv .venv-lowest
"$python" - > .venv-lowest/lowest.txt <<'LOWEST'
import configparser

read = configparser.ConfigParser()
read.read("setup.cfg", encoding="utf-8")
needs = read["options"]["install_requires"] + read["options.extras_require"]["test"]
print("\n".join(line.replace(">=", "==") for line in needs.split("\n") if ">=" in line and ";" not in line))
LOWEST
.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check -c .venv-lowest/lowest.txt -e ".[test,compiler]"
shown="ignore:.* of its light at z = .* is missing from the map:UserWarning"  # as in pyproject.toml
one="tests/numerics/test_kernels_nvrtc.py::test_ptx_is_plain_ieee_arithmetic[sm_80-sm_90-draw.cu-]"
.venv-lowest/bin/python -m pytest -n 2 --deselect "$one" --dist worksteal -o "filterwarnings=default
$shown" "$@"
