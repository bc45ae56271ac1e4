"""`gliomoe study backbones`: registered models side by side under one protocol."""

from dataclasses import dataclass
from pathlib import Path

from gliomoe.launch.studies.config import StudyConfig

EXAMPLE = (
    "gliomoe study backbones --models gliomoe_tiny mgmt_net attention_unet --data cases/ "
    "--labels labels.tsv --test A=test_a/ --finetune magpie_20shot --out studies/backbones"
)
_FREE = ("models",)


@dataclass(frozen=True)
class Options(StudyConfig):
    """Fine-tune several models in the same way and compare them with the first."""

    models: tuple[str, ...] = ("gliomoe_tiny",)
    """Names as in `gliomoe models`, trained from scratch, or `NAME=CHECKPOINT` with any name."""
    model_settings: Path | None = None
    """TOML file with a table of changes to the fine-tuning for each model that has some; a value
    of `"None"` takes a preset's away, as `arch.patch_size = "None"`."""
    shots: tuple[int, ...] = (20,)
    """Labelled cases to train on; those of a seed are nested."""


def run(options: Options) -> int:
    """Run the grid; print sizes, times and the table."""
    from gliomoe.launch.studies.backbones import describe, read_models, sizes_table
    from gliomoe.launch.studies.plots import forest_figure, shots_figure
    from gliomoe.launch.studies.rows import grid_rows
    from gliomoe.launch.studies.study import fill, make_grid, planned, tell

    arms = read_models(options, options.models, options.model_settings)
    grid = make_grid(options, arms, options.shots)
    if options.dry_run:
        print(planned(grid))
        return 0
    fill(options, grid, "study backbones", _FREE)
    sizes = {arm: describe(grid, arm) for arm in grid.arms}
    rows = [{**row, **sizes[row["arm"]]} for row in grid_rows(grid, arms[0].name)]
    if not options.json:
        print(f"{sizes_table(sizes)}\n")
    tell(options, "backbones", rows, forest_figure if len(arms) > 1 else shots_figure)
    return 0
