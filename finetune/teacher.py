"""The teacher of a run: opened and checked before any training, and kept from telling on itself.

Notable: a fold's validation cases choose its weights, thresholds and temperatures, so none of them
may have trained the members that teach it. On the teacher's own splits that leaves fold k of the
teacher to teach fold k; a teacher that saw none of the cases teaches with all its folds.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gliomoe.data_shards.building.build import BuildConfig, open_or_build
from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.identity.seen import Seen
from gliomoe.data_shards.label_table import shown
from gliomoe.data_shards.preprocess import PreprocessConfig
from gliomoe.data_shards.reading.indexed import ShardSet
from gliomoe.finetune.cases import LabelledCase
from gliomoe.finetune.config import FinetuneConfig
from gliomoe.finetune.inputs import missing_sequences
from gliomoe.finetune.run import SPLITS, FinetunedRun
from gliomoe.finetune.splits import Fold, Splits, read_folds
from gliomoe.models.checkpoint import WEIGHTS, load_checkpoint, read_config
from gliomoe.models.heads.entmax import EntmaxHead
from gliomoe.models.model import Model

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Teacher:
    """A fine-tuned run that teaches, and the studies that it alone speaks about."""

    run: FinetunedRun
    members: tuple[tuple[Path, ...], ...]
    """Checkpoint folders that teach each fold of the student."""
    shards: ShardSet | None = None
    """Where `studies` are."""
    studies: tuple[LabelledCase, ...] = ()
    """Without labels."""

    def models(self, fold: int, device: torch.device) -> list[Model]:
        """The members that teach a fold, in evaluation mode."""
        return [load_checkpoint(folder).to(device).eval() for folder in self.members[fold]]

    def described(self, fold: int) -> dict[str, Any]:
        """What a checkpoint says of who taught it, JSON-able."""
        files = [read_config(folder)["files"] for folder in self.members[fold]]
        return {
            "run": str(self.run.path),
            "sha256": [listed[WEIGHTS]["sha256"] for listed in files],
            "unlabelled": len(self.studies),
        }

    def seen(self) -> Seen:
        """What the teacher knows and what it tells about."""
        return Seen.join([self.run.seen(), *(study.looks for study in self.studies)])

    def sequences(self) -> set[str]:
        """Sequences of the studies without labels."""
        if self.shards is None:
            return set()
        return {name for s in self.studies for name in self.shards.entry(s.position).sequences}


def check_teacher(
    run: FinetunedRun, student: Model, config: FinetuneConfig, preprocessing: Mapping[str, object]
) -> None:
    """Refuse a teacher that does not speak of what the student learns, before any work.

    Raises:
        UsageError: If tasks, preprocessing or inputs differ, or the student cannot follow softened
            probabilities.
    """
    where = f"--teacher {run.path}"
    if missing := [task for task in config.tasks if task not in run.tasks]:
        raise UsageError(
            f"{where}: learned {', '.join(run.tasks)}, not {', '.join(missing)}; "
            "choose --tasks among them"
        )
    if run.preprocessing != preprocessing:
        changed = sorted(
            key
            for key in {*run.preprocessing, *preprocessing}
            if run.preprocessing.get(key) != preprocessing.get(key)
        )
        raise UsageError(
            f"{where}: its cases are preprocessed otherwise ({_told(run.preprocessing, changed)}) "
            f"than the student's ({_told(preprocessing, changed)}); give --arch.spacing, or a "
            "checkpoint, that agrees"
        )
    if any(isinstance(module, EntmaxHead) for module in student.modules()):
        raise UsageError(
            f"{where}: {student.config['name']} has the loss of entmax, which follows labels "
            "alone; take another model"
        )
    teacher = load_checkpoint(run.folders[0])
    if teacher.genes != student.genes:
        raise UsageError(
            f"{where}: {teacher.config['name']} takes genes, {student.config['name']} does not"
        )
    if teacher.encoder.sequences and config.crop.sequence_dropout:
        raise UsageError(
            f"{where}: {teacher.config['name']} needs {', '.join(teacher.encoder.sequences)} of "
            "every crop; leave out --crop.sequence_dropout"
        )


def _told(settings: Mapping[str, object], keys: Sequence[str]) -> str:
    return ", ".join(f"{key} {settings.get(key)}" for key in keys)


def appoint(
    run: FinetunedRun,
    student: Model,
    config: FinetuneConfig,
    shards: ShardSet,
    cases: Mapping[str, LabelledCase],
    splits: Splits,
) -> Teacher:
    """Choose who teaches which fold, and find the studies without labels.

    Args:
        run: A checked teacher.
        student: The model that it teaches.
        config: The student's configuration.
        shards: The studies of the cases.
        cases: Study key → labelled case.
        splits: The student's folds.

    Raises:
        UsageError: If all members that could teach a fold have trained on its validation cases, or
            a study lacks a sequence that the teacher or the student needs.
    """
    members = _members(run, config, cases, splits)
    chosen = [cases[key] for key in splits.keys]
    teacher = load_checkpoint(run.folders[0])
    _require_sequences(teacher, shards, chosen)
    if config.distil.data is None:
        return Teacher(run, members)
    unlabelled = open_or_build(
        config.distil.data,
        config.cache or config.out / "shards",
        BuildConfig(keep_ids=True, preprocess=PreprocessConfig.from_json(run.preprocessing)),
    )
    studies = _without_labels(unlabelled, config, chosen)
    for model in (teacher, student):
        _require_sequences(model, unlabelled, studies)
    return Teacher(run, members, unlabelled, tuple(studies))


def _members(
    run: FinetunedRun,
    config: FinetuneConfig,
    cases: Mapping[str, LabelledCase],
    splits: Splits,
) -> tuple[tuple[Path, ...], ...]:
    """For each fold of the student the teacher's members that may teach it."""
    chosen = [cases[key] for key in splits.keys]
    known = run.seen().which(case.looks for case in chosen)
    shared = {
        case.key: case.subject for case, is_known in zip(chosen, known, strict=True) if is_known
    }
    if not shared or config.allow_leakage:
        return (run.folders,) * len(splits.folds)
    path = run.path / SPLITS  # beside the folds of a run; a single checkpoint has none
    theirs = read_folds(path).folds if path.is_file() else ()
    learned = {
        folder: theirs[read_config(folder)["training"]["fold"]] for folder in run.folders if theirs
    }
    members = tuple(
        tuple(folder for folder, fold in learned.items() if may_teach(fold, ours, shared))
        for ours in splits.folds
    )
    for number in config.run_folds:
        if not members[number]:
            told = [key for key in splits.folds[number].validation if key in shared]
            raise UsageError(
                f"--teacher {run.path}: no finished fold of it may teach fold {number}, each was "
                f"trained on some of its validation cases {shown(told)}; repeat its splits by "
                f"--splits {path} --folds {len(theirs) or 'N'}, finish its fold, or say "
                "--allow_leakage"
            )
    return members


