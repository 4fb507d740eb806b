#!/usr/bin/env bash
# The whole suite in one command: installs what the tests need where it is missing, checks style and types, runs pytest.
# Usage: bash tests/run.sh [pytest arguments]     (outside a virtual environment it makes one in .venv)
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
if [ "$("$python" -c 'import sys; print(sys.prefix == sys.base_prefix)')" = True ]; then
  [ -x .venv/bin/python ] || "$python" -m venv .venv
  python=.venv/bin/python
fi
"$python" -m pip install -q --disable-pip-version-check -r tests/requirements.txt

if ! command -v chromium >/dev/null && ! command -v chromium-browser >/dev/null && ! command -v google-chrome >/dev/null; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null
  else
    "$python" -m playwright install chromium
  fi
fi

"$python" -m ruff check .
"$python" -m ruff format --check .
"$python" -m mypy
# Two files at a time: much of the suite waits for processes and browsers. Threads that wait for each other must not spin meanwhile.
# A test that hangs is ended by its time limit (pyproject.toml) with the worker that runs it; it is tried once more, not again and again.
exec env OMP_WAIT_POLICY=passive "$python" -m pytest -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart=1 "$@"
