#!/usr/bin/env bash
# The 8 ranks of one node of 4, for the run big. Written by `rlpt launch`, which writes it anew each time.
#   NODE_RANK=I MASTER_ADDR=HOST [MASTER_PORT=29500] bash /shared/project/runs/big/launch/node.sh
# NODE_RANK counts the nodes from 0; node 0 listens at MASTER_ADDR:MASTER_PORT. PET_LOCAL_ADDR says how the others reach
# this node, where its name does not.
set -euo pipefail
: "${NODE_RANK:?is missing: the number of this node, from 0 to 3}"
: "${MASTER_ADDR:?is missing: the name or address of node 0, as all nodes see it}"
MASTER_PORT="${MASTER_PORT:-29500}"
cd /shared/project

export OMP_NUM_THREADS=1
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
export PYTHONHASHSEED=0
export TOKENIZERS_PARALLELISM=false
export PYTHONUNBUFFERED=1
export NCCL_DEBUG=WARN
export TORCH_FR_BUFFER_SIZE=2000
export TORCH_NCCL_DUMP_ON_TIMEOUT=1
export TORCH_FR_DUMP_TEMP_FILE=runs/big/collectives-rank
export TORCH_NCCL_HEARTBEAT_TIMEOUT_SEC=600
export CUDA_DEVICE_MAX_CONNECTIONS=1
export NCCL_SOCKET_IFNAME=ib0

# A signal to the job reaches all its processes. Those that have no use for this one must not die of it; the launcher and
# the ranks install handlers of their own.
trap '' USR1

exec /shared/venv/bin/python \
  -m rlpt.launcher \
  --nnodes=4 \
  --node-rank="$NODE_RANK" \
  --master-addr="$MASTER_ADDR" \
  --master-port="$MASTER_PORT" \
  --rdzv-conf=timeout=900 \
  --nproc-per-node=8 \
  --max-restarts=0 \
  --signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1 \
  --shutdown-timeout=120 \
  -m rlpt.train /shared/project/runs/big/launch/config.yaml
