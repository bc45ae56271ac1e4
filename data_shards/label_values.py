"""What a cell of a label table says: a target, unknown, or nothing that is known.

The spellings are those of UCSF-PDGM (`IDH2 p.Arg172Trp`, `mutated (NOS)`, `relative co-deletion`),
UPenn-GBM (`NOS/NEC`), TCGA (`IDHmut-non-codel`, `G3`), the Erasmus glioma database (-1 is unknown)
and BraTS up to 2020 (`LGG`, `HGG`), and what hospitals write. A value that is none of them is
refused, because a label read wrongly is worse than a label missed.
"""

import difflib
import math
import re
from enum import IntEnum

from gliomoe.data_shards.table import plain

UNKNOWN = frozenset(
    [
        "",
        "na",
        "nan",
        "nos",
        "nec",
        "nosnec",
        "none",
        "null",
        "unknown",
        "unk",
        "missing",
        "notavailable",
        "notreported",
        "notdone",
        "nottested",
        "nottestable",
        "equivocal",
        "indeterminate",
        "inconclusive",
    ]
)
"""Values that say that nothing is known, as `plain` spells them; so does any negative number."""


class Method(IntEnum):
    """What a label rests on, the better the higher."""

    UNSPECIFIED = 0
    IHC = 1
    SEQUENCING = 2


METHODS = {
    Method.SEQUENCING: r"pyrosequencing|sequencing|sequenced|sanger|ngs|exome|wes|wgs",
    Method.IHC: r"immunohistochemistry|immunohistochemical|immunostaining|ihc",
}
"""Method → how columns and cells call it, as `plain` spells them."""

_POSITIVE = dict.fromkeys(["1", "true", "yes", "y", "pos", "positive", "present"], 1.0)
_NEGATIVE = dict.fromkeys(["0", "false", "no", "n", "neg", "negative", "absent"], 0.0)
_MUTANT = dict.fromkeys(["mutant", "mut", "mutated", "mutation"], 1.0)
_WILDTYPE = dict.fromkeys(
    ["wildtype", "wild", "wt", "unmutated", "notmutated", "nonmutated", "nonmutant"], 0.0
)
_GENE = {**_MUTANT, **_WILDTYPE, **_POSITIVE, **_NEGATIVE}

_WHO = {
    **dict.fromkeys(["2", "ii"], 2.0),
    **dict.fromkeys(["3", "iii"], 3.0),
    **dict.fromkeys(["4", "iv", "gbm", "glioblastoma"], 4.0),
}
_FIRST = {"1": 0.0, "i": 0.0}
_LOW_HIGH = {
    **dict.fromkeys(["lgg", "low", "lowgrade", "lowgradeglioma"], 0.0),
    **dict.fromkeys(["hgg", "high", "highgrade", "highgradeglioma"], 1.0),
}

VALUES: dict[str, dict[str, dict[str, float]]] = {
    "idh": {"idh": _GENE},
    "1p19q": {
        "1p19q": {
            **dict.fromkeys(
                ["codeleted", "codeletion", "codel", "deleted", "relativecodeletion"], 1.0
            ),
            **dict.fromkeys(["intact", "noncodeleted", "noncodel", "notcodeleted"], 0.0),
            **dict.fromkeys(["nocodeletion", "noncodeletion", "notdeleted"], 0.0),
            **_POSITIVE,
            **_NEGATIVE,
        }
    },
    "tert": {"tert": _GENE},
    "grade": {
        "grade": {**_WHO, **dict.fromkeys([*_LOW_HIGH, *_FIRST], math.nan)},
        "hgg": {
            **{value: float(grade > 2) for value, grade in _WHO.items()},
            **_LOW_HIGH,
            **_FIRST,
        },
    },
    "hgg": {"hgg": {**_LOW_HIGH, **_POSITIVE, **_NEGATIVE}},
    "lgghgg": {"hgg": _LOW_HIGH},
    "subtype": {
        "idh": {"idhmutcodel": 1.0, "idhmutnoncodel": 1.0, "idhwt": 0.0},
        "1p19q": {"idhmutcodel": 1.0, "idhmutnoncodel": 0.0, "idhwt": math.nan},
    },
}
"""Kind of column → task → value as `plain` spells it → target; NaN is unknown.

`LGG` and `HGG` are unknown grades, for collections differ in where grade 3 belongs. They are
targets of the task `hgg`, as the table has them; of WHO grades, 3 and 4 are high.
"""

_AROUND = {
    "idh": r"^idh(?:12?|2)?|nos$",
    "tert": r"^tert(?:p|promoter)?|nos$",
    "grade": r"^(?:who|cns|20\d\d|grade|g(?=[\di]))+",
}
"""Kind of column → what may stand around a value: `IDH-mutant`, `mutated (NOS)`, `Grade II`."""

_MUTATIONS = {
    "idh": r"(?:idh[12])?p?(?:arg\d{3}[a-z]{3}|r\d{3}[a-z])",
    "tert": r"(?:chr5)?(?:[cg]\d{3}[at]|c124ct|c146ct)",
}
"""Kind of column → names of mutations: `IDH1 p.R132H`, `C228T`, `c.-124C>T`."""


def split_method(spelt: str) -> tuple[str, Method]:
    """A text as `plain` spells it without the method it names, and that method."""
    for method, names in METHODS.items():
        rest, count = re.subn(names, "", spelt)
        if count:
            return rest, method
    return spelt, Method.UNSPECIFIED


def read_value(kind: str, cell: str) -> tuple[dict[str, float], Method]:
    """What a cell says of each task of its column.

    Args:
        kind: A key of `VALUES`.
        cell: As the table has it.

    Returns:
        Task → target, NaN where unknown, and the method that the cell names (`mutant (NGS)`).

    Raises:
        ValueError: If the cell is neither a label nor said to be unknown.
    """
    text = re.sub(r"\.0+$", "", cell.strip())
    spelt, method = split_method("positive" if text == "+" else plain(text))
    tasks = VALUES[kind]
    if re.fullmatch(r"-\d+", text) or (spelt in UNKNOWN and text != "-"):
        return dict.fromkeys(tasks, math.nan), method
    spelt = _core(kind, spelt)
    if text == "-" or any(spelt not in known for known in tasks.values()):
        raise ValueError(nearest(kind, spelt))
    return {task: known[spelt] for task, known in tasks.items()}, method


def nearest(kind: str, spelt: str) -> str:
    """The known value that a text resembles most, or all of the first task's if none."""
    known = list(next(iter(VALUES[kind].values())))
    close = difflib.get_close_matches(spelt, known, n=1)
    return f"nearest known: {close[0]}" if close else f"known: {', '.join(known)}"


def _core(kind: str, spelt: str) -> str:
    """A value without gene, mutation and qualifiers; a mutation's name alone is `mutant`."""
    named = 0
    if kind in _MUTATIONS:
        spelt, named = re.subn(_MUTATIONS[kind], "", spelt)
    core = re.sub(_AROUND[kind], "", spelt) if kind in _AROUND else spelt
    if named and not core:
        return "mutant"
    return core or spelt
