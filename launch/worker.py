"""One process under `gliomoe.launch.torchrun`: runs a command and leaves its exit code there.

An interrupted run is no failure, which `torchrun` need not report.
"""

import os
import sys
from pathlib import Path

from gliomoe.launch.cli import INTERRUPTED, main


def leave(code: int) -> int:
    """Leave the exit code of the command; the exit code for `torchrun`."""
    left = os.environ.get("GLIOMOE_EXIT_CODE")
    if left and os.environ.get("RANK", "0") == "0":
        Path(left).write_text(str(code), "utf-8")
    return 0 if code == INTERRUPTED else code


if __name__ == "__main__":
    sys.exit(leave(main()))
