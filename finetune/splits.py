"""Which labelled cases train and which validate: stratified, grouped by subject, seeded, on file.

Iterative stratification over all labels at once (Sechidis, Tsoumakas and Vlahavas 2011): strata
made of every combination of five labels would hold one case each.
"""

import json
import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.files import write_json
from gliomoe.data_shards.label_table import known_counts, shown

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


def read_folds(path: Path) -> Splits:
    """Read a `splits.json` by itself, without the cases that it names.

    Raises:
        UsageError: If it is not such a file.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
        folds = tuple(Fold(tuple(f["train"]), tuple(f["validation"])) for f in content["folds"])
        splits = Splits(folds, tuple(content["unused"]))
        version = content["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: cannot be read as splits ({error})") from error
    if version != FORMAT:
        raise UsageError(f"{path}: has format version {version}, this program reads {FORMAT}")
    return splits


def read_splits(path: Path, cases: Sequence[Case]) -> Splits:
    """Read splits that were written before, or by hand.

    Args:
        path: A `splits.json`.
        cases: The labelled cases at hand.

    Raises:
        UsageError: If it is not such a file, names cases that are not there, or a fold validates
            on cases or subjects that it trains on.
    """
    splits = read_folds(path)
    folds = splits.folds
    subjects = {case.key: case.subject for case in cases}
    named = {key for fold in folds for key in (*fold.train, *fold.validation)}
    if missing := sorted(named - set(subjects)):
        raise UsageError(
            f"{path}: {len(missing)} of its {len(named)} cases have no data or no labels: "
            f"{shown(missing)}; leave out --splits, or give the data that it was made for"
        )
    validating = Counter(splits.keys)
    if twice := [key for key, count in validating.items() if count > 1]:
        raise UsageError(f"{path}: {shown(twice)} validate in several folds; keep one")
    for number, fold in enumerate(folds):
        if not fold.train or not fold.validation:
            raise UsageError(f"{path}: fold {number} needs training and validation cases")
        learned = {subjects[key] for key in fold.train}
        if both := [key for key in fold.validation if subjects[key] in learned]:
            raise UsageError(
                f"{path}: fold {number} trains on the subjects of its validation cases "
                f"{shown(both)}; keep each subject on one side"
            )
    return splits


def check_folds(splits: Splits, cases: Mapping[str, Case], tasks: Sequence[str]) -> None:
    """Refuse folds that cannot learn a task; warn of those that see one class of it.

    Args:
        splits: The folds.
        cases: Study key → case.
        tasks: What each fold shall learn.

    Raises:
        UsageError: If all labels of a marker are of one class, or a fold has no label of a task to
            train on or no segmentation to validate on.
    """

    def counts(keys: Sequence[str], task: str) -> dict[float, int]:
        return known_counts((cases[key].targets for key in keys), task)

    for task in tasks:
        among = counts(splits.keys, task)
        if task != "seg" and len(among) == 1:
            ((value, number),) = among.items()
            raise UsageError(
                f"task {task}: all {number} labels among the chosen cases are {value:g}, so that "
                "there is nothing to learn; leave it out of --tasks, or raise --shots"
            )
        for i, fold in enumerate(splits.folds):
            known = counts(fold.train, task)
            if not known or (task == "seg" and not counts(fold.validation, task)):
                part = "validation" if known else "training"
                raise UsageError(
                    f"fold {i}: no {part} case has a label of task {task} ({sum(among.values())} "
                    f"of {len(splits.keys)} cases have one); lower --folds or raise --shots"
                )
            if task != "seg" and len(known) == 1:
                (value,) = known
                log.warning(
                    "fold %d: all training cases with a label of %s are %g; it learns nothing of "
                    "it, fewer --folds or more cases help",
                    i,
                    task,
                    value,
                )
