"""What one sees of a run: progress, curves, pictures, and files of JSON lines for programs."""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from types import TracebackType

import torch
from torch import nn

from gliomoe.pretrain.config import PretrainConfig
from gliomoe.pretrain.monitoring import charts
from gliomoe.pretrain.monitoring.bar import Bar
from gliomoe.pretrain.monitoring.journal import (
    EXPERTS,
    PROBE,
    STARTS,
    TIMING,
    TRACE,
    Journal,
    cut,
    read_lines,
)
from gliomoe.pretrain.monitoring.sinks import open_sinks

_TIMES = 300
"""Columns of the picture of the experts' use."""


@dataclass(frozen=True)
class StepReport:
    """What a step did, averaged over the ranks."""

    step: int
    """Number of the step, from 0."""
    losses: dict[str, float]
    """`loss` and its parts."""
    norm: float | None
    """Norm of the gradient; None if the step was skipped."""
    lr: float
    studies: int
    """Studies of the step, over all ranks."""
    seconds: float
    """Duration of the step."""
    waited: float
    """Seconds of it spent waiting for data."""
    left_out: tuple[str, ...] = ()
    """Messages about studies that could not be read and were stood in for, of all ranks."""
    expert_use: list[list[float]] = field(default_factory=list)
    """Each expert's share of the choices, layer by layer."""
    routers: dict[str, float] = field(default_factory=dict)
    """What `faults.routers` says of the experts' use; empty if the step was skipped."""
    parts: dict[str, float] = field(default_factory=dict)
    """Seconds of the step's other parts by name."""


class Monitor:
    """Shows a run from one process; the others' monitors do nothing.

    Args:
        config: The run's configuration.
        start: Steps done before; what is on file from later ones is dropped.
        device: Where it trains.
        world: Number of processes.
        active: True on the process that shows.
    """

    def __init__(
        self, config: PretrainConfig, start: int, device: torch.device, world: int, active: bool
    ):
        self.config, self.start, self.active = config, start, active
        self._device, self._world = device, world
        self._window = _Window()
        self._pace = _Pace()

    def __enter__(self) -> "Monitor":
        """Open everything."""
        if not self.active:
            return self
        run, start = self.config.run.out, self.start
        cut(run / TRACE, lambda line: line["step"] < start)
        cut(run / EXPERTS, lambda line: line["steps"] <= start)
        cut(run / PROBE, lambda line: line["steps"] < start)
        before = read_lines(run / TRACE)
        self._damaged = sum(line.get("damaged", 0) for line in before)
        self._skipped = sum(line["norm"] is None for line in before)
        self._trace, self._timing = Journal(run / TRACE), Journal(run / TIMING)
        self._experts, self._probe = Journal(run / EXPERTS), Journal(run / PROBE)
        self._logged = time.time()
        starts = Journal(run / STARTS)
        starts.write(
            {
                "time": round(self._logged, 1),
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "world": self._world,
                "device": self._device.type,
                "steps": start,
            }
        )
        starts.close()
        about = json.loads(json.dumps(asdict(self.config), default=str))
        self._sinks = open_sinks(self.config.monitor, run, start, about)
        self._bar = Bar(start, self.config.run.steps, self.config.monitor.log_every)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close everything."""
        if self.active:
            self._bar.close()
            for sink in self._sinks:
                sink.close()
            for journal in (self._trace, self._timing, self._experts, self._probe):
                journal.close()

    def show(self, report: StepReport) -> None:
        """Show a step."""
        if not self.active:
            return
        entry = {"step": report.step, **report.losses, "norm": report.norm, "lr": report.lr}
        if report.left_out:
            entry["damaged"] = len(report.left_out)
        self._trace.write(entry)
        self._damaged += len(report.left_out)
        self._skipped += report.norm is None
        self._pace.add(report)
        self._window.add(report)
        told = {"damaged": self._damaged, "skipped": self._skipped}
        parts = report.losses | {name: count for name, count in told.items() if count}
        done = report.step + 1
        self._bar.show(done, self._pace.speed, self._pace.wait, parts)
        if done % self.config.monitor.log_every == 0 or done == self.config.run.steps:
            self._log(report, done)

    def _log(self, report: StepReport, done: int) -> None:
        """Curves and files of the steps since the last time."""
        window, self._window = self._window, _Window()
        now, before = time.time(), self._logged
        self._logged = now
        memory = charts.memory_scalars(self._device)
        self._timing.write(
            {
                "time": round(now, 1),
                "steps": done,
                "of": window.steps,
                "wall": round(now - before, 3),
                "studies": window.studies,
                "seconds": {name: round(spent, 4) for name, spent in window.seconds.items()},
                "memory": {name.split("/")[1]: round(gb, 3) for name, gb in memory.items()},
                "world": self._world,
            }
        )
        wait = 100 * window.seconds["data_wait"] / window.seconds["step"]
        scalars = {f"train/{name}": value for name, value in window.losses.items()}
        scalars |= charts.timing_scalars(window.seconds, window.steps, window.studies, wait)
        scalars |= {"data/damaged_studies": self._damaged, "optim/skipped_steps": self._skipped}
        scalars |= memory | {"optim/learning_rate": report.lr}
        if report.norm is not None:
            scalars["optim/gradient_norm"] = report.norm
        scalars |= {f"experts/{name}": value for name, value in report.routers.items()}
        if use := window.expert_use:
            self._experts.write(
                {"steps": done, "use": [[round(share, 5) for share in layer] for layer in use]}
            )
            scalars |= charts.expert_scalars(use)
        self._scalars(scalars, done)

    def show_fusion(self, encoder: nn.Module, step: int) -> None:
        """Weight of each sequence."""
        if self.active:
            self._scalars(charts.sequence_scalars(encoder), step)

    def show_probe(self, figures: dict[str, float], step: int) -> None:
        """Figures of the probe after so many steps."""
        if self.active:
            self._probe.write({"steps": step, **figures})
            self._scalars({f"probe/{name}": value for name, value in figures.items()}, step)

    def show_pictures(self, pictures: dict[str, torch.Tensor], step: int) -> None:
        """Pictures [3, H, W] from 0 to 1 by name, and one of the experts' use so far."""
        from gliomoe.pretrain.monitoring.pictures import use_picture

        if not self.active:
            return
        if lines := read_lines(self.config.run.out / EXPERTS, _TIMES):
            pictures = {**pictures, "experts/use": use_picture(lines)}
        for sink in self._sinks:
            for name, picture in pictures.items():
                sink.image(name, picture, step)

    @contextmanager
    def at_work(self, what: str) -> Iterator[None]:
        """Show what is done between two steps, and count its time."""
        begun = time.perf_counter()
        if not self.active:
            yield
            return
        with self._bar.at_work(what):
            yield
        self._window.other(what, time.perf_counter() - begun)

    def _scalars(self, values: dict[str, float], step: int) -> None:
        """To all sinks."""
        for sink in self._sinks:
            sink.scalars(values, step)


