"""`gliomoe finetune`: adapt a checkpoint, or train from scratch, on a few labelled cases."""

import math
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from gliomoe.finetune.cases import LabelledCase, task_counts
from gliomoe.finetune.config import FinetuneConfig
from gliomoe.finetune.run import SUMMARY
from gliomoe.finetune.train import Prepared, finetune, prepare
from gliomoe.launch.options import to_table
from gliomoe.launch.runs import claim, release

PRESETS = "gliomoe.finetune"
EXAMPLE = (
    "gliomoe finetune gliomoe_20shot --data cases/ --labels labels.csv "
    "--from checkpoint/ --out runs/first\n"
    "  gliomoe finetune gliomoe_20shot --data cases/ --labels labels.csv --teacher runs/first "
    "--splits runs/first/splits.json --distil.data unlabelled/ --out runs/student"
)
FREE = ("dry_run", "only_folds", "cache", "train.device", "train.workers", "train.parallel")
"""Settings that may change when a run goes on."""


@dataclass(frozen=True)
class Options(FinetuneConfig):
    """Adapt a checkpoint, or train from scratch, on a few labelled cases."""

    dry_run: bool = False
    """Check everything, print the cases of each fold and the steps, and train nothing."""


def run(options: Options) -> int:
    """Claim the folder, check everything, train the folds that are missing."""
    if options.dry_run:
        print(_plan(options, prepare(options)))
        return 0
    # Stop like Ctrl-C: every file is written whole or not at all, so any moment is good.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    continued = claim(options.out, "finetune", to_table(options), FREE, beside=("shards",))
    try:
        prepared = prepare(options)
    except BaseException:
        if not continued:
            release(options.out)
        raise
    summary = finetune(options, prepared)
    for region, value in summary["dice"].items():
        print(f"validation Dice {region}  {value:.3f}")
    print(f"{len(summary['folds'])} of {options.folds} folds: {options.out / SUMMARY}")
    return 0


def _plan(options: Options, prepared: Prepared) -> str:
    """What a run would train on."""
    splits, architecture = prepared.splits, prepared.architecture
    epochs, batch, teacher = options.train.epochs, options.train.batch, prepared.teacher
    studies = 0 if teacher is None else len(teacher.studies)
    share = options.distil.share if studies else 0.0
    lines = [
        f"{architecture['name']} from {options.from_}: {len(splits.keys)} of {len(prepared.cases)} "
        f"labelled cases, {len(splits.folds)} folds, up to {epochs} epochs"
    ]
    for number in options.run_folds:
        fold = splits.folds[number]
        crops = len(fold.train) / (1 - share)  # an epoch takes each training case once
        steps = options.train.steps_per_epoch or math.ceil(math.ceil(crops) / batch)
        lines.append(f"fold {number}: up to {epochs * steps} steps")
        if teacher is not None:
            lines.append(
                f"  teacher     {', '.join(str(path) for path in teacher.members[number])}"
            )
        for name, keys in (("training", fold.train), ("validation", fold.validation)):
            lines.append(f"  {name:10s}  {_classes(prepared.chosen(keys), options.tasks)}")
    if studies:
        lines.append(f"{studies} studies without labels: {share:.0%} of the crops")
    return "\n".join(lines)


def _classes(cases: Sequence[LabelledCase], tasks: Sequence[str]) -> str:
    """How many cases there are, and of each class of each task: `12 cases, idh 0: 7 1: 5`."""
    parts = [f"{len(cases)} cases"]
    for task, counts in task_counts(cases, tasks).items():
        classes = " ".join(f"{value:g}: {count}" for value, count in counts.items())
        parts.append(f"seg {sum(counts.values())}" if task == "seg" else f"{task} {classes or '-'}")
    return ", ".join(parts)
