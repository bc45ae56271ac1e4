"""`torchrun` as the scripts start it: ends with the exit code of the command, without traceback.

`torchrun` itself ends with 1 whatever its processes return and prints a traceback when told to
stop. Here rank 0 leaves its exit code in a file (`gliomoe.launch.worker`), and that code counts.
Arguments are those of `torchrun`.
"""

import os
import sys
import tempfile
from pathlib import Path

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import parse_args, run

EXIT_CODE = "GLIOMOE_EXIT_CODE"
"""Environment variable with the file that rank 0 writes its exit code to."""


def main() -> int:
    """Run `torchrun` with the arguments of this process; the exit code of rank 0."""
    with tempfile.TemporaryDirectory() as folder:
        left = Path(folder) / "exit_code"
        os.environ[EXIT_CODE] = str(left)
        try:
            run(parse_args(sys.argv[1:]))
        except SignalException as stop:
            if not left.is_file():
                print(f"torchrun: {stop}", file=sys.stderr)
        except ChildFailedError as error:
            if not left.is_file():  # otherwise the process said itself what was wrong
                rank, failure = error.get_first_failure()
                print(f"torchrun: rank {rank}: {failure.message}", file=sys.stderr)
        return int(left.read_text("utf-8")) if left.is_file() else 1


if __name__ == "__main__":
    sys.exit(main())
