"""How a run stands, from the files in its folder alone, while it runs or after."""

import json
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gliomoe.data_shards.errors import UsageError
from gliomoe.pretrain.monitoring.journal import (
    EXPERTS,
    MEAN,
    PROBE,
    STARTS,
    TIMING,
    TRACE,
    mean_losses,
    read_lines,
)

_RECENT = 20
"""Lines of the timing from which speed is taken."""
_HOUR = 3600.0
_FAR = 1000
"""Steps back to compare with, where the run is younger than an hour."""
_PATIENCE = 120.0
"""Seconds without a step that need not mean anything."""

Line = dict[str, Any]


@dataclass(frozen=True)
class Status:
    """A run at one moment."""

    run: str
    state: str
    """`starting`, `running`, `silent` (no sign for long, though it should run), `stopped` or
    `finished`."""
    host: str
    """Where rank 0 ran last."""
    pid: int
    world: int
    """Processes."""
    device: str
    starts: int
    """How often it was started."""
    step: int
    """Steps done."""
    steps: int
    """Steps of the whole run."""
    sign_s: float
    """Seconds since the last step was written."""
    losses: dict[str, float]
    """Means over the last steps."""
    before: dict[str, float]
    """The same earlier."""
    when: str
    """When that was."""
    studies_per_s: float
    data_wait_percent: float
    left_s: float | None
    """Seconds to the end at the present pace, checkpoints and probes included."""
    checkpoint: int | None
    """Step of the newest checkpoint."""
    checkpoint_s: float | None
    """Its age, seconds."""
    skipped: int
    """Steps."""
    damaged: int
    """Studies that could not be read."""
    unused: list[tuple[int, int]]
    """Mixture and number of each expert below `health.collapse_share` for
    `health.collapse_steps`."""
    hours: float
    """Of all processes together, lost work included."""
    probe: list[Line]
    """The first line of the probe, of random weights, and the last."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def read_status(run: Path) -> Status:
    """How a run stands.

    Args:
        run: Its folder; another process may be writing there.

    Raises:
        UsageError: If the folder holds no pretraining run.
    """
    config = _configuration(run)
    starts, timing = read_lines(run / STARTS), read_lines(run / TIMING)
    trace = read_lines(run / TRACE)
    now, last = time.time(), starts[-1] if starts else {}
    checkpoint = _checkpoint(run, now)
    done = trace[-1]["step"] + 1 if trace else last.get("steps", 0)
    steps = config["run"]["steps"]
    recent = [line for line in timing if line["time"] >= last["time"]][-_RECENT:]
    pace = sum(line["wall"] for line in recent) / sum(line["of"] for line in recent or [{"of": 1}])
    sign = now - (run / TRACE).stat().st_mtime if trace else 0.0
    spent = sum(line["seconds"]["step"] for line in recent)
    waited = sum(line["seconds"]["data_wait"] for line in recent)
    earlier, when = _earlier(timing, done)
    probe = read_lines(run / PROBE)
    finished = checkpoint is not None and checkpoint[0] >= steps
    return Status(
        run=str(run),
        state="finished" if finished else _state(last, sign, pace, bool(trace)),
        host=last.get("host", ""),
        pid=last.get("pid", 0),
        world=last.get("world", 0),
        device=last.get("device", ""),
        starts=len(starts),
        step=done,
        steps=steps,
        sign_s=sign,
        losses=mean_losses(trace, done),
        before=mean_losses(trace, earlier),
        when=when,
        studies_per_s=sum(line["studies"] for line in recent) / spent if spent else 0.0,
        data_wait_percent=100 * waited / spent if spent else 0.0,
        left_s=pace * (steps - done) if recent else None,
        checkpoint=checkpoint[0] if checkpoint else None,
        checkpoint_s=checkpoint[1] if checkpoint else None,
        skipped=sum(line["norm"] is None for line in trace),
        damaged=sum(line.get("damaged", 0) for line in trace),
        unused=unused_experts(read_lines(run / EXPERTS), **_limits(config)),
        hours=sum(line["wall"] * line["world"] for line in timing) / _HOUR,
        probe=[probe[0], probe[-1]] if probe else [],
    )


def unused_experts(lines: Sequence[Line], share: float, steps: int) -> list[tuple[int, int]]:
    """Mixture and number of the experts that were hardly used over all of the last steps.

    Args:
        lines: Of the journal of experts.
        share: Below this share of the choices an expert counts as unused.
        steps: For how many steps; none is reported before there are as many.
    """
    if not lines or lines[-1]["steps"] - lines[0]["steps"] < steps:
        return []
    last = [line["use"] for line in lines if line["steps"] > lines[-1]["steps"] - steps]
    return [
        (layer, expert)
        for layer, shares in enumerate(last[-1])
        for expert in range(len(shares))
        if all(use[layer][expert] < share for use in last)
    ]


def _configuration(run: Path) -> dict[str, Any]:
    """The configuration of a pretraining run."""
    record = run / "run.json"
    content = json.loads(record.read_text("utf-8")) if record.is_file() else {}
    if content.get("command") != "pretrain":
        raise UsageError(f"{run}: not the folder of a pretraining run; gliomoe pretrain makes one")
    return content["config"]


def _limits(config: dict[str, Any]) -> dict[str, Any]:
    """What counts as an unused expert."""
    health = config["health"]
    return {"share": health["collapse_share"], "steps": health["collapse_steps"]}


def _state(start: Line, sign: float, pace: float, stepped: bool) -> str:
    """Whether an unfinished run goes on."""
    if not start:
        return "starting"
    if start["host"] == socket.gethostname() and not _alive(start["pid"]):
        return "stopped"
    if not stepped:
        return "starting"
    return "silent" if sign > max(_PATIENCE, 20 * pace) else "running"


def _alive(pid: int) -> bool:
    """Whether there is such a process on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def _checkpoint(run: Path, now: float) -> tuple[int, float] | None:
    """Step and age of the newest checkpoint; what is in it is looked at when it is taken up."""
    latest = run / "checkpoints/latest"
    if not latest.is_file():
        return None
    step = int(latest.read_text("utf-8").strip().removeprefix("step_"))
    return step, now - latest.stat().st_mtime


def _earlier(timing: Sequence[Line], done: int) -> tuple[int, str]:
    """Steps done at the moment to compare with, and what to call it."""
    hour = [line["steps"] for line in timing if line["time"] <= timing[-1]["time"] - _HOUR]
    if hour:
        return hour[-1], "an hour before"
    if done > _FAR:
        return done - _FAR, f"{_FAR} steps before"
    return min(MEAN, done), "at the start"
