"""`python -m gliomoe`: the same as the `gliomoe` command."""

import sys

from gliomoe.launch.cli import main

if __name__ == "__main__":
    sys.exit(main())
