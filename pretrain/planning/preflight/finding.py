"""What a check found, and all findings as a table."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gliomoe.data_shards.errors import DataError, UsageError

_COLUMNS = 80


@dataclass(frozen=True)
class Finding:
    """The outcome of one check."""

    check: str
    """Its name, a word or two."""
    status: Literal["ok", "warning", "failed"]
    found: str
    """What is so."""
    advice: str = ""
    """What to do about it."""
    error: type[DataError] | type[UsageError] = DataError
    """What a failure raises: `UsageError` where the call has to change."""

    @property
    def text(self) -> str:
        """What is so, and what to do."""
        return f"{self.found}; {self.advice}" if self.advice else self.found


def table(findings: Sequence[Finding]) -> str:
    """One row a finding, at most 80 columns."""
    width = max(len(finding.check) for finding in findings)
    lines = []
    for finding in findings:
        start = f"{finding.check:{width}s}  {finding.status:7s}  "
        lines += textwrap.wrap(
            finding.text, _COLUMNS, initial_indent=start, subsequent_indent=" " * len(start)
        )
    return "\n".join(lines)


def failure(findings: Sequence[Finding]) -> DataError | UsageError | None:
    """The error of all that failed, one line; None if nothing did."""
    failed = [finding for finding in findings if finding.status == "failed"]
    if not failed:
        return None
    text = "; ".join(f"{finding.check}: {finding.text}" for finding in failed)
    return failed[0].error(f"preflight: {text}")


def ranks(numbers: Sequence[int]) -> str:
    """Ranks for a person, not more than five of them."""
    shown = ", ".join(map(str, numbers[:5]))
    more = f" and {len(numbers) - 5} more" if len(numbers) > 5 else ""
    return f"rank{'s' * (len(numbers) > 1)} {shown}{more}"
