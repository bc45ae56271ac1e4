"""Runs `gliomoe` commands, each in a process of its own, and notes what they cost."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


class FailedError(Exception):
    """A command failed; its last line."""


@dataclass
class Cost:
    """What commands took together."""

    seconds: dict[str, float] = field(default_factory=dict)
    """First argument of a command → seconds of all such commands."""
    peak_memory_gb: float = 0.0
    """Largest resident memory of one process."""

    def gliomoe(self, *arguments: object) -> None:
        """Run `gliomoe` with these arguments.

        Raises:
            FailedError: If it does not end well.
        """
        self.python("-m", "gliomoe", *arguments, name=str(arguments[0]))

    def python(self, *arguments: object, name: str) -> str:
        """Run the interpreter with these arguments; what it prints."""
        begun = time.monotonic()
        command = [sys.executable, *map(str, arguments)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            said = process.stdout.read()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise FailedError(f"{name}: exit code {process.returncode}")
        spent = self.seconds.get(name, 0.0) + time.monotonic() - begun
        self.seconds[name] = round(spent, 1)
        self.peak_memory_gb = round(max(self.peak_memory_gb, usage.ru_maxrss * 1024 / 1e9), 2)
        return said


def flags(settings: Mapping[str, Any]) -> list[str]:
    """Settings as arguments of the command line."""
    return [part for name, value in settings.items() for part in (f"--{name}", *str(value).split())]
