"""What a run does with every subset of the MRI sequences, against all of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from tqdm import tqdm

from gliomoe.data_shards.batch import StudySample
from gliomoe.data_shards.errors import DataError, UsageError
from gliomoe.data_shards.label_table import shown
from gliomoe.data_shards.reading.indexed import ShardSet
from gliomoe.data_shards.sequences import SEQUENCES
from gliomoe.finetune.cases import LabelledCase
from gliomoe.finetune.dataset import read_case
from gliomoe.finetune.inputs import with_inputs
from gliomoe.finetune.precision import pick_device
from gliomoe.finetune.run import FinetunedRun
from gliomoe.finetune.studies.output import Row, write_study
from gliomoe.finetune.studies.plots import points
from gliomoe.finetune.studies.scores import CaseScores, RunStudyConfig, score, score_rows

MOST = 6
"""Sequences whose subsets are computed; six have 63."""


@dataclass(frozen=True, kw_only=True)
class SubsetsConfig(RunStudyConfig):
    """Which run on which cases."""

    sequences: tuple[str, ...] = ()
    """Sequences whose subsets are taken; none named: those that every case has."""
    flips: bool = False
    """Test-time augmentation: average over all flips along the axes, at eight times the work."""


def study_subsets(config: SubsetsConfig, provenance: dict[str, Any]) -> dict[str, Any]:
    """Predict every case from every non-empty subset of the sequences, and write the study.

    Each case is read once. Differences are those from all sequences, paired by case.

    Args:
        config: Run and cases.
        provenance: Versions and hardware.

    Returns:
        The content of `study.json`.

    Raises:
        DataError: If a sequence of a case is empty.
        UsageError: If the model needs certain sequences, a case lacks one that was named, or there
            are fewer than two or more than `MOST`.
    """
    run = FinetunedRun.open(config.run).averaging(config.flips)
    models = run.models(pick_device(config.device))
    if needed := models[0].encoder.sequences:
        name = models[0].config["name"]
        raise UsageError(f"{config.run}: {name} needs {', '.join(needed)} and takes no subsets")
    shards, cases = config.cases_of(run)
    cases = with_inputs(models[0], shards, cases, config.genes)
    names = common_sequences(shards, cases, config.sequences)
    found: dict[tuple[str, ...], list[CaseScores]] = {subset: [] for subset in subsets(names)}
    bar = tqdm(total=len(cases) * len(found), desc="subsets", unit="prediction", disable=None)
    for case in cases:
        sample = read_case(shards, case)
        refuse_empty(sample)
        for subset, scores in found.items():
            scores.append(score(run, models, only(sample, subset)))
            bar.update()
    bar.close()
    rows = _rows(found)
    settings = {
        "run": str(config.run),
        "data": str(config.data),
        "cases": [case.key for case in cases],
        "sequences": names,
        "flips": config.flips,
        "folds": len(run.folders),
    }
    figure = points(rows, "subset", reference=True)
    return write_study(config.out, "subsets", ["subset"], rows, settings, figure, provenance)


def subsets(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Every non-empty subset, the largest first, each in the order of `names`."""
    sizes = range(len(names), 0, -1)
    return [subset for size in sizes for subset in combinations(names, size)]


def refuse_empty(sample: StudySample) -> None:
    """Raise `DataError` if a sequence shows nothing, so that there is nothing to predict from."""
    for volume, number in zip(sample.voxels, sample.sequence.tolist(), strict=True):
        if not volume.any():
            raise DataError(
                f"case {sample.key}: {SEQUENCES[number]} is empty; mend the case or leave it out"
            )


def only(sample: StudySample, names: Sequence[str]) -> StudySample:
    """A study of which nothing but these sequences was scanned."""
    keep = [i for i, number in enumerate(sample.sequence) if SEQUENCES[int(number)] in names]
    return replace(sample, voxels=sample.voxels[keep], sequence=sample.sequence[keep])


def common_sequences(
    shards: ShardSet, cases: Sequence[LabelledCase], wanted: Sequence[str]
) -> list[str]:
    """The sequences whose subsets are taken, in the canonical order; every case has them."""
    present = {case.key: set(shards.entry(case.position).sequences) for case in cases}
    common = set.intersection(*present.values())
    if unknown := [name for name in wanted if name not in SEQUENCES]:
        raise UsageError(f"--sequences {unknown[0]}: not one of {', '.join(SEQUENCES)}")
    for name in wanted:
        if without := [key for key, names in present.items() if name not in names]:
            raise UsageError(
                f"--sequences {name}: {len(without)} of {len(cases)} cases lack it: "
                f"{shown(without)}"
            )
    names = sorted(set(wanted) or common, key=SEQUENCES.index)
    if not 2 <= len(names) <= MOST:
        raise UsageError(
            f"subsets of {len(names)} sequences ({', '.join(names) or 'none is in every case'}); "
            f"name 2 to {MOST} with --sequences"
        )
    return names


def _rows(found: dict[tuple[str, ...], list[CaseScores]]) -> list[Row]:
    full, *smaller = found
    rows = score_rows({"subset": "+".join(full), "sequences": len(full)}, found[full])
    for subset in smaller:
        by = {"subset": "+".join(subset), "sequences": len(subset)}
        rows += score_rows(by, found[subset], found[full])
    return rows
