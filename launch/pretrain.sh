#!/usr/bin/env bash
# Pretrain on one machine or many. Which processes start where is decided in launch/nodes.py.
set -euo pipefail
trap 'exit 75' INT TERM USR1  # until Python takes over, nothing has begun

usage() {
    cat <<'HELP'
usage: launch/pretrain.sh PRESET_OR_TOML [--section.key VALUE …]

Runs `gliomoe pretrain` with the same arguments in one process for each GPU, or in one on CPU, of
every node. The same command continues a run. Exit codes: 0 finished, 1 a problem, 2 the call was
wrong, 75 interrupted by SIGTERM, SIGUSR1 or Ctrl-C with a checkpoint written: start it again.

This machine alone
    launch/pretrain.sh gliomoe_tiny --data.train shards --run.out runs/tiny
Slurm: a batch job that requeues itself; inside an allocation the plain command uses all its nodes
    sbatch --nodes=4 --gpus-per-node=8 launch/slurm/pretrain.sbatch gliomoe_base …
    salloc --nodes=2 launch/pretrain.sh gliomoe_base …
Hosts reached over ssh, one a line as `host` or `host slots=PROCESSES`
    GLIOMOE_HOSTFILE=hosts launch/pretrain.sh gliomoe_base …
A scheduler of your own: the same on every node, with its number
    GLIOMOE_NODES=2 GLIOMOE_NODE_RANK=0 MASTER_ADDR=node0 MASTER_PORT=29500 launch/pretrain.sh …
Kubernetes: an Indexed Job, or a PyTorchJob with this script as its command
    kubectl apply -f launch/k8s/pretrain.yaml

Environment: GLIOMOE_PROCESSES  processes of a node, instead of one for each GPU
             GLIOMOE_GRACE      seconds to write the checkpoint after a signal, default 600
             GLIOMOE_JOIN       seconds to wait until all nodes are there, default 300
launch/CLUSTERS.md has the rest, and what to look at when it hangs.
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
exec "$python" -m gliomoe.launch.start "$@"
