"""Exit codes of runs on several processes and nodes."""

from collections.abc import Iterable

INTERRUPTED = 75
"""Interrupted and resumable."""

_SEVERITY = (0, INTERRUPTED, 1, 2)


def worst(codes: Iterable[int]) -> int:
    """The exit code that says most; a wrong call explains the failures that it leads to.

    Any other code than 0, 75, 1 and 2, such as that of a killed process, counts as 1.
    """
    return max((code if code in _SEVERITY else 1 for code in codes), key=_SEVERITY.index)
