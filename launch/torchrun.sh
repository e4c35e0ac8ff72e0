#!/usr/bin/env bash
# Trains a recipe on several hosts: run this on each of them, with the same arguments and its own NODE_RANK.
#   NNODES=2 NODE_RANK=0 MASTER_ADDR=host0 bash launch/torchrun.sh CONFIG [KEY=VALUE ...]
# NNODES (1) hosts; NODE_RANK of this one, from 0; MASTER_ADDR and MASTER_PORT (29500) where host 0 listens;
# NPROC_PER_NODE ranks on each host (default: one a GPU, else 1); MAX_RESTARTS (0) of the whole group after a failure.
set -euo pipefail
if [ $# -lt 1 ]; then
  echo "usage: NNODES=N NODE_RANK=I MASTER_ADDR=HOST bash launch/torchrun.sh CONFIG [KEY=VALUE ...]" >&2
  exit 2
fi
NNODES="${NNODES:-1}"
MASTER_PORT="${MASTER_PORT:-29500}"
if [ "$NNODES" -gt 1 ]; then
  : "${NODE_RANK:?NODE_RANK is missing: the number of this host, from 0 to $((NNODES - 1))}"
  : "${MASTER_ADDR:?MASTER_ADDR is missing: the name or address of host 0, as all hosts see it}"
  if [ "$NODE_RANK" -lt 0 ] || [ "$NODE_RANK" -ge "$NNODES" ]; then
    echo "error: NODE_RANK=$NODE_RANK is not from 0 to $((NNODES - 1)) (NNODES=$NNODES)" >&2
    exit 2
  fi
fi
config="$1" && shift
case "$config" in /*) ;; *) [ ! -f "$config" ] || config="$PWD/$config" ;; esac
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
ensure_venv

if [ -z "${NPROC_PER_NODE:-}" ]; then
  NPROC_PER_NODE="$(python -c 'import torch; print(max(1, torch.cuda.device_count()))')"
fi
# rlpt.launcher is torchrun that ends with the exit code of the rank that failed first.
exec python -m rlpt.launcher --nnodes "$NNODES" --node-rank "${NODE_RANK:-0}" --nproc-per-node "$NPROC_PER_NODE" \
  --master-addr "${MASTER_ADDR:-127.0.0.1}" --master-port "$MASTER_PORT" --max-restarts "${MAX_RESTARTS:-0}" \
  -m rlpt.train "$config" "$@"
