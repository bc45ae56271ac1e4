"""One process under `gliomoe.launch.torchrun`: runs a command and leaves its exit code there.

An interrupted run is no failure, which `torchrun` need not report.
"""

import ctypes
import os
import signal
import sys
from pathlib import Path

from gliomoe.launch.cli import main
from gliomoe.launch.exit_codes import INTERRUPTED

EXIT_CODES = "GLIOMOE_EXIT_CODES"
"""Environment variable with the folder that every process leaves its exit code in, by its rank."""
AGENT = "GLIOMOE_AGENT"
"""Environment variable with the process that starts the others of a node."""

_PR_SET_PDEATHSIG = 1


def run() -> int:
    """Run the command of the process's arguments; the exit code for `torchrun`."""
    if agent := os.environ.get(AGENT):
        end_with_parent(int(agent), signal.SIGKILL)
    return leave(main())


def leave(code: int) -> int:
    """Leave the exit code of the command; the exit code for `torchrun`."""
    if folder := os.environ.get(EXIT_CODES):
        (Path(folder) / os.environ["RANK"]).write_text(str(code), "utf-8")
    return 0 if code == INTERRUPTED else code


def end_with_parent(parent: int, number: signal.Signals) -> None:
    """Have this process signalled when the one that started it is gone, however that ended.

    Args:
        parent: The process that started this one.
        number: The signal.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:  # it was gone before
        os.kill(os.getpid(), number)


if __name__ == "__main__":
    sys.exit(run())
