"""From options to results: everything is checked before the first run, then the grid is filled."""

import json
import logging
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from matplotlib.figure import Figure

from gliomoe.data_shards.building.build import BuildConfig, open_or_build
from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.identity.seen import Seen
from gliomoe.data_shards.label_table import shown
from gliomoe.data_shards.preprocess import PreprocessConfig
from gliomoe.finetune.cases import known_tasks, labelled_cases, refuse_leakage
from gliomoe.finetune.splits import Splits, check_folds, read_splits, write_splits
from gliomoe.finetune.studies.output import Row, as_text, write_study
from gliomoe.finetune.train import Prepared, prepare
from gliomoe.launch.commands.finetune import Options
from gliomoe.launch.options import to_table
from gliomoe.launch.runs import claim, machine, release
from gliomoe.launch.studies.arms import Arm, finetune_options
from gliomoe.launch.studies.config import StudyConfig
from gliomoe.launch.studies.draws import draw
from gliomoe.launch.studies.grid import Cohort, Grid, read_cohorts, told_to
from gliomoe.launch.studies.pretraining import Pretraining, scratch_arm
from gliomoe.launch.studies.rows import CONVENTIONS
from gliomoe.models.checkpoint import FINGERPRINTS
from gliomoe.models.errors import ModelError

log = logging.getLogger(__name__)

FREE = ("seeds", "test", "test_labels", "test_genes", "parallel", "dry_run", "json")
"""Settings that may change when a study goes on: more seeds and cohorts are added to what is there,
and each run and evaluation refuses a change that concerns it."""

_BESIDE = ("shards", "logs")


def make_grid(config: StudyConfig, arms: Sequence[Arm], shots: Sequence[int]) -> Grid:
    """The grid of a study, nothing read yet but presets.

    Raises:
        UsageError: If a setting is unknown or does not fit.
    """
    if not arms:
        raise UsageError("a study needs something to compare; see --help")
    if not shots or len(set(shots)) < len(shots) or min(shots) < 1:
        raise UsageError("--shots: give one or more positive numbers, each once")
    grid = Grid(
        out=config.out,
        arms=finetune_options(config, arms),
        shots=tuple(shots),
        seeds=config.seeds,
        cohorts=read_cohorts(config),
        parallel=config.parallel,
    )
    for cell in grid.cells:
        grid.options(cell)
    return grid


