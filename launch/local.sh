#!/usr/bin/env bash
# Trains any recipe on this host: NPROC ranks (default: what the recipe's mesh asks for; with GPUs, one rank each).
#   [NPROC=N] bash launch/local.sh CONFIG [KEY=VALUE ...]
set -euo pipefail
if [ $# -lt 1 ]; then
  echo "usage: [NPROC=N] bash launch/local.sh CONFIG [KEY=VALUE ...]" >&2
  exit 2
fi
# Names of files count from where the user stands; everything else happens in the repository.
config="$1" && shift
case "$config" in /*) ;; *) [ ! -f "$config" ] || config="$PWD/$config" ;; esac
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
ensure_venv

exec rlpt train "$config" "$@" ${NPROC:+--nproc "$NPROC"}
