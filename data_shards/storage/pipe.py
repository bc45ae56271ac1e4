"""Files that a command prints, for places that nothing else reaches. Only where a user allows it.

Notable: file names come from `dataset.json`, which `read_dataset` holds to plain names; they are
quoted for the shell all the same.
"""

import io
import shlex
import subprocess

from gliomoe.data_shards.errors import DataError, UsageError

_HOLE = "{}"


class PipeSource:
    """A shell command with `{}` where the file's name goes, such as `pipe:ssh a cat set/{}`."""

    def __init__(self, name: str) -> None:
        if _HOLE not in name:
            raise UsageError(f"{name}: needs {_HOLE} where the name of a file goes")
        self.name = name

    def place(self, file: str) -> str:
        """The command for a file."""
        return self.name.replace(_HOLE, shlex.quote(file))

    def read(self, file: str) -> bytes:
        """All that the command prints."""
        with self.stream(file) as stream:
            return stream.read()

    def stream(self, file: str) -> io.BufferedReader:
        """What the command prints, as it comes."""
        return io.BufferedReader(_Output(self.place(file)), 1 << 20)


class _Output(io.RawIOBase):
    """The output of a command, whose failure is an error at its end."""

    def __init__(self, place: str) -> None:
        self._place = place
        command = place.partition(":")[2]
        self._process = subprocess.Popen(
            command, shell=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """The next bytes."""
        assert self._process.stdout is not None
        count = self._process.stdout.readinto(buffer)  # type: ignore[attr-defined]
        if not count and (code := self._process.wait()):
            raise DataError(f"{self._place}: exit code {code}; run the command to see why")
        return count

    def close(self) -> None:
        """End the command."""
        if not self.closed:
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process.kill()
            self._process.wait()
        super().close()
