"""What `launch/pretrain.sh` runs: asks the machine, plans, and sees the commands through."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import takewhile

from gliomoe.data_shards.errors import DataError, UsageError
from gliomoe.launch.exit_codes import INTERRUPTED, worst
from gliomoe.launch.nodes import Launch, Machine, in_step, plan
from gliomoe.launch.restarts import check_progress
from gliomoe.launch.torchrun import heeded
from gliomoe.pretrain.faults.signals import end_with_parent

_PATIENCE = 60.0
"""Seconds that the other nodes have to end by themselves after one was lost."""
_GOODBYE = 10.0
"""Seconds that a remote shell has to carry the last word."""


def main(args: Sequence[str]) -> int:
    """Run `gliomoe pretrain ARGS` on all nodes; the exit code of the worst."""
    # The next command inherits this: a signal that comes now is there for its handler.
    signal.pthread_sigmask(signal.SIG_BLOCK, heeded())
    try:
        if "SLURM_JOB_ID" in os.environ and not in_step(os.environ):
            check_progress(os.environ, args)
        launch = plan(os.environ, args, Machine(count_gpus, scontrol, resolves))
    except (UsageError, DataError) as error:
        print(f"pretrain.sh: error: {error}", file=sys.stderr)
        return error.exit_code
    if launch.way == "here":
        command = launch.commands[0]
        os.execv(command[0], command)
    if not shutil.which(launch.commands[0][0]):
        print(f"pretrain.sh: error: {launch.commands[0][0]}: no such command", file=sys.stderr)
        return UsageError.exit_code
    with _signals() as asked:
        return supervise(launch, asked)


def supervise(launch: Launch, asked: list[int], patience: float = _PATIENCE) -> int:
    """Start commands, pass signals on, and wait for all of them.

    Args:
        launch: Commands.
        asked: Signals that came, which a handler appends to.
        patience: Seconds that the others have after one command failed.

    Returns:
        The worst exit code.
    """
    nodes = [_start(launch, command) for command in launch.commands]
    given_up: float | None = None
    while True:
        running = [node for node in nodes if node.poll() is None]
        if asked:
            asked.clear()
            _tell(nodes, "SIGUSR1")
        codes = [(name, node.returncode) for name, node in zip(launch.names, nodes, strict=True)]
        failed = [(name, code) for name, code in codes if code not in (None, 0, INTERRUPTED)]
        if failed and given_up is None:
            given_up = time.monotonic() + patience
            name, code = failed[0]
            if len(nodes) > 1:
                print(f"pretrain.sh: {name} ended with exit code {code}", file=sys.stderr)
        if given_up is not None and time.monotonic() > given_up:
            _kill(nodes)
        if not running:
            return worst(node.returncode for node in nodes)
        time.sleep(0.1)


def count_gpus() -> int:
    """GPUs that processes of this machine may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:  # an empty name or -1 hides what follows
        return len(list(takewhile(lambda name: name.strip() not in ("", "-1"), visible.split(","))))
    if not shutil.which("nvidia-smi"):
        return 0
    listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True)
    return sum(line.startswith("GPU") for line in listed.stdout.splitlines())


def scontrol(*args: str) -> str:
    """Output of Slurm's `scontrol`.

    Raises:
        UsageError: If it fails.
    """
    done = subprocess.run(["scontrol", *args], capture_output=True, text=True)
    if done.returncode:
        raise UsageError(f"scontrol {' '.join(args)}: {done.stderr.strip()}")
    return done.stdout


def resolves(host: str) -> bool:
    """Whether a host's name has an address."""
    try:
        socket.getaddrinfo(host, None)
    except socket.gaierror:
        return False
    return True


def _start(launch: Launch, command: tuple[str, ...]) -> subprocess.Popen[bytes]:
    """A command out of the terminal's reach, which ends with this process."""
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE if launch.way == "ssh" else subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=partial(end_with_parent, os.getpid(), signal.SIGTERM),
    )


def _tell(nodes: list[subprocess.Popen[bytes]], name: str) -> None:
    """Signal every node.

    SIGUSR1 stands for whatever asked to stop: `srun` would take SIGTERM for itself and kill the
    tasks. A remote shell passes no signal on, but lines.
    """
    for node in nodes:
        if node.stdin is None:
            node.send_signal(signal.Signals[name])
            continue
        with suppress(BrokenPipeError):  # it has ended
            node.stdin.write(f"{name}\n".encode())
            node.stdin.flush()


def _kill(nodes: list[subprocess.Popen[bytes]]) -> None:
    """End what is left, beyond remote shells too, and then the shells themselves."""
    _tell(nodes, "SIGKILL")
    for node in nodes:
        try:
            node.wait(_GOODBYE)
        except subprocess.TimeoutExpired:
            node.kill()


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Signals that came while the block ran."""
    asked: list[int] = []
    for number in heeded():
        signal.signal(number, lambda number, frame: asked.append(number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, heeded())
    yield asked


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
