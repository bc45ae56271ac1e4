"""How fast a process is expected to be: measured where there is a measurement, else assumed."""

from collections.abc import Sequence
from pathlib import Path

from gliomoe.pretrain.config import PretrainConfig
from gliomoe.pretrain.planning.cost import Speed
from gliomoe.pretrain.planning.hardware import find_gpu
from gliomoe.pretrain.planning.measured import measured_run, read_measured, reading_speed
from gliomoe.pretrain.planning.work import Work

ASSUMED_MFU = (0.05, 0.25)
"""Parts of a GPU's peak that are assumed where nothing was measured: no result."""
ASSUMED_OVERHEAD = (0.02, 0.1)
"""Seconds of a step that no batch shortens (launching kernels, optimizer), assumed likewise."""


def expected_speeds(
    config: PretrainConfig,
    work: Work,
    gpu: str | None,
    measured: Path | None = None,
    reading: Path | None = None,
    mfu: tuple[float, float] = ASSUMED_MFU,
    overhead: tuple[float, float] = ASSUMED_OVERHEAD,
) -> tuple[Sequence[Speed], str]:
    """Speeds of a process, and where they come from.

    Args:
        config: Of the run; its folder's own step times win over an assumption.
        work: Of one study.
        gpu: Name of the GPUs, None on CPU.
        measured: Run or file with step times.
        reading: Result of `tests/benchmarks/loader.py`.
        mfu: Parts of the GPU's peak to assume where nothing was measured, from and to.
        overhead: Seconds of every step to assume there, from and to.

    Returns:
        None, one or two speeds.

    Raises:
        UsageError: If `measured` or `reading` holds no measurement.
    """
    studies_per_s = reading_speed(reading, config) if reading else None
    if measured is None and measured_run(config.run.out):
        measured = config.run.out
    if measured is not None:
        found = read_measured(measured, config, work)
        return [Speed(*found.fit(), studies_per_s)], f"measured: {found.source}"
    known = find_gpu(gpu) if gpu else None
    if known is None:
        return [], "nothing measured"
    speeds = [
        Speed(part * known.peak_tflops * 1e12, seconds, studies_per_s)
        for part, seconds in zip(mfu, reversed(overhead), strict=True)
    ]
    return speeds, f"assumed, not measured: {100 * mfu[0]:g} to {100 * mfu[1]:g} % of the peak"
