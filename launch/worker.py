"""One process under `gliomoe.launch.torchrun`: runs a command and leaves its exit code there.

An interrupted run is no failure, which `torchrun` need not report.
"""

import os
import signal
import sys
from pathlib import Path

from gliomoe.launch.cli import main
from gliomoe.launch.exit_codes import INTERRUPTED
from gliomoe.pretrain.faults.signals import end_with_parent

EXIT_CODES = "GLIOMOE_EXIT_CODES"
"""Environment variable with the folder that every process leaves its exit code in, by its rank."""
AGENT = "GLIOMOE_AGENT"
"""Environment variable with the process that starts the others of a node."""


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


if __name__ == "__main__":
    sys.exit(run())
