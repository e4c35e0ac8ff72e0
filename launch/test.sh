#!/usr/bin/env bash
# Lint, formatting, types and tests, in an environment of its own.
#   bash launch/test.sh [PYTEST ARGUMENTS ...]      e.g. bash launch/test.sh tests/unit -k curriculum
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
ensure_venv

ruff check .
ruff format --check .
mypy
python -m pytest "$@"
