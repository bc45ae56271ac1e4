"""Which command a pretraining runs on which node: pure functions of the environment.

Every way of launching comes down to one `gliomoe.launch.torchrun` a node. Where this script is the
only one, it reaches the other nodes through `srun` or a remote shell, which start the script again
there with what a node has to know. Ways, the first that applies:

1. `GLIOMOE_HOSTFILE`: a remote shell to every host.
2. `GLIOMOE_NODES`, or PyTorchJob's `PET_NNODES`: this is one of so many nodes.
3. Inside a step of `srun`: this is one of the step's nodes.
4. In a Slurm allocation of several nodes: `srun` to every node.
5. Otherwise this machine alone.
"""

import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gliomoe.data_shards.errors import UsageError

SCRIPT = Path(__file__).with_name("pretrain.sh")
OBEY_STDIN = "GLIOMOE_STDIN"
"""Environment variable that makes a node take signals as lines of standard input."""

_SSH = "ssh -o BatchMode=yes -o ServerAliveInterval=15 -o ServerAliveCountMax=4"
_CARRIED = ("GLIOMOE_", "NCCL_", "GLOO_", "TORCH", "OMP_", "CUDA_", "DS_", "UCX_", "FI_")
_CARRIED_WHOLE = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH")
_FIRST_SPECIAL_STEP = 0xFFFFFFF0
"""Slurm numbers batch scripts and interactive shells, which are no steps of `srun`, from here."""


@dataclass(frozen=True)
class Machine:
    """What this machine answers when asked."""

    gpus: Callable[[], int]
    """Number of GPUs."""
    scontrol: Callable[..., str]
    """Output of `scontrol` with these arguments."""
    resolves: Callable[[str], bool]
    """Whether a host's name has an address."""


@dataclass(frozen=True)
class Launch:
    """Commands to run, and how they are told to stop."""

    way: Literal["here", "srun", "ssh"]
    """`here`: one command that takes this process's place."""
    commands: tuple[tuple[str, ...], ...]
    names: tuple[str, ...] = ("",)
    """Where each command runs, for messages."""


@dataclass(frozen=True)
class Rendezvous:
    """Where the nodes meet."""

    nodes: int
    rank: int
    address: str
    port: int
    run: str
    """Keeps a node left over from another run out."""


def plan(env: Mapping[str, str], args: Sequence[str], machine: Machine) -> Launch:
    """What to run here for `launch/pretrain.sh ARGS`.

    Raises:
        UsageError: If the environment contradicts itself or lacks something.
    """
    if "TORCHELASTIC_RUN_ID" in env:
        raise UsageError(
            "torchrun starts processes and this script starts torchrun: run the script once a "
            "node, or give torchrun --module gliomoe.launch.worker pretrain"
        )
    if "GLIOMOE_HOSTFILE" in env:
        return over_ssh(env, args)
    meeting = None
    if "GLIOMOE_NODES" in env or "PET_NNODES" in env:
        meeting = given_rendezvous(env)
    elif in_step(env):
        meeting = slurm_rendezvous(env, machine)
    elif (nodes := _number(env, "SLURM_JOB_NUM_NODES", default=1)) > 1:
        return through_srun(env, args, nodes)
    return Launch("here", (agent(args, processes(env, machine), meeting, env),))


def agent(
    args: Sequence[str], count: int, meeting: Rendezvous | None, env: Mapping[str, str]
) -> tuple[str, ...]:
    """The command of one node.

    Args:
        args: Arguments of `gliomoe pretrain`.
        count: Processes of this node.
        meeting: Where the nodes meet; None or one node for this machine alone.
        env: May limit the time to meet, `GLIOMOE_JOIN`.
    """
    if meeting is None or meeting.nodes == 1:
        where = ["--standalone"]
    else:
        where = ["--rdzv-backend", "static", "--rdzv-id", meeting.run]
        where += ["--nnodes", str(meeting.nodes), "--node-rank", str(meeting.rank)]
        where += ["--master-addr", meeting.address, "--master-port", str(meeting.port)]
        patience = _number(env, "GLIOMOE_JOIN", default=300)
        where += ["--rdzv-conf", f"timeout={patience}"]
    work = ["--module", "gliomoe.launch.worker", "pretrain", *args]
    start = [sys.executable, "-m", "gliomoe.launch.torchrun"]
    return (*start, *where, "--nproc-per-node", str(count), *work)


def processes(env: Mapping[str, str], machine: Machine) -> int:
    """Processes of this node: as told, else one for each GPU, else 1."""
    if env.get("PET_NPROC_PER_NODE", "").isdigit() and "GLIOMOE_PROCESSES" not in env:
        return _number(env, "PET_NPROC_PER_NODE")
    return _number(env, "GLIOMOE_PROCESSES", default=machine.gpus() or 1)


def given_rendezvous(env: Mapping[str, str]) -> Rendezvous:
    """From variables that the user, PyTorchJob (`PET_…`) or an Indexed Job of Kubernetes set."""
    nodes = _number(env, "GLIOMOE_NODES", "PET_NNODES")
    if nodes == 1:
        return Rendezvous(1, 0, "", 0, "")
    rank = _number(env, "GLIOMOE_NODE_RANK", "PET_NODE_RANK", "JOB_COMPLETION_INDEX", least=0)
    if rank >= nodes:
        raise UsageError(f"node rank {rank} of {nodes} nodes: ranks count from 0")
    address = _text(env, "MASTER_ADDR", "PET_MASTER_ADDR")
    port = _number(env, "MASTER_PORT", "PET_MASTER_PORT")
    return Rendezvous(nodes, rank, address, port, env.get("GLIOMOE_RUN_ID", "gliomoe"))


