# Sourced by the other scripts: the repository root as working directory, a virtual environment that holds rlpt, and
# the environment that its ranks expect. Safe to source again: it installs only when pyproject.toml has changed.
# RLPT_VENV names another environment folder, PYTHON another interpreter to make it with.

cd "$(dirname "${BASH_SOURCE[0]}")/.."

# What rlpt/launch/environment.yaml says for all runs.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"     # several ranks share a host's cores
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1        # or a restarted group meets the stale keys of the one before
export PYTHONHASHSEED=0 TOKENIZERS_PARALLELISM=false PYTHONUNBUFFERED=1
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

VENV="${RLPT_VENV:-.venv}"
case "$VENV" in /*) ;; *) VENV="$PWD/$VENV" ;; esac

ensure_venv() {
  local python="${PYTHON:-python3}" stamp="$VENV/rlpt-install.sha256" wanted
  if [ ! -x "$VENV/bin/python" ]; then
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
      { echo "error: $python is older than 3.11; name a newer one, e.g. PYTHON=python3.12" >&2; return 2; }
    echo "making $VENV with $("$python" --version)"
    "$python" -m venv "$VENV"
  fi
  wanted="$("$VENV/bin/python" -c 'import hashlib, pathlib
print(hashlib.sha256(pathlib.Path("pyproject.toml").read_bytes()).hexdigest())')"
  if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    echo "installing into $VENV (a minute or two)"
    # torch first and by an exact version: pip then takes a local CPU build of that version where one is at hand (a
    # wheel folder, an index of CPU wheels) and the CUDA build elsewhere, instead of the newest torch that it can find.
    "$VENV/bin/python" -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("torch") is None)' ||
      "$VENV/bin/python" -m pip install --quiet "torch==2.13.0"
    "$VENV/bin/python" -m pip install --quiet -e '.[test,report]'
    echo "$wanted" > "$stamp"
  fi
  export PATH="$VENV/bin:$PATH"
}
