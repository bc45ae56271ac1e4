"""One process under `torchrun`: runs a command and leaves its exit code where a script finds it.

`torchrun` ends with 1 whatever its processes return, so rank 0 writes the code to the file that
`GLIOMOE_EXIT_CODE` names. An interrupted run is no failure, which `torchrun` need not report.
"""

import os
import sys
from pathlib import Path

from gliomoe.launch.cli import INTERRUPTED, main


def run() -> int:
    """Run the command of the process's arguments; the exit code for `torchrun`."""
    code = main()
    marker = os.environ.get("GLIOMOE_EXIT_CODE")
    if marker and os.environ.get("RANK", "0") == "0":
        Path(marker).write_text(str(code), "utf-8")
    return 0 if code == INTERRUPTED else code


if __name__ == "__main__":
    sys.exit(run())
