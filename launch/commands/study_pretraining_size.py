"""`gliomoe study pretraining_size`: what is gained by the number of studies pretrained on."""

from dataclasses import dataclass

from gliomoe.launch.studies.config import PretrainStudyConfig

EXAMPLE = (
    "gliomoe study pretraining_size --unlabelled shards/ --sizes 50 200 800 "
    "--pretrain quickstart run.steps=500 --data cases/ --labels labels.tsv --test A=test_a/ "
    "--finetune quickstart --out studies/pretraining_size"
)
_FREE = ("sizes",)


@dataclass(frozen=True, kw_only=True)
class Options(PretrainStudyConfig):
    """Pretrain on subsets of the studies at equal steps, fine-tune, and compare with scratch."""

    sizes: tuple[int, ...]
    """Studies to pretrain on, drawn at random; fewer are among more."""


def run(options: Options) -> int:
    """Pretrain, run the grid and print the table."""
    from gliomoe.launch.studies.plots import sizes_figure
    from gliomoe.launch.studies.pretraining import planned_pretraining
    from gliomoe.launch.studies.sizes import read_sizes, size_rows
    from gliomoe.launch.studies.study import fill, planned, tell

    pretrainings, grid = read_sizes(options, options.sizes)
    if options.dry_run:
        print(f"{planned_pretraining(pretrainings)}\n{planned(grid)}")
        return 0
    fill(options, grid, "study pretraining_size", _FREE, pretrainings)
    tell(options, "pretraining_size", size_rows(grid), sizes_figure)
    return 0
