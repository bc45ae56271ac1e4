"""Which labelled cases train and which validate: stratified, grouped by subject, seeded, on file.

Iterative stratification over all labels at once (Sechidis, Tsoumakas and Vlahavas 2011): strata
made of every combination of five labels would hold one case each.
"""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.files import write_json

log = logging.getLogger(__name__)

FORMAT = 1


@dataclass(frozen=True)
class Case:
    """One labelled study, as far as splitting is concerned."""

    key: str
    subject: str
    targets: Mapping[str, float]
    """Task → target; `seg` is 1 where there is a segmentation. NaN or missing: unknown."""


@dataclass(frozen=True)
class Fold:
    """Keys of one fold's cases."""

    train: tuple[str, ...]
    validation: tuple[str, ...]


@dataclass(frozen=True)
class Splits:
    """The folds of a run; every chosen case validates exactly once."""

    folds: tuple[Fold, ...]
    unused: tuple[str, ...]
    """Labelled cases beyond the shots: free for testing."""

    @property
    def keys(self) -> tuple[str, ...]:
        """The cases that take part, sorted."""
        return tuple(sorted(key for fold in self.folds for key in fold.validation))


def make_splits(cases: Sequence[Case], shots: int | None, folds: int, seed: int) -> Splits:
    """Choose the shots and divide them into folds.

    Args:
        cases: Labelled cases; their order does not matter.
        shots: How many take part; None, or more than there are: all.
        folds: At least 2.
        seed: Equal seeds and cases give equal splits.

    Raises:
        UsageError: If there are fewer subjects than folds.
    """
    rng = np.random.default_rng([seed, 0x5B1175])
    chosen = sorted(cases, key=lambda case: case.key)
    unused: list[Case] = []
    if shots is not None and shots < len(chosen):
        part = stratify(chosen, [shots, len(chosen) - shots], rng)
        unused = [case for case in chosen if part[case.subject] == 1]
        chosen = [case for case in chosen if part[case.subject] == 0]
    subjects = {case.subject for case in chosen}
    if len(subjects) < folds:
        raise UsageError(
            f"{len(subjects)} labelled subjects cannot fill {folds} folds; "
            "give more cases or lower --folds"
        )
    part = stratify(chosen, [len(chosen) / folds] * folds, rng)
    return Splits(
        folds=tuple(
            Fold(
                train=tuple(case.key for case in chosen if part[case.subject] != fold),
                validation=tuple(case.key for case in chosen if part[case.subject] == fold),
            )
            for fold in range(folds)
        ),
        unused=tuple(case.key for case in unused),
    )


def stratify(
    cases: Sequence[Case], sizes: Sequence[float], rng: np.random.Generator
) -> dict[str, int]:
    """Divide subjects over parts so that each label spreads in proportion to the parts' sizes.

    Args:
        cases: The cases; those of one subject stay together.
        sizes: Cases wanted in each part.
        rng: Breaks ties.

    Returns:
        Subject → part.
    """
    subjects = sorted({case.subject for case in cases})
    labels = _label_counts(cases, subjects)
    weight = np.array([sum(case.subject == s for case in cases) for s in subjects])
    room = np.asarray(sizes, float).copy()
    wanted = labels.sum(0)[:, None] * (room / room.sum())[None, :]
    left = [int(i) for i in rng.permutation(len(subjects))]
    part = {}
    while left:
        counts = (labels[left] > 0).sum(0)
        rarest = int(np.argmin(np.where(counts > 0, counts, np.inf)))
        for subject in [i for i in left if labels[i, rarest] > 0]:
            fits = np.flatnonzero(room >= min(weight[subject], room.max()) - 1e-9)
            order = np.lexsort((rng.random(len(fits)), -room[fits], -wanted[rarest, fits]))
            chosen = int(fits[order[0]])
            part[subjects[subject]] = chosen
            room[chosen] -= weight[subject]
            wanted[:, chosen] -= labels[subject]
            left.remove(subject)
    return part


def _label_counts(cases: Sequence[Case], subjects: Sequence[str]) -> np.ndarray:
    """[S, L]: how many cases of each subject carry each (task, target), the last for any case."""
    kinds = sorted(
        {
            (task, value)
            for case in cases
            for task, value in case.targets.items()
            if not math.isnan(value)
        }
    )
    counts = np.zeros((len(subjects), len(kinds) + 1))
    row = {subject: i for i, subject in enumerate(subjects)}
    for case in cases:
        counts[row[case.subject], -1] += 1
        for column, (task, value) in enumerate(kinds):
            counts[row[case.subject], column] += case.targets.get(task) == value
    return counts


def write_splits(path: Path, splits: Splits) -> None:
    """Write `splits.json`, atomically."""
    write_json(path, {"format": FORMAT, **asdict(splits)})


def read_splits(path: Path, known: Sequence[str]) -> Splits:
    """Read splits that were written before.

    Args:
        path: A `splits.json`.
        known: Keys of the labelled cases at hand.

    Raises:
        UsageError: If it is not such a file, or names cases that are not there.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
        folds = tuple(Fold(tuple(f["train"]), tuple(f["validation"])) for f in content["folds"])
        splits = Splits(folds, tuple(content["unused"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: cannot be read as splits ({error})") from error
    if missing := sorted(set(splits.keys) - set(known)):
        raise UsageError(f"{path}: names cases without data or labels: {', '.join(missing[:5])}")
    return splits