def in_step(env: Mapping[str, str]) -> bool:
    """Whether `srun` started this process."""
    step = env.get("SLURM_STEP_ID", "")
    return step.isdigit() and int(step) < _FIRST_SPECIAL_STEP


def slurm_rendezvous(env: Mapping[str, str], machine: Machine) -> Rendezvous:
    """From the step that this process belongs to."""
    nodes = _number(env, "SLURM_STEP_NUM_NODES")
    if _number(env, "SLURM_STEP_NUM_TASKS") != nodes:
        raise UsageError(
            f"srun started {env['SLURM_STEP_NUM_TASKS']} tasks on {nodes} nodes: give it "
            "--ntasks-per-node=1, each starts the processes of its node"
        )
    listed = machine.scontrol("show", "hostnames", _text(env, "SLURM_STEP_NODELIST"))
    job, step = _number(env, "SLURM_JOB_ID"), _number(env, "SLURM_STEP_ID", least=0)
    restart = _number(env, "SLURM_RESTART_COUNT", default=0, least=0)
    return Rendezvous(
        nodes,
        _number(env, "SLURM_NODEID", least=0),
        slurm_address(listed.split()[0], machine),
        slurm_port(job, restart, step),
        f"{job}.{restart}.{step}",
    )


def slurm_address(node: str, machine: Machine) -> str:
    """The name of a node, or its address as Slurm knows it where the name means nothing."""
    if machine.resolves(node):
        return node
    described = machine.scontrol("show", "node", node, "--oneliner").split()
    found = [word.removeprefix("NodeAddr=") for word in described if word.startswith("NodeAddr=")]
    if not found:
        raise UsageError(f"node {node}: its name does not resolve and Slurm knows no address")
    return found[0]


def slurm_port(job: int, restart: int, step: int) -> int:
    """A port below the range of outgoing connections, another one for every restart and step.

    The tasks of an array are jobs of their own, with numbers that follow each other.
    """
    return 10_000 + (61 * job + 7 * restart + step) % 20_000


def through_srun(env: Mapping[str, str], args: Sequence[str], nodes: int) -> Launch:
    """The script once on every node that Slurm gives now."""
    command = ["srun", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1"]
    # Nodes stop together and may take a moment longer one than another; a lost one is waited for.
    command += ["--kill-on-bad-exit=0", "--wait=60", "--export=ALL"]
    if cpus := env.get("SLURM_CPUS_PER_TASK"):  # steps do not take it over by themselves
        command.append(f"--cpus-per-task={cpus}")
    return Launch("srun", ((*command, str(SCRIPT), *args),), ("srun",))


def over_ssh(env: Mapping[str, str], args: Sequence[str]) -> Launch:
    """The script on every host of the host file, in the same folder and environment."""
    hosts = read_hosts(Path(env["GLIOMOE_HOSTFILE"]))
    shell = shlex.split(env.get("GLIOMOE_SSH", _SSH))
    port = _number(env, "MASTER_PORT", default=10_000 + os.getpid() % 20_000)
    carried = {
        name: value
        for name, value in sorted(env.items())
        if name.startswith(_CARRIED) or name in _CARRIED_WHOLE
    }
    carried |= {"GLIOMOE_NODES": str(len(hosts)), OBEY_STDIN: "1"}
    carried |= {"MASTER_ADDR": hosts[0][0], "MASTER_PORT": str(port)}
    commands = []
    for rank, (host, slots) in enumerate(hosts):
        told = carried | {"GLIOMOE_NODE_RANK": str(rank)}
        if slots:
            told["GLIOMOE_PROCESSES"] = str(slots)
        told.pop("GLIOMOE_HOSTFILE", None)
        command = ["env", "-u", "GLIOMOE_HOSTFILE", *(f"{k}={v}" for k, v in told.items())]
        there = (
            f"cd {shlex.quote(os.getcwd())} && exec {shlex.join([*command, str(SCRIPT), *args])}"
        )
        commands.append((*shell, host, there))
    return Launch("ssh", tuple(commands), tuple(host for host, _ in hosts))


def read_hosts(path: Path) -> list[tuple[str, int]]:
    """Hosts of a file with lines `host [slots=N]`, and their processes, 0 where not given.

    Raises:
        UsageError: If it cannot be read, names no host or one twice.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such host file (GLIOMOE_HOSTFILE)")
    hosts: dict[str, int] = {}
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        name, _, slots = (words[1] if len(words) > 1 else "slots=0").partition("=")
        if len(words) > 2 or name != "slots" or not slots.isdigit() or words[0].startswith("-"):
            raise UsageError(f"{path}, line {number}: expected `host` or `host slots=N`: {line}")
        if words[0] in hosts:
            raise UsageError(f"{path}, line {number}: {words[0]} is there twice")
        hosts[words[0]] = int(slots)
    if not hosts:
        raise UsageError(f"{path}: names no host")
    return list(hosts.items())


def _text(env: Mapping[str, str], *names: str) -> str:
    """The first of these variables that is set."""
    for name in names:
        if env.get(name):
            return env[name]
    raise UsageError(f"{' or '.join(names)} is not set; see launch/CLUSTERS.md")


def _number(env: Mapping[str, str], *names: str, default: int | None = None, least: int = 1) -> int:
    """The first of these variables that is set, as a whole number."""
    given = {name: env[name] for name in names if env.get(name)}
    if not given and default is not None:
        return default
    text = _text(env, *names)
    if not text.isdigit() or int(text) < least:
        name = next(iter(given))
        raise UsageError(f"{name}={text}: must be a whole number from {least} on")
    return int(text)
