"""The grid of a study: an arm, a number of shots and a seed make a run, measured on every cohort.

Layout of a study's folder, everything recognised when the same command runs again:

OUT/run.json                         the study's settings
OUT/shards/                          preprocessed raw cohorts, shared by all runs
OUT/splits/<shots>_<seed>.json       the labelled cases of a draw
OUT/runs/<arm>_<shots>_<seed>/       a run of `gliomoe finetune`, as that command leaves it
OUT/evaluations/<cohort>/<run>/      what `gliomoe evaluate` finds in it
OUT/logs/<run>.txt                   what both had to say
OUT/study.json, table.csv, plot.png  the result
"""

import json
import logging
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.parallel import ordered_map
from gliomoe.finetune.evaluate import EvaluateConfig, evaluate
from gliomoe.finetune.run import SUMMARY
from gliomoe.launch.commands import finetune
from gliomoe.launch.options import to_table
from gliomoe.launch.runs import RECORD, claim, machine
from gliomoe.launch.studies.config import StudyConfig, pairs

log = logging.getLogger(__name__)

METRICS = "metrics.json"


@dataclass(frozen=True)
class Cohort:
    """Test cases."""

    name: str
    data: Path
    labels: Path | None
    genes: Path | None


@dataclass(frozen=True)
class Cell:
    """One run."""

    arm: str
    shots: int
    seed: int

    @property
    def name(self) -> str:
        """Name of its folders."""
        return f"{self.arm}_{self.shots}_{self.seed}"


@dataclass(frozen=True)
class Job:
    """What a process does of a cell."""

    cell: Cell
    options: finetune.Options
    evaluations: tuple[EvaluateConfig, ...]
    """Those missing."""
    log: Path
    threads: int
    number: int
    """Below `parallel`; the GPUs are dealt out by it."""