class _Pace:
    """Running means of speed and wait, for the bar."""

    def __init__(self) -> None:
        self._seconds = self._waited = 0.0
        self._studies = 0

    def add(self, report: StepReport) -> None:
        """Take in a step."""
        self._seconds = _smooth(self._seconds, report.seconds)
        self._waited = _smooth(self._waited, report.waited)
        self._studies = report.studies

    @property
    def speed(self) -> float:
        """Studies a second."""
        return self._studies / self._seconds

    @property
    def wait(self) -> float:
        """Percent of the time spent waiting for data."""
        return 100 * self._waited / self._seconds


class _Window:
    """Sums over the steps since curves were last written."""

    def __init__(self) -> None:
        self.steps = self.studies = 0
        self.seconds: dict[str, float] = {}
        self._losses: dict[str, float] = {}
        self._use: torch.Tensor | None = None
        self._finite = 0

    def add(self, report: StepReport) -> None:
        """Take in a step; the losses of a skipped one do not count."""
        self.steps += 1
        self.studies += report.studies
        timed = {"step": report.seconds, "data_wait": report.waited, **report.parts}
        for name, seconds in timed.items():
            self.other(name, seconds)
        if report.norm is None:
            return
        self._finite += 1
        for name, value in report.losses.items():
            self._losses[name] = self._losses.get(name, 0.0) + value
        if report.expert_use:
            use = torch.tensor(report.expert_use, dtype=torch.float64)
            self._use = use if self._use is None else self._use + use

    def other(self, name: str, seconds: float) -> None:
        """Take in time of a step's part or of work between steps."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    @property
    def losses(self) -> dict[str, float]:
        """Means over the steps that were not skipped."""
        return {name: total / self._finite for name, total in self._losses.items()}

    @property
    def expert_use(self) -> list[list[float]]:
        """Means over the steps that were not skipped, layer by layer; empty without experts."""
        return [] if self._use is None else (self._use / self._finite).tolist()


def _smooth(old: float, new: float) -> float:
    """Running mean that forgets; starts with the first value."""
    return new if old == 0 else 0.9 * old + 0.1 * new
