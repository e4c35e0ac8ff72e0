#!/usr/bin/env bash
# Installs, prepares the data, trains the quickstart on two data-parallel ranks of this host, and draws its curves.
#   bash launch/quickstart.sh [KEY=VALUE ...]       e.g. bash launch/quickstart.sh schedule.steps=50
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
ensure_venv

python -m data_prep all configs/data/quickstart.yaml
rlpt train configs/quickstart.yaml "$@" --nproc 2
run="$(rlpt config show configs/quickstart.yaml "$@" |
  python -c 'import sys, yaml; c = yaml.safe_load(sys.stdin); print(c["run_dir"] or "runs/" + c["name"])')"
rlpt report "$run"

cat <<END

Look at:
  $run/learning.png      the curves: held-out text, held-out success of each task, curriculum, reward, speed
  $run/summary.json      start and end of each figure
  $run/evaluation.json   all evaluations, with intervals
  $run/metrics.jsonl     every step
Then: rlpt experiment quickstart_control   the same recipe without episodes, beside it
END