def fill(
    config: StudyConfig,
    grid: Grid,
    command: str,
    free: tuple[str, ...] = (),
    pretrainings: Sequence[Pretraining] = (),
) -> None:
    """Claim the study's folder, check everything, train and measure what is missing.

    Args:
        config: The study's options.
        grid: Its runs.
        command: Such as `study shots`.
        free: Options beside the common ones that may change when the study goes on.
        pretrainings: Those that its arms start from.

    Raises:
        UsageError: If the folder holds another study, or cases, labels or checkpoints do not fit.
        DataError: If a case cannot be read, or a training fails.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    continued = claim(config.out, command, to_table(config), (*FREE, *free), beside=_BESIDE)
    missing = [one for one in pretrainings if not one.is_done]
    if not missing and len(grid.recognise()) == len(grid.cells):
        return
    try:
        if missing:  # hours of it: cases and cohorts are looked at first, with a stand-in
            arms = finetune_options(config, [scratch_arm(missing[0])])
            check(replace(grid, arms=arms))
        else:
            draws = check(grid)
    except BaseException:
        if not continued:
            release(config.out)
        raise
    if missing:
        for one in missing:
            one.run()
        draws = check(grid)
    for path, splits in draws.items():
        write_splits(path, splits)
    grid.run()


def check(grid: Grid) -> dict[Path, Splits]:
    """Draw the cases; refuse what could only fail later: arms, labels, leakage, test cohorts.

    Writes nothing but shard sets of raw cohorts and a log of the draws.

    Returns:
        Where a run looks for its splits → splits.

    Raises:
        UsageError: If something does not fit, or the labelled cases changed since the study began.
    """
    ready = {}
    for name, options in grid.arms.items():
        try:
            ready[name] = prepare(replace(options, shots=sys.maxsize, folds=2, only_folds=()))
        except (UsageError, ModelError) as error:
            raise UsageError(f"arm {name}: {error}") from error
        for cohort in grid.cohorts:
            _check_cohort(cohort, options, ready[name])
    first = next(iter(grid.arms))
    return _draws(grid, grid.arms[first], ready[first])


def _draws(grid: Grid, options: Options, prepared: Prepared) -> dict[Path, Splits]:
    """The splits of every number of shots and seed."""
    cases = list(prepared.cases.values())
    if grid.seeds > 1 and max(grid.shots) == len(cases):
        log.warning(
            "%d shots are all labelled cases: the seeds differ in weights and folds alone",
            len(cases),
        )
    found = {}
    with told_to(grid.out / "logs" / "draws.txt"):
        for seed in range(grid.seeds):
            draws = draw(cases, grid.shots, options.folds, seed, options.tasks)
            for shots, splits in draws.items():
                print(f"{shots} shots, seed {seed}: {', '.join(splits.keys)}")
                check_folds(splits, prepared.cases, options.tasks)
                found[grid.splits(shots, seed)] = splits
    for path, splits in found.items():
        if path.is_file() and read_splits(path, cases) != splits:
            raise UsageError(f"{path}: the labelled cases changed since this study began")
    return found


def _check_cohort(cohort: Cohort, options: Options, prepared: Prepared) -> None:
    """Refuse test cases without labels, or that an arm learns from."""
    shards = open_or_build(
        cohort.data,
        options.cache or options.out,
        BuildConfig(keep_ids=True, preprocess=PreprocessConfig.from_json(prepared.preprocessing)),
    )
    known = known_tasks(shards, cohort.labels)
    tasks = [task for task in options.tasks if task in known]
    if not tasks:
        raise UsageError(
            f"cohort {cohort.name}: no case of {cohort.data} has a label of "
            f"{', '.join(options.tasks)}; give a table by --test_labels {cohort.name}=TABLE"
        )
    cases = labelled_cases(shards, cohort.labels, tasks)
    training = Seen.join(case.looks for case in prepared.cases.values())
    both = training.which(case.looks for case in cases)
    if leaked := [case.key for case, is_known in zip(cases, both, strict=True) if is_known]:
        raise UsageError(
            f"cohort {cohort.name}: {len(leaked)} of {len(cases)} cases are among those of "
            f"{options.data}, to train on: {shown(leaked)}; leave them out of one of them"
        )
    if prepared.checkpoint is not None:
        refuse_leakage(cases, Seen.read(prepared.checkpoint / FINGERPRINTS), options.from_)


def tell(
    config: StudyConfig, name: str, rows: Sequence[Row], plot: Callable[[Sequence[Row]], Figure]
) -> None:
    """Write the study's table, plot and JSON, and print the figures.

    Args:
        config: The study's options.
        name: Of the study.
        rows: Its table.
        plot: Makes the plot of it.
    """
    settings = {**to_table(config), "conventions": CONVENTIONS}
    by = ("arm", "shots", "test")
    content = write_study(config.out, name, by, rows, settings, plot(rows), machine())
    print(json.dumps(content, indent=2) if config.json else as_text(content))


def planned(grid: Grid) -> str:
    """The runs of a grid and which are done, for `--dry-run`."""
    done = {(cell.arm, cell.shots, cell.seed) for cell in grid.recognise()}
    lines = [
        f"{len(grid.cells)} runs, each measured on {', '.join(c.name for c in grid.cohorts)}; "
        f"{len(done)} done"
    ]
    width = max(map(len, grid.arms))
    for arm in grid.arms:
        cells = [
            f"{shots} shots {sum((arm, shots, seed) in done for seed in range(grid.seeds))} of "
            f"{grid.seeds}"
            for shots in grid.shots
        ]
        lines.append(f"  {arm:{width}}  {', '.join(cells)}")
    return "\n".join(lines)
