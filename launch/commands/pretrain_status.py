"""`gliomoe pretrain status`: how a run stands, from another terminal."""

import json
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

if TYPE_CHECKING:
    from gliomoe.pretrain.monitoring.status import Status

EXAMPLE = "gliomoe pretrain status runs/tiny --watch"

_REFRESH = 5.0
_CLEAR = "\033[2J\033[H"


@dataclass(frozen=True)
class Options:
    """Which run, and how to show it."""

    run: tyro.conf.Positional[Path]
    """Folder of a pretraining run, under way or not."""
    json: bool = False
    """Print it as JSON."""
    watch: bool = False
    """Show it anew every five seconds, until the run is finished or Ctrl-C."""


def run(options: Options) -> int:
    """Print it."""
    from gliomoe.pretrain.monitoring.status import read_status

    while True:
        status = read_status(options.run)
        text = json.dumps(status.to_json()) if options.json else _text(status)
        print(f"{_CLEAR if options.watch and not options.json else ''}{text}", flush=True)
        if not options.watch or status.state == "finished":
            return 0
        try:
            time.sleep(_REFRESH)
        except KeyboardInterrupt:
            return 0


def _text(status: "Status") -> str:
    """For a person."""
    where = f" on {status.host}, {status.world} x {status.device}" if status.host else ""
    rows = [("run", f"{status.run}: {status.state}{where}, started {_times(status.starts)}")]
    done = f"{status.step:,} of {status.steps:,} ({100 * status.step / status.steps:.1f} %)"
    if status.step:
        done += f", the last {_ago(status.sign_s)}"
    rows.append(("step", done))
    if status.studies_per_s:
        speed = f"{status.studies_per_s:.3g} studies/s, data wait {status.data_wait_percent:.1f} %"
        if status.state == "running" and status.left_s is not None:
            speed += f", {_duration(status.left_s)} left"
        rows.append(("speed", speed))
    for name, value in status.losses.items():
        before = f"   {status.when} {status.before[name]:.4g}" if name in status.before else ""
        rows.append((name, f"{value:.4g}{before}"))
    if status.checkpoint is None or status.checkpoint_s is None:
        rows.append(("checkpoint", "none yet"))
    else:
        rows.append(("checkpoint", f"step {status.checkpoint:,}, {_ago(status.checkpoint_s)}"))
    rows.append(("trouble", _trouble(status)))
    if status.probe:
        first, last = status.probe
        for name, value in last.items():
            if name != "steps":
                random = f"   random weights {first[name]:.4g}" if name in first else ""
                rows.append((f"probe {name}", f"{value:.4g}{random}"))
    unit = "GPU" if status.device == "cuda" else "process"
    rows.append(("used", f"{status.hours:.2f} {unit} hours"))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:{width}s}  {text}" for name, text in rows)


def _trouble(status: "Status") -> str:
    """What went wrong so far."""
    experts = [f"{expert} of mixture {layer}" for layer, expert in status.unused]
    told = [
        f"{status.skipped} steps skipped" if status.skipped else "",
        f"{status.damaged} damaged studies stood in for" if status.damaged else "",
        f"unused experts: {', '.join(experts)}" if experts else "",
    ]
    return "; ".join(filter(None, told)) or "none"


def _times(count: int) -> str:
    """How often."""
    return "once" if count == 1 else f"{count} times"


def _ago(seconds: float) -> str:
    """How long ago."""
    return f"{_duration(seconds)} ago"


def _duration(seconds: float) -> str:
    """As days, hours, minutes and seconds."""
    return str(timedelta(seconds=round(seconds)))