def may_teach(theirs: Fold, ours: Fold, shared: Mapping[str, str]) -> bool:
    """Whether a teacher's fold trained on no subject of a student's validation cases.

    Args:
        theirs: Of the teacher.
        ours: Of the student.
        shared: Key → subject of the student's cases that the teacher has seen. One that its splits
            do not name was seen in pretraining, or under another name: nobody knows where.
    """
    named = {*theirs.train, *theirs.validation}
    learned = {subject for key, subject in shared.items() if key in theirs.train}
    judges = [key for key in ours.validation if key in shared]
    return all(key in named and shared[key] not in learned for key in judges)


def _without_labels(
    shards: ShardSet, config: FinetuneConfig, chosen: Sequence[LabelledCase]
) -> list[LabelledCase]:
    """The studies that only the teacher speaks about: those that are no case of the run."""
    unknown: dict[str, float] = dict.fromkeys((*config.tasks, "seg"), math.nan)
    studies = [
        LabelledCase(
            key=shards.entry(position).key,
            subject=shards.entry(position).subject,
            targets=unknown,
            position=position,
            looks=Seen.of_record(shards.record(position)),
        )
        for position in range(len(shards))
    ]
    own = Seen.join(case.looks for case in chosen).which(study.looks for study in studies)
    if known := [study.key for study, is_own in zip(studies, own, strict=True) if is_own]:
        log.info("%s: cases of the run are left out: %s", config.distil.data, shown(known))
    if len(known) == len(studies):
        raise UsageError(
            f"--distil.data {config.distil.data}: all its {len(studies)} studies are cases of the "
            "run; give others, or leave it out"
        )
    return [study for study, is_own in zip(studies, own, strict=True) if not is_own]


def _require_sequences(model: Model, shards: ShardSet, cases: Sequence[LabelledCase]) -> None:
    """Refuse studies that a model of the two cannot take."""
    for case in cases:
        if missing := missing_sequences(model, shards.entry(case.position).sequences):
            raise UsageError(
                f"--teacher: {model.config['name']} needs {', '.join(model.encoder.sequences)}; "
                f"{case.key} lacks {', '.join(missing)}: leave it out, or take another model"
            )
