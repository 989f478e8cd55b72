# Sourced by quickstart.sh and test.sh: make .venv with pinned versions, or use the one that is
# there, and activate it. $extras: what to install besides what the machine needs, e.g. "test".
# Needs Python 3.10 or newer; $PYTHON chooses one.

python="${PYTHON:-python3}"
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
  echo "streamtrain needs Python 3.10 or newer; set PYTHON to one" >&2
  exit 2
fi

if [ -z "${CXX:-}" ] && ! command -v c++ g++ clang++ >/dev/null 2>&1; then
  echo "no C++ compiler found: installing the ziglang wheel"
  extras="$extras,compiler"
fi

wanted="$(cat constraints.txt setup.cfg pyproject.toml | cksum) $extras"
if [ "$(cat .venv/streamtrain-installed 2>/dev/null)" != "$wanted" ]; then
  echo "installing into .venv (a minute or two)"
  [ -x .venv/bin/python ] || "$python" -m venv .venv
  .venv/bin/python -m pip install --quiet --disable-pip-version-check \
    -c constraints.txt -e ".${extras:+[${extras#,}]}"
  cuda="$(.venv/bin/python -c 'import torch; print((torch.version.cuda or "").split(".")[0])')"
  if [ -n "$cuda" ] && command -v nvidia-smi >/dev/null 2>&1; then
    .venv/bin/python -m pip install --quiet --disable-pip-version-check \
      -c constraints.txt -e ".[cuda$cuda]"
  fi
  echo "$wanted" > .venv/streamtrain-installed
fi
# shellcheck disable=SC1091
. .venv/bin/activate
