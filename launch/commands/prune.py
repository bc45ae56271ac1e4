"""`gliomoe prune`: drop the least used experts of a fine-tuned run."""

import json
import signal
from dataclasses import dataclass, replace
from pathlib import Path

import tyro

from gliomoe.data_shards.errors import UsageError
from gliomoe.finetune.config import FinetuneConfig
from gliomoe.finetune.distil import DistilConfig
from gliomoe.finetune.prune import Size, prune, sizes
from gliomoe.finetune.run import SPLITS, SUMMARY, FinetunedRun
from gliomoe.finetune.train import prepare
from gliomoe.launch import options as flags
from gliomoe.launch.commands import finetune
from gliomoe.launch.runs import RECORD, claim, release

EXAMPLE = "gliomoe prune runs/first --experts 4 --out runs/smaller"
FREE = ("train.device",)
"""Settings that may change when pruning goes on."""


@dataclass(frozen=True)
class Options:
    """Drop the least used experts of a fine-tuned run, fold by fold."""

    run: tyro.conf.Positional[Path]
    """Folder of a fine-tuned run, whose data, labels and checkpoint are where it found them."""
    experts: int
    """Experts that each mixture keeps: those chosen most often on the training cases of a fold."""
    out: Path
    """Folder of the smaller run, for evaluate and predict."""
    data: Path | None = None
    """Where the run's data are now, if they moved."""
    labels: Path | None = None
    """Where the run's labels are now, if they moved."""
    device: str = "auto"
    """`auto`: the GPU if there is one."""
    dry_run: bool = False
    """Check everything, print the sizes, and write nothing."""


def run(options: Options) -> int:
    """Check, claim the folder, prune what is missing."""
    source = FinetunedRun.open(options.run)
    config = _configuration(options)
    before, after = sizes(source, options.experts)
    print(f"before  {_size(before)}\nafter   {_size(after)}, {options.experts} experts a mixture")
    if options.dry_run:
        prepare(config)
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    table = {**flags.to_table(config), "run": str(options.run), "experts": options.experts}
    continued = claim(options.out, "prune", table, FREE)
    try:
        prepared = prepare(config)
    except BaseException:
        if not continued:
            release(options.out)
        raise
    summary = prune(source, config, prepared, options.experts)
    for region, value in summary["dice"].items():
        print(f"validation Dice {region}  {source.summary['dice'][region]:.3f} → {value:.3f}")
    print(f"{len(summary['folds'])} folds: {options.out / SUMMARY}")
    return 0


def _configuration(options: Options) -> FinetuneConfig:
    """The configuration of the run, with its own splits and without a teacher.

    Raises:
        UsageError: If the folder is not that of a whole run.
    """
    record = options.run / RECORD
    if not record.is_file():
        raise UsageError(f"{options.run}: has no {RECORD}; give the folder of a whole run")
    table = json.loads(record.read_text("utf-8"))["config"]
    table = {key: value for key, value in table.items() if key not in ("run", "experts")}
    found = flags.parse(finetune.Options, [], "gliomoe prune", table=table, source=str(record))
    return replace(
        found,
        data=options.data or found.data,
        labels=options.labels or found.labels,
        cache=found.cache or options.run / "shards",
        splits=options.run / SPLITS,
        teacher=None,
        distil=DistilConfig(),
        out=options.out,
        train=replace(found.train, device=options.device),
    )


def _size(size: Size) -> str:
    """Parameters, active parameters and megabytes of a model."""
    return (
        f"{size.parameters:,} parameters ({size.active:,} active), {size.bytes / 1e6:.1f} MB a fold"
    )
