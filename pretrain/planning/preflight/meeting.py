"""The processes of a run tell each other plain values through the store of their group.

The store works before any network has been tried, and waiting for it has a limit: a process that
does not answer is named, and all the others end alike.
"""

import json
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from gliomoe.data_shards.errors import DataError, UsageError
from gliomoe.pretrain.planning.preflight.finding import ranks

_POLL = 0.1
_PARTING = 10.0


class Meeting:
    """All processes of a run, or the only one.

    Args:
        rank: Of this process.
        world: Number of processes.
        limit: Seconds after which processes that have not answered are given up.
    """

    def __init__(self, rank: int, world: int, limit: float):
        self.rank, self.world, self.limit = rank, world, limit
        if world > 1:
            store = dist.distributed_c10d._get_default_store()
            self._store = dist.PrefixStore("preflight", store)

    def collect(self, name: str, value: Any) -> list[Any]:
        """The values of all processes on rank 0, in their order; nothing on the others.

        Raises:
            DataError: On all processes, if one does not answer.
        """
        if self.rank:
            self._store.set(f"{name}/{self.rank}", json.dumps(value))
            return []
        keys = [f"{name}/{rank}" for rank in range(1, self.world)]
        end = time.monotonic() + self.limit
        for key in keys:
            try:
                self._store.wait([key], timedelta(seconds=max(0.1, end - time.monotonic())))
            except RuntimeError:
                silent = [rank for rank in range(1, self.world) if not self._check(name, rank)]
                text = f"preflight: no word from {ranks(silent)} within {self.limit:.0f} s"
                self.end(DataError(f"{text}; look at their hosts, the same command continues"))
        return [value, *(json.loads(self._store.get(key)) for key in keys)]

    def announce(self, name: str, value: Mapping[str, Any]) -> Mapping[str, Any]:
        """Rank 0's value, on all processes.

        Raises:
            UsageError, DataError: What rank 0 ended the meeting with.
            DataError: If rank 0 does not answer.
        """
        if self.world == 1:
            return value
        if not self.rank:
            self._store.set(name, json.dumps(value))
            return value
        end = time.monotonic() + 2 * self.limit  # rank 0 itself waits so long for the others
        while not self._store.check([name]):
            if self._store.check(["error"]):
                said = json.loads(self._store.get("error"))
                self._store.add("heard", 1)
                raise _error(said)
            if time.monotonic() > end:
                raise DataError(f"preflight: no word from rank 0 within {2 * self.limit:.0f} s")
            time.sleep(_POLL)
        return json.loads(self._store.get(name))

    def end(self, error: DataError | UsageError) -> None:
        """End all processes with an error of rank 0.

        Raises:
            UsageError, DataError: The error.
        """
        if self.world > 1:
            kind = "usage" if isinstance(error, UsageError) else "data"
            self._store.set("error", json.dumps({"kind": kind, "text": str(error)}))
            # The store may end with this process, before others have looked.
            last = time.monotonic() + _PARTING
            while self._store.add("heard", 0) < self.world - 1 and time.monotonic() < last:
                time.sleep(_POLL)
        raise error

    def _check(self, name: str, rank: int) -> bool:
        """Whether a process has answered."""
        return self._store.check([f"{name}/{rank}"])


def _error(said: Mapping[str, str]) -> DataError | UsageError:
    """Rank 0's error."""
    return (UsageError if said["kind"] == "usage" else DataError)(said["text"])
