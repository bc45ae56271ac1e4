"""MRI sequences under one name each: the canonical list and the table of their aliases."""

import re
import warnings

SEQUENCES = ("t1", "t1ce", "t2", "flair", "pd", "dwi", "adc", "swi", "t2star", "asl", "other")
"""Canonical names. The position of a name is its number in `StudyBatch.sequence`."""

OTHER = SEQUENCES.index("other")

ALIASES = {
    "t1w": "t1",
    "t1n": "t1",
    "t1pre": "t1",
    "mprage": "t1",
    "t1c": "t1ce",
    "t1gd": "t1ce",
    "t1post": "t1ce",
    "t1wce": "t1ce",
    "t1cew": "t1ce",
    "ct1": "t1ce",
    "t2w": "t2",
    "fla": "flair",
    "t2f": "flair",
    "t2flair": "flair",
    "pdw": "pd",
    "trace": "dwi",
    "b1000": "dwi",
    "t2starw": "t2star",
    "t2s": "t2star",
    "gre": "t2star",
    "swan": "swi",
    "cbf": "asl",
}
"""Names seen in public data sets, spelt in lower case without punctuation, except `other`."""


def canonical_sequence(name: str) -> str:
    """The canonical name of a sequence.

    Args:
        name: A name as a file or table spells it: `T1w`, `t1c`, `T1w+ce`, `FLAIR`.

    Returns:
        One of `SEQUENCES`. An unknown name gives `other` and a warning; it is never guessed.
    """
    spelt = re.sub(r"[^a-z0-9]", "", name.lower())
    known = ALIASES.get(spelt, spelt)
    if known in SEQUENCES:
        return known
    warnings.warn(f"sequence {name!r} is not known and is kept as 'other'", stacklevel=2)
    return "other"


def sequence_number(name: str) -> int:
    """The number of a canonical sequence in `StudyBatch.sequence`; `ValueError` if unknown."""
    return SEQUENCES.index(name)
