"""`torchrun` of one node: signals reach its processes, its exit code is that of the worst of them.

`torchrun` itself ends with 1 whatever its processes return, cannot be stopped while it waits for
other nodes, and a second signal breaks off its wait for a checkpoint. Here signals are blocked, in
the processes too until they can act on them, and a thread hands each one on. The processes leave
their exit codes in files (`gliomoe.launch.worker`). Arguments are those of `torchrun`, with
`--nproc-per-node` among them.

With `GLIOMOE_STDIN` set, lines of standard input are signals, and its end is one: a remote shell
carries lines where it carries no signals, and its death closes them.
"""

import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from argparse import Namespace
from contextlib import suppress
from pathlib import Path

import psutil

from gliomoe.launch.exit_codes import INTERRUPTED, worst
from gliomoe.launch.nodes import OBEY_STDIN
from gliomoe.launch.worker import AGENT, EXIT_CODES
from gliomoe.pretrain.faults.signals import SIGNALS

_LEVEL = "TORCH_CPP_LOG_LEVEL"


class Agent:
    """The processes of this node.

    Args:
        count: How many they are.
        folder: Where they leave their exit codes.
        grace: Seconds that they have to end after a signal.
    """

    def __init__(self, count: int, folder: Path, grace: float):
        self.count, self.folder, self.grace = count, folder, grace
        self.interrupted = False

    def exit_code(self) -> int:
        """The worst code that the processes left."""
        codes = [int(left.read_text("utf-8")) for left in self.folder.iterdir()]
        if len(codes) < self.count:  # killed, or ended before it had anything to save
            codes.append(INTERRUPTED if self.interrupted else 1)
        return worst(codes)

    def hand_on_signals(self, asking: set[signal.Signals]) -> None:
        """Wait for signals for ever; every other thread has them blocked."""
        while True:
            number = signal.sigwait(asking)
            processes = psutil.Process().children()
            if not self.interrupted:
                self.interrupted = True
                threading.Thread(target=self._lose_patience, daemon=True).start()
            for process in processes:
                with suppress(psutil.NoSuchProcess):  # it has ended
                    process.send_signal(number if number in SIGNALS else signal.SIGTERM)
            if not processes:  # other nodes are waited for, which Python cannot break off
                self._leave()

    def obey_stdin(self) -> None:
        """Take signals as lines."""
        # Not sys.stdin, whose lock a thread that waits would keep while the interpreter ends.
        while names := os.read(0, 1024).decode().split():
            for name in names:
                os.kill(os.getpid(), signal.Signals[name])
        os.kill(os.getpid(), signal.SIGTERM)

    def _lose_patience(self) -> None:
        """Kill what does not end."""
        time.sleep(self.grace)
        for process in psutil.Process().children():
            print(f"torchrun: {process.pid} did not stop in {self.grace:g} s", file=sys.stderr)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def _leave(self) -> None:
        """End this process from another thread than its first."""
        code = self.exit_code()
        shutil.rmtree(self.folder)
        os._exit(code)


def main() -> int:
    """Run `torchrun` with the arguments of this process; the worst exit code of its processes."""
    args, asking = sys.argv[1:], heeded()
    signal.pthread_sigmask(signal.SIG_BLOCK, asking)
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {EXIT_CODES: folder, AGENT: str(os.getpid())}
        grace = float(os.environ.get("GLIOMOE_GRACE", "600"))
        agent = Agent(int(args[args.index("--nproc-per-node") + 1]), Path(folder), grace)
        threading.Thread(target=agent.hand_on_signals, args=(asking,), daemon=True).start()
        if os.environ.pop(OBEY_STDIN, None):
            threading.Thread(target=agent.obey_stdin, daemon=True).start()
        _run(args, agent)
        return agent.exit_code()


def heeded() -> set[signal.Signals]:
    """Signals that ask to stop, without those that the caller shields its commands from.

    `nohup` ignores SIGHUP, and a shell SIGINT for what it runs in the background.
    """
    asking = {*SIGNALS, signal.SIGHUP}
    return {number for number in asking if signal.getsignal(number) != signal.SIG_IGN}


def _run(args: list[str], agent: Agent) -> None:
    """Run `torchrun`, and say in a line what failed unless the process itself did."""
    # After the signals are blocked, for the threads that it starts; and without the stack traces in
    # C++ that it would print of each try to reach another node. Its processes have theirs.
    level = os.environ.get(_LEVEL)
    os.environ[_LEVEL] = level or "FATAL"
    import torch.distributed as dist

    if level is None:
        del os.environ[_LEVEL]
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.agent.server import api
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    # What it logs is said below in a line, or by the process that failed.
    for name in ("torch.distributed.elastic", api.__name__):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # Of signals it gets one that is blocked: it would listen even to those of `nohup`.
    parsed = torchrun.parse_args(["--signals-to-handle", "SIGTERM", *args])
    try:
        _prepare(parsed)
        torchrun.run(parsed)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        left = {int(code.read_text("utf-8")) for code in agent.folder.iterdir()}
        # Otherwise one has said what was wrong, of itself or another, or was asked to end.
        if left <= {0, INTERRUPTED} and not agent.interrupted:
            killed = failure.exitcode < 0
            why = failure.message if killed else f"ended with exit code {failure.exitcode}"
            print(f"torchrun: rank {rank}: {why}", file=sys.stderr)
    except SignalException:  # a library's thread got it; it was handed on and waited for
        agent.interrupted = True
    except (dist.DistError, OSError) as error:
        why = str(error).splitlines()[0]
        print(
            f"torchrun: node {parsed.node_rank} of {parsed.nnodes} did not meet the others at "
            f"{parsed.master_addr}:{parsed.master_port} ({why}); are they all started, is the port "
            "open? See launch/CLUSTERS.md",
            file=sys.stderr,
        )


def _prepare(args: Namespace) -> None:
    """Wait for the name of the first node, and let gloo use the network that leads there.

    By itself gloo takes the network of the host's own name, on many clusters the loopback.
    """
    if args.standalone:
        return
    from torch.distributed.elastic.rendezvous.utils import _parse_rendezvous_config

    until = time.monotonic() + int(_parse_rendezvous_config(args.rdzv_conf)["timeout"])
    while True:  # a pod's name appears some time after the pod
        try:
            address = socket.getaddrinfo(args.master_addr, args.master_port)[0]
            break
        except socket.gaierror:
            if time.monotonic() > until:
                raise
            time.sleep(1)
    if network := network_towards(address[0], address[4]):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", network)


def network_towards(family: int, address: tuple) -> str | None:
    """Name of the network interface that packets to an address leave by.

    Args:
        family: Of the address, as of `socket`.
        address: Host and port, as `socket.getaddrinfo` gives them.
    """
    with socket.socket(family, socket.SOCK_DGRAM) as asking:
        asking.connect(address)  # sends nothing
        own = asking.getsockname()[0]
    for name, addresses in psutil.net_if_addrs().items():
        if any(entry.address.partition("%")[0] == own for entry in addresses):
            return name
    return None


if __name__ == "__main__":
    sys.exit(main())
