"""What one sees of a run: progress bar, TensorBoard, and a trace of every step as JSON lines."""

import json
import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from gliomoe.data_shards.files import atomic_write
from gliomoe.data_shards.sequences import SEQUENCES

TRACE = "metrics.jsonl"

logger = logging.getLogger(__name__)


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


class Monitor:
    """Shows a run from one process; the others' monitors do nothing.

    Args:
        run: Folder of the run.
        start: First step of this process; what is there from later steps is dropped.
        steps: Steps of the whole run.
        log_every: Steps between TensorBoard's scalars.
        active: True on the process that shows.
    """

    def __init__(self, run: Path, start: int, steps: int, log_every: int, active: bool):
        self.run, self.start, self.steps = run, start, steps
        self.log_every, self.active = log_every, active
        self._seconds = self._waited = 0.0
        self._damaged = 0

    def __enter__(self) -> "Monitor":
        """Open bar, TensorBoard and trace."""
        if self.active:
            from torch.utils.tensorboard import SummaryWriter

            self.run.mkdir(parents=True, exist_ok=True)
            cut_trace(self.run / TRACE, self.start)
            self._damaged = count_damaged(self.run / TRACE)
            self._trace = (self.run / TRACE).open("a", encoding="utf-8")
            self._board = SummaryWriter(str(self.run / "tensorboard"), purge_step=self.start)
            self._bar = tqdm(
                total=self.steps, initial=self.start, desc="pretrain", unit="step", disable=None
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close them."""
        if self.active:
            self._bar.close()
            self._board.close()
            self._trace.close()

    def show(self, report: StepReport) -> None:
        """Show a step."""
        if not self.active:
            return
        entry = {"step": report.step, **report.losses, "norm": report.norm, "lr": report.lr}
        if report.left_out:
            entry["damaged"] = len(report.left_out)
            self._damaged += len(report.left_out)
        print(json.dumps(entry), file=self._trace, flush=True)
        self._seconds = _smooth(self._seconds, report.seconds)
        self._waited = _smooth(self._waited, report.waited)
        speed = report.studies / self._seconds
        wait = 100 * self._waited / self._seconds
        parts = "  ".join(f"{name} {value:.4g}" for name, value in report.losses.items())
        if self._damaged:
            parts += f"  {self._damaged} damaged"
        self._bar.set_postfix_str(f"{parts}  {speed:.1f} studies/s  data wait {wait:.0f} %")
        self._bar.update(report.step + 1 - self._bar.n)
        if (report.step + 1) % self.log_every and report.step + 1 < self.steps:
            return
        if not sys.stderr.isatty():
            logger.info("step %d/%d  %s  %.1f studies/s", report.step + 1, self.steps, parts, speed)
        scalars = {f"loss/{name}": value for name, value in report.losses.items()}
        scalars |= {"speed/studies_per_s": speed, "speed/data_wait_percent": wait}
        scalars |= {"optim/lr": report.lr, "data/damaged": self._damaged}
        if report.norm is not None:
            scalars["optim/gradient_norm"] = report.norm
        scalars |= {f"routers/{name}": value for name, value in report.routers.items()}
        for layer, shares in enumerate(report.expert_use):
            scalars |= {f"experts/layer_{layer}/{e}": share for e, share in enumerate(shares)}
        for name, value in scalars.items():
            self._board.add_scalar(name, value, report.step + 1)

    def show_fusion(self, encoder: nn.Module, step: int) -> None:
        """Weight of each sequence, as if a study had them all."""
        if not self.active:
            return
        for name, weights in encoder.named_parameters():
            if name.endswith("fusion.by_sequence") and weights.requires_grad:
                for sequence, share in zip(SEQUENCES, weights.softmax(0).tolist(), strict=True):
                    self._board.add_scalar(f"fusion/{name}/{sequence}", share, step)

    def show_picture(self, picture: torch.Tensor, step: int) -> None:
        """A picture [3, H, W] from 0 to 1."""
        if self.active:
            self._board.add_image("reconstruction", picture, step)


def cut_trace(path: Path, step: int) -> None:
    """Drop the lines of a trace from `step` on, and a last line that is not whole."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text("utf-8").splitlines(keepends=True):
        if not line.endswith("\n") or read_line(line)["step"] >= step:
            break
        kept.append(line)
    with atomic_write(path, "w") as file:
        file.writelines(kept)


def count_damaged(path: Path) -> int:
    """Studies that could not be read, over all steps of a trace."""
    if not path.is_file():
        return 0
    return sum(read_line(line).get("damaged", 0) for line in path.read_text("utf-8").splitlines())


def read_line(line: str) -> dict[str, Any]:
    """One line of a trace."""
    return json.loads(line)


def _smooth(old: float, new: float) -> float:
    """Running mean that forgets; starts with the first value."""
    return new if old == 0 else 0.9 * old + 0.1 * new
