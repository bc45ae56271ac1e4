"""`gliomoe study shots`: what an arm gains over a baseline by the number of labelled cases."""

from dataclasses import dataclass
from pathlib import Path

from gliomoe.data_shards.errors import UsageError
from gliomoe.launch.studies.config import StudyConfig

EXAMPLE = (
    "gliomoe study shots --data cases/ --labels labels.tsv --test A=test_a/ B=test_b/ "
    "--arms pretrained=checkpoint/ scratch=scratch frozen=scratch:frozen --shots 5 10 20 "
    "--seeds 5 --finetune quickstart train.epochs=8 --parallel 2 --out studies/shots"
)
_FREE = ("arms",)
"""More arms may be added to a study."""


@dataclass(frozen=True)
class Options(StudyConfig):
    """Fine-tune every arm on 5, 10, 20 labelled cases, over seeds, and measure the gains."""

    arms: tuple[str, ...] = ("scratch=scratch",)
    """What is compared: `NAME=CHECKPOINT` or `NAME=scratch`; `NAME=scratch:frozen` keeps the
    encoder's weights."""
    arm_settings: Path | None = None
    """TOML file with a table of changes to the fine-tuning for each arm that has some, as
    `[pretrained.optim]` and `encoder_lr = 1e-4`."""
    baseline: str = "scratch"
    """The arm that the others are compared with."""
    shots: tuple[int, ...] = (5, 10, 20)
    """Labelled cases to train on; those of a seed are nested."""


def run(options: Options) -> int:
    """Run the grid and print the table."""
    from gliomoe.launch.studies.arms import read_arms
    from gliomoe.launch.studies.plots import shots_figure
    from gliomoe.launch.studies.rows import grid_rows
    from gliomoe.launch.studies.study import fill, make_grid, planned, tell

    arms = read_arms(options.arms, options.arm_settings)
    if options.baseline not in [arm.name for arm in arms]:
        raise UsageError(
            f"--baseline {options.baseline}: no such arm; arms: {', '.join(a.name for a in arms)}"
        )
    grid = make_grid(options, arms, options.shots)
    if options.dry_run:
        print(planned(grid))
        return 0
    fill(options, grid, "study shots", _FREE)
    tell(options, "shots", grid_rows(grid, options.baseline), shots_figure)
    return 0
