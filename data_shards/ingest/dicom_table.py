"""The table that says which sequence a DICOM series is (`dicom_sequences.toml`)."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.sequences import ALIASES, SEQUENCES

Headers = Mapping[str, tuple[Any, ...]]
"""DICOM keyword → its values, none if it is not there or empty."""

TEXTS = ("SeriesDescription", "ProtocolName")
"""Keywords that `text` and `not_text` look at."""

_WORDS = ("sequence", "leave_out", "text", "not_text")


@dataclass(frozen=True)
class Rule:
    """One entry of the table."""

    sequence: str | None
    """Canonical sequence, or None if the series is to be left out."""
    leave_out: str | None
    """What the series is instead."""
    text: re.Pattern[str] | None
    not_text: re.Pattern[str] | None
    conditions: Mapping[str, Any]
    """DICOM keyword → what its values shall be."""

    def fits(self, headers: Headers) -> bool:
        """Whether all conditions hold."""
        text = series_text(headers)
        if self.text and not self.text.search(text):
            return False
        if self.not_text and self.not_text.search(text):
            return False
        return all(_holds(headers.get(key, ()), want) for key, want in self.conditions.items())


def read_rules(own: Path | None) -> tuple[Rule, ...]:
    """The rules in order: those of a table of the user's, then the package's.

    Raises:
        UsageError: If the user's table cannot be read or a rule of it is none.
    """
    package = files("gliomoe.data_shards.ingest") / "dicom_sequences.toml"
    rules = _parse(package.read_text("utf-8"), package.name)
    if own is None:
        return rules
    try:
        return (*_parse(own.read_text("utf-8"), str(own)), *rules)
    except OSError as error:
        raise UsageError(f"{own}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{own}: not TOML ({error.reason})") from error


def first_fit(rules: Sequence[Rule], headers: Headers) -> Rule | None:
    """The rule that decides, None if no rule fits."""
    return next((rule for rule in rules if rule.fits(headers)), None)


def keywords(rules: Sequence[Rule]) -> set[str]:
    """The DICOM keywords that rules look at."""
    return {*TEXTS, *(key for rule in rules for key in rule.conditions)}


def series_text(headers: Headers) -> str:
    """What a series is called, in lower case, words parted by single blanks."""
    text = " ".join(str(value) for key in TEXTS for value in headers.get(key, ()))
    return " ".join(re.sub(r"[^a-z0-9+*]+", " ", text.lower()).split())


def _parse(text: str, name: str) -> tuple[Rule, ...]:
    """The rules of a table."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{name}: not TOML ({error})") from error
    rules = table.get("rule")
    if set(table) != {"rule"} or not isinstance(rules, list):
        raise UsageError(f"{name}: a table of DICOM sequences holds [[rule]] entries and no others")
    return tuple(_rule(entry, f"{name}, rule {n}") for n, entry in enumerate(rules, 1))


def _rule(entry: Mapping[str, Any], where: str) -> Rule:
    """One entry, checked."""
    from pydicom.datadict import tag_for_keyword

    sequence, leave_out = entry.get("sequence"), entry.get("leave_out")
    if (sequence is None) == (leave_out is None):
        raise UsageError(f"{where}: needs either sequence or leave_out")
    if sequence is not None:
        sequence = ALIASES.get(sequence, sequence)
        if sequence not in SEQUENCES:
            raise UsageError(f"{where}: {sequence!r} is not one of {', '.join(SEQUENCES)}")
    patterns = {}
    for key in ("text", "not_text"):
        try:
            patterns[key] = re.compile(entry[key]) if key in entry else None
        except (re.error, TypeError) as error:
            raise UsageError(f"{where}: {key} is not a regular expression ({error})") from error
    conditions = {key: value for key, value in entry.items() if key not in _WORDS}
    for key, want in conditions.items():
        if tag_for_keyword(key) is None:
            raise UsageError(f"{where}: {key} is not a DICOM keyword")
        if isinstance(want, dict) and not (want and set(want) <= {"min", "max"}):
            raise UsageError(f"{where}: {key} may have min and max, not {', '.join(want)}")
    if not conditions and not any(patterns.values()):
        raise UsageError(f"{where}: has no condition and would fit every series")
    return Rule(sequence, leave_out, patterns["text"], patterns["not_text"], conditions)


def _holds(values: tuple[Any, ...], want: Any) -> bool:
    """Whether the values of an element are as a condition wants them."""
    if isinstance(want, bool):
        return bool(values) == want
    if isinstance(want, dict):
        return any(want.get("min", -1e300) <= n <= want.get("max", 1e300) for n in _numbers(values))
    wanted = {str(one).upper() for one in (want if isinstance(want, list) else [want])}
    return any(str(value).upper() in wanted for value in values)


def _numbers(values: tuple[Any, ...]) -> list[float]:
    """The values that are numbers."""
    found = []
    for value in values:
        try:
            found.append(float(value))
        except (TypeError, ValueError):
            continue
    return found