@dataclass(frozen=True)
class Grid:
    """All runs of a study."""

    out: Path
    arms: Mapping[str, finetune.Options]
    shots: tuple[int, ...]
    seeds: int
    cohorts: tuple[Cohort, ...]
    parallel: int

    @property
    def cells(self) -> list[Cell]:
        """Arms of a draw beside each other, so that the first comparisons are there early."""
        draws = product(range(self.seeds), self.shots)
        return [Cell(arm, shots, seed) for seed, shots in draws for arm in self.arms]

    def splits(self, shots: int, seed: int) -> Path:
        """Where the draw of a number of shots and a seed is written."""
        return self.out / "splits" / f"{shots}_{seed}.json"

    def options(self, cell: Cell) -> finetune.Options:
        """The options of a cell's run.

        Raises:
            UsageError: If they contradict each other, as fewer shots than folds.
        """
        own: dict[str, Any] = {"shots": cell.shots, "seed": cell.seed}
        own |= {"out": self.out / "runs" / cell.name, "splits": self.splits(cell.shots, cell.seed)}
        try:
            return replace(self.arms[cell.arm], **own)
        except ValueError as error:
            raise UsageError(f"arm {cell.arm}, {cell.shots} shots: {error}") from error

    def evaluation(self, cell: Cell, cohort: Cohort) -> Path:
        """The folder of an evaluation."""
        return self.out / "evaluations" / cohort.name / cell.name

    def is_measured(self, cell: Cell, cohort: Cohort) -> bool:
        """Whether an evaluation is there.

        Raises:
            UsageError: If it is of other data.
        """
        path = self.evaluation(cell, cohort) / METRICS
        if not path.is_file():
            return False
        data = json.loads(path.read_text("utf-8"))["data"]
        if data != str(cohort.data):
            raise UsageError(
                f"{path}: measured on {data}, not {cohort.data}; give the cohort another name, or "
                "the study another folder"
            )
        return True

    def is_done(self, cell: Cell) -> bool:
        """Whether a cell is trained and measured on every cohort."""
        return all(self.is_measured(cell, cohort) for cohort in self.cohorts)

    def recognise(self) -> list[Cell]:
        """The cells that are done.

        Raises:
            UsageError: If a run that was begun has other settings.
        """
        for cell in self.cells:
            options = self.options(cell)
            if (options.out / RECORD).is_file():
                claim(options.out, "finetune", to_table(options), finetune.FREE)
        return [cell for cell in self.cells if self.is_done(cell)]

    def run(self) -> None:
        """Train and measure what is missing, with a line for each cell."""
        done = self.recognise()
        missing = (cell for cell in self.cells if cell not in done)
        jobs = [self._job(cell, i % self.parallel) for i, cell in enumerate(missing)]
        begun = time.monotonic()
        with _interruptible():
            for number, job in enumerate(ordered_map(work, jobs, self.parallel), 1):
                pace = (time.monotonic() - begun) / number
                log.info(
                    "%d/%d  %s, %d shots, seed %d  Dice %s  about %s left",
                    len(done) + number,
                    len(self.cells),
                    job.cell.arm,
                    job.cell.shots,
                    job.cell.seed,
                    "  ".join(f"{c.name} {self._dice(job.cell, c)}" for c in self.cohorts),
                    tqdm.format_interval(pace * (len(jobs) - number)),
                )

    def _job(self, cell: Cell, number: int) -> Job:
        options = self.options(cell)
        missing = tuple(
            EvaluateConfig(
                run=options.out,
                data=cohort.data,
                out=self.evaluation(cell, cohort),
                labels=cohort.labels,
                genes=cohort.genes,
                cache=options.cache,
                device=options.train.device,
            )
            for cohort in self.cohorts
            if not self.is_measured(cell, cohort)
        )
        threads = max(1, torch.get_num_threads() // self.parallel)
        log_file = self.out / "logs" / f"{cell.name}.txt"
        return Job(cell, options, missing, log_file, threads, number)

    def _dice(self, cell: Cell, cohort: Cohort) -> str:
        """Mean Dice of an evaluation; a dash where nothing was segmented."""
        metrics = json.loads((self.evaluation(cell, cohort) / METRICS).read_text("utf-8"))
        found = metrics["mean_dice"]
        return f"{found['mean']:.3f}" if found else "–"


def work(job: Job) -> Job:
    """Train a cell where it is not done, and measure it; the job, for the line about it."""
    torch.set_num_threads(job.threads)
    if gpus := torch.cuda.device_count():
        torch.cuda.set_device(job.number % gpus)
    run = job.options.out
    if run.is_dir() and not (run / RECORD).is_file():
        shutil.rmtree(run)  # killed while it was claimed: nothing but a temporary file
    with told_to(job.log):
        if not (run / SUMMARY).is_file():
            finetune.run(job.options)
        for evaluation in job.evaluations:
            evaluate(evaluation, machine())
    return job


@contextmanager
def told_to(path: Path) -> Iterator[None]:
    """All that is printed and logged goes to a file; bars, which it cannot show, are left out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handlers = logging.root.handlers[:]
    level = logging.root.level
    with path.open("a", encoding="utf-8") as file:
        logging.root.handlers = [logging.StreamHandler(file)]
        logging.root.setLevel(logging.INFO)
        try:
            with redirect_stdout(file), redirect_stderr(file):
                yield
        finally:
            logging.root.handlers = handlers
            logging.root.setLevel(level)


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM stops like Ctrl-C, the workers too: any moment is good, files are whole or absent."""

    def stop(number: int, frame: Any) -> None:
        for worker in multiprocessing.active_children():
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGINT)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def read_cohorts(config: StudyConfig) -> tuple[Cohort, ...]:
    """Test cohorts with their tables.

    Raises:
        UsageError: If there is none, or a table is for no cohort.
    """
    tests = pairs(config.test, "test")
    if not tests:
        raise UsageError("--test: give a cohort to measure on, as A=DIR")
    tables = {}
    for option in ("test_labels", "test_genes"):
        found = pairs(getattr(config, option), option)
        if unknown := sorted(set(found) - set(tests)):
            raise UsageError(f"--{option}: there is no cohort {unknown[0]}; give it by --test")
        tables[option] = {name: Path(table) for name, table in found.items()}
    return tuple(
        Cohort(name, Path(data), tables["test_labels"].get(name), tables["test_genes"].get(name))
        for name, data in tests.items()
    )
