"""`gliomoe export`: turn a pretraining run into a checkpoint folder to publish."""

from dataclasses import dataclass
from pathlib import Path

import tyro

EXAMPLE = "gliomoe export runs/tiny --out checkpoints/tiny"


@dataclass(frozen=True)
class Options:
    """What to export."""

    run: tyro.conf.Positional[Path]
    """Folder of a pretraining run; its newest checkpoint is taken."""
    out: Path
    """Folder to make."""


def run(options: Options) -> int:
    """Export and say what was written."""
    from gliomoe.pretrain.export import export

    checkpoint = export(options.run, options.out)
    print(f"{options.out}: encoder after {checkpoint.step} steps of {options.run}")
    return 0
