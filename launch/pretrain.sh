#!/usr/bin/env bash
# Pretrain on this machine: one process for each GPU, or a single one on CPU, started by torchrun.
set -euo pipefail

usage() {
    cat <<'HELP'
usage: launch/pretrain.sh PRESET_OR_TOML [--section.key VALUE …]

Runs `gliomoe pretrain` with the same arguments in one process for each GPU, or in one on CPU.
The same command continues a run. Exit codes: 0 finished, 1 a problem, 2 the call was wrong,
75 interrupted by SIGTERM, SIGUSR1 or Ctrl-C with a checkpoint written: start it again.

Environment: GLIOMOE_PROCESSES  processes to start, instead of one for each GPU
             GLIOMOE_GRACE      seconds to write the checkpoint after a signal, default 600

Example: launch/pretrain.sh gliomoe_tiny --data.train shards --run.out runs/tiny
HELP
}

if [[ $# -eq 0 ]]; then
    usage >&2
    exit 2
fi
if [[ $1 == -h || $1 == --help ]]; then
    usage
    exit 0
fi

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
if [[ -x $root/.venv/bin/python ]]; then
    python=$root/.venv/bin/python
else
    python=$(command -v python3 || command -v python)
fi

processes=${GLIOMOE_PROCESSES:-}
if [[ -z $processes ]]; then
    processes=$(nvidia-smi --list-gpus 2>/dev/null | grep -c '^GPU' || true)
    ((processes > 0)) || processes=1
fi

exec "$python" -m gliomoe.launch.torchrun --standalone --nproc-per-node "$processes" \
    --signals-to-handle SIGTERM,SIGINT,SIGUSR1 --shutdown-timeout "${GLIOMOE_GRACE:-600}" \
    --module gliomoe.launch.worker pretrain "$@"
