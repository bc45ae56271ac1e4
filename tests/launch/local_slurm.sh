#!/usr/bin/env bash
# Slurm with N virtual nodes n1, n2, … on this machine: local_slurm.sh start DIR N | stop DIR
#
# Needs root, slurm-wlm and munge. Clients find it by SLURM_CONF=DIR/slurm.conf.
set -euo pipefail

dir=$(realpath -m "$2")
host=$(hostname -s)

configure() { # configure NODES: writes slurm.conf, with ports that are likely free
    local port=$((20000 + RANDOM % 8000)) number
    cat <<CONF
ClusterName=tests
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge.socket
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool-%n
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/slurmd-%n.log
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
JobRequeue=1
KillWait=20
ReturnToService=0
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
CONF
    for number in $(seq "$1"); do
        echo "NodeName=n$number NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + number))" \
            "CPUs=2 RealMemory=2000 State=UNKNOWN"
    done
    echo "PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE State=UP"
}

start() { # start NODES: returns when all nodes are idle
    local number
    mkdir -p "$dir/state" "$dir/log"
    configure "$1" >"$dir/slurm.conf"
    export SLURM_CONF=$dir/slurm.conf
    (umask 077 && head -c 1024 /dev/urandom >"$dir/munge.key")
    munged --force --key-file="$dir/munge.key" --socket="$dir/munge.socket" \
        --pid-file="$dir/munged.pid" --log-file="$dir/log/munged.log" \
        --seed-file="$dir/munge.seed" 2>/dev/null
    slurmctld -c
    for number in $(seq "$1"); do
        slurmd -N "n$number"
    done
    for _ in $(seq 60); do
        [ "$(sinfo --noheader --Node --states=idle 2>/dev/null | wc -l)" != "$1" ] || return 0
        sleep 0.5
    done
    echo "local_slurm.sh: no idle nodes after 30 s; see $dir/log" >&2
    return 1
}

stop() { # ends the daemons that start began
    local file
    for file in "$dir"/slurmd-*.pid "$dir/slurmctld.pid" "$dir/munged.pid"; do
        [ ! -f "$file" ] || kill "$(cat "$file")" 2>/dev/null || true
    done
}

case $1 in
    start) start "$3" ;;
    stop) stop ;;
esac
