"""Runs the items of `gpu_items.py` one by one, each in a process with a limit of its own.

    launch/gpu_check.sh          makes this module importable from a checkout and starts it

Notable: this process never touches the GPU. A measurement that hangs, runs out of memory or takes
too long ends alone, and its memory with it.
"""

import argparse
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from gliomoe.data_shards.files import write_json
from gliomoe.launch.bench import gpu_items
from gliomoe.launch.bench.gpu_items import Setup
from gliomoe.launch.runs import machine
from gliomoe.models import list_models

FLAGSHIP, PARITY = "gliomoe_base", "magpie_mednext_l"

LIMITS = {
    "flops": 30,
    "pretraining": 70,
    "inference": 40,
    "experts_agree": 30,
    "precision": 40,
    "recomputed": 40,
    "inference_compiled": 90,
    "compiled": 110,
}
"""Item → seconds after which it is stopped, in the order in which they are measured."""

_QUICK = Setup(device="cpu", size=32, batches=(1, 2), batch=1, seconds=0.1)
_LEAST = 10.0
"""Seconds with which no further item is begun."""


def run_all(models: Sequence[str], setup: Setup, minutes: float, items: Sequence[str]) -> Any:
    """The result of every item.

    Returns:
        `device`, and model → item → figures; an item that was not measured has `left_out`, one
        that failed `error`.
    """
    end = time.monotonic() + 60 * minutes
    device = _limited("machine", partial(gpu_items.machine, setup), 60)
    if "error" in device or "left_out" in device:
        return {"device": device}
    found: dict[str, dict[str, Any]] = {model: {} for model in models}
    for item in items:
        for model in models if item != "experts_agree" else models[:1]:
            if model not in list_models():
                found[model][item] = {"left_out": "not registered in this version"}
                continue
            left = end - time.monotonic()
            if left < _LEAST:
                found[model][item] = {"left_out": f"the {minutes:g} minutes were used up"}
                continue
            measure = partial(getattr(gpu_items, item), model, setup)
            found[model][item] = _limited(f"{model} {item}", measure, min(left, LIMITS[item]))
    for results in found.values():
        _utilisation(results, device["peak_bf16_tflops"], setup)
    return {"device": device, "models": found}


def _limited(title: str, measure: partial, seconds: float) -> dict[str, Any]:
    """What a measurement finds in a process of its own, within so many seconds."""
    print(f"{title} …", end=" ", file=sys.stderr, flush=True)
    begun = time.monotonic()
    ours, theirs = multiprocessing.get_context("fork").Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=_child, args=(measure, theirs))
    process.start()
    theirs.close()
    try:
        found = (
            ours.recv()
            if ours.poll(seconds)
            else {"left_out": f"stopped: took more than {seconds:.0f} s"}
        )
    except EOFError:  # it died without a word
        found = {"error": "the process ended without a result"}
    _stop(process)
    spent = time.monotonic() - begun
    note = found.get("error") or found.get("left_out") or "done"
    print(f"{note}, {spent:.1f} s", file=sys.stderr, flush=True)
    return {**found, "wall_s": round(spent, 1)}


def _child(measure: partial, pipe: Connection) -> None:
    """Measure and tell; every failure becomes a word in the result."""
    os.setsid()  # so that whatever it starts, such as compilers, can be stopped with it
    try:
        found = measure()
    except Exception as error:
        found = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"}
    pipe.send(found)


def _stop(process: Any) -> None:
    """End a child and what it started."""
    process.join(1)
    if process.pid is not None:
        with suppress(ProcessLookupError):  # where all of it has ended
            os.killpg(process.pid, signal.SIGKILL)
    process.join()


def _utilisation(results: dict[str, Any], peak: float | None, setup: Setup) -> None:
    """Add model FLOPs utilisation to every step: three forward passes over time and peak."""
    forward = results.get("flops", {}).get("pretraining_forward")
    batches = results.get("pretraining", {}).get("batches", {}).values()
    steps = [*batches, results.get("recomputed"), results.get("compiled")]
    for step in steps:
        if forward and isinstance(step, dict) and "step_s" in step:
            rate = 3 * forward * step["studies"] / step["step_s"]
            step["model_tflops_per_s"] = round(rate / 1e12, 3)
            if peak:
                step["mfu"] = round(rate / (peak * 1e12), 4)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write JSON, and tell where it is."""
    parser = argparse.ArgumentParser(prog="launch/gpu_check.sh", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("gpu_check.json"))
    parser.add_argument("--minutes", type=float, default=7.5, help="for all items together")
    parser.add_argument("--models", nargs="+", help=f"default: {FLAGSHIP} {PARITY}")
    parser.add_argument("--items", nargs="+", choices=LIMITS, default=list(LIMITS))
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny and short; proves nothing")
    options = parser.parse_args(arguments)
    setup = Setup(device=options.device)
    if options.quick:
        setup = Setup(**{**asdict(_QUICK), "device": options.device})
    models = options.models or (["gliomoe_tiny"] if options.quick else [FLAGSHIP, PARITY])
    if unknown := [name for name in options.models or () if name not in list_models()]:
        parser.error(f"unknown model {unknown[0]!r}; known: {', '.join(list_models())}")
    result = {
        "setup": {
            **asdict(setup),
            "quick": options.quick,
            "dtype": "bfloat16 autocast",
            "sequences": 4,
            "air": "none: every voxel is tissue",
            "pretraining": "objective mae, one view a study, 75 % masked, with an AdamW step",
            "mfu": "3 × counted forward FLOPs, recomputation not counted",
        },
        **run_all(models, setup, options.minutes, options.items),
        "machine": {**machine(), "triton": _triton()},
    }
    write_json(options.out, result)
    print(f"{options.out}: written", file=sys.stderr)
    return 1 if '"error": ' in json.dumps(result) else 0


def _triton() -> str | None:
    """Version of Triton, which torch.compile needs on a GPU."""
    try:
        import triton
    except ImportError:
        return None
    return triton.__version__


if __name__ == "__main__":
    torch.set_num_threads(min(8, os.cpu_count() or 1))
    sys.exit(main())
