"""Pretraining on subsets of a shard set, with training from scratch as the zero point."""

from collections.abc import Sequence
from dataclasses import replace

from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.reading.indexed import ShardSet
from gliomoe.finetune.config import SCRATCH
from gliomoe.finetune.studies.output import Row
from gliomoe.launch.studies.config import PretrainStudyConfig, Table
from gliomoe.launch.studies.grid import Grid
from gliomoe.launch.studies.pretraining import Pretraining, read_pretrainings, scratch_arm
from gliomoe.launch.studies.rows import grid_rows
from gliomoe.launch.studies.study import make_grid


def read_sizes(config: PretrainStudyConfig, sizes: Sequence[int]) -> tuple[list[Pretraining], Grid]:
    """The pretrainings of a study of sizes, and its runs.

    Raises:
        UsageError: If there are too few studies, or settings do not fit.
    """
    if not sizes or len(set(sizes)) < len(sizes):
        raise UsageError("--sizes: give one or more numbers of studies, each once")
    there = len(ShardSet.open(*config.unlabelled))
    if wrong := [size for size in sizes if not 1 <= size <= there]:
        raise UsageError(f"--sizes {wrong[0]}: there are {there} unlabelled studies")
    names = {f"{size}_studies": size for size in sorted(sizes)}
    changes: dict[str, Table] = {
        name: {"data": {"train": [str(config.out / "pretraining" / name / "shards")]}}
        for name in names
    }
    pretrainings = [
        replace(one, studies=names[one.name]) for one in read_pretrainings(config, changes).values()
    ]
    arms = [scratch_arm(pretrainings[0]), *(one.arm({}) for one in pretrainings)]
    return pretrainings, make_grid(config, arms, config.shots)


def size_rows(grid: Grid) -> list[Row]:
    """The rows of the grid with the number of studies that each arm was pretrained on."""
    studies = {arm: 0 if arm == SCRATCH else int(arm.partition("_")[0]) for arm in grid.arms}
    return [{**row, "pretraining_studies": studies[row["arm"]]} for row in grid_rows(grid, SCRATCH)]
