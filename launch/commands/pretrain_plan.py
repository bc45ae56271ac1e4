"""`gliomoe pretrain plan`: hours, memory and what binds, for a number of GPUs."""

import json
from dataclasses import dataclass, field, fields
from pathlib import Path

from gliomoe.pretrain.config import PretrainConfig
from gliomoe.pretrain.planning.hardware import GPUS, Cluster, find_gpu
from gliomoe.pretrain.planning.speeds import ASSUMED_MFU, ASSUMED_OVERHEAD
from gliomoe.pretrain.sections import DataConfig, RunConfig

PRESETS = "gliomoe.pretrain"
EXAMPLE = "gliomoe pretrain plan gliomoe_base --gpus 8 64 --measured gpu_check.json"

_NOWHERE = "none"
_READING = Path(__file__).resolve().parents[2] / "tests/benchmarks/results/loader.json"


@dataclass(frozen=True)
class Options(PretrainConfig):
    """A run's configuration, of which data and folder may be left out, and where it would run."""

    data: DataConfig = field(default_factory=lambda: DataConfig(train=(_NOWHERE,)))
    run: RunConfig = field(default_factory=lambda: RunConfig(out=Path(_NOWHERE)))
    gpus: tuple[int, ...] = (1, 4, 32, 256, 1024)
    """Numbers of GPUs."""
    gpu: str = "H100"
    """Their kind."""
    cluster: Cluster = field(default_factory=Cluster)
    """What connects them."""
    mfu: tuple[float, float] = ASSUMED_MFU
    """Parts of the GPU's peak to assume where nothing was measured, from and to."""
    overhead: tuple[float, float] = ASSUMED_OVERHEAD
    """Seconds of every step to assume there, from and to."""
    measured: Path | None = None
    """A run, `gpu_check.json` or `scaling.json` whose step times replace that assumption."""
    loader: Path | None = None
    """Result of `tests/benchmarks/loader.py`; the checkout's own if there is one."""
    table: bool = False
    """Print the table as Markdown."""
    json: bool = False
    """Print JSON."""

    def __post_init__(self) -> None:
        """Refuse clusters of nothing, and GPUs that are not known."""
        super().__post_init__()
        if not self.gpus or min(self.gpus) < 1:
            raise ValueError("gpus must be positive")
        if not 0 < self.mfu[0] <= self.mfu[1] <= 1:
            raise ValueError("mfu must be two parts of 1, the smaller first")
        if not 0 <= self.overhead[0] <= self.overhead[1]:
            raise ValueError("overhead must be two durations, the shorter first")
        if find_gpu(self.gpu) is None:
            raise ValueError(f"unknown gpu {self.gpu!r}; known: {', '.join(GPUS)}")


def run(options: Options) -> int:
    """Count the work, predict, print."""
    from gliomoe.pretrain.planning.plan import span
    from gliomoe.pretrain.planning.speeds import expected_speeds
    from gliomoe.pretrain.planning.table import markdown, row
    from gliomoe.pretrain.planning.work import count_work

    config = PretrainConfig(**{f.name: getattr(options, f.name) for f in fields(PretrainConfig)})
    work = count_work(config, "autocast")
    reading = options.loader or (_READING if _READING.is_file() else None)
    speeds, source = expected_speeds(
        config, work, options.gpu, options.measured, reading, options.mfu, options.overhead
    )
    rows = [
        row(config, work, options.gpu, gpus, speeds, source, options.cluster)
        for gpus in options.gpus
    ]
    if options.json:
        print(json.dumps({"source": source, "rows": [found.to_json() for found in rows]}, indent=2))
        return 0
    if options.table:
        print(markdown(f"{config.model.name} on {options.gpu}", rows))
        return 0
    for found in rows:
        print(
            f"{found.gpus:5,} GPUs  {span(found.hours):>12s} h  {found.memory_gb:6.1f} GB a GPU  "
            f"bound by {found.binds}"
        )
        if found.change:
            print(f"            change {found.change}")
    print(f"speed {source}")
    return 0
