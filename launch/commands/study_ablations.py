"""`gliomoe study ablations`: what every part of the method is worth."""

from dataclasses import dataclass
from pathlib import Path

from gliomoe.launch.studies.config import PretrainStudyConfig

EXAMPLE = (
    "gliomoe study ablations --unlabelled shards/ --pretrain quickstart run.steps=500 "
    "--data cases/ --labels labels.tsv --test A=test_a/ --finetune quickstart "
    "--only dense no_contrast --out studies/ablations"
)
_FREE = ("only", "variants")
"""More variants may be added; each refuses a change that concerns it."""


@dataclass(frozen=True, kw_only=True)
class Options(PretrainStudyConfig):
    """Pretrain, fine-tune and measure the full recipe and variants that lack or change a part."""

    variants: Path | None = None
    """TOML file: for each variant a table with changes under `pretrain`, `finetune` or both; None:
    launch/studies/ablations.toml."""
    only: tuple[str, ...] = ()
    """Variants of the file to run; empty: all."""


def run(options: Options) -> int:
    """Pretrain, run the grid and print the table."""
    from gliomoe.launch.studies.ablations import FULL, read_variants
    from gliomoe.launch.studies.plots import forest_figure
    from gliomoe.launch.studies.pretraining import planned_pretraining
    from gliomoe.launch.studies.rows import grid_rows
    from gliomoe.launch.studies.study import fill, planned, tell

    pretrainings, grid = read_variants(options, options.variants, options.only)
    if options.dry_run:
        print(f"{planned_pretraining(pretrainings)}\n{planned(grid)}")
        return 0
    fill(options, grid, "study ablations", _FREE, pretrainings)
    tell(options, "ablations", grid_rows(grid, FULL), forest_figure)
    return 0
