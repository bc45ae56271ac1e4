"""`gliomoe study smaller`: Dice kept against size and time."""

import json
from dataclasses import dataclass

from gliomoe.finetune.studies.output import as_text, write_study
from gliomoe.finetune.studies.smaller import SmallerConfig, measure_runs, plot, rows_of
from gliomoe.launch.options import to_table
from gliomoe.launch.runs import machine

EXAMPLE = (
    "gliomoe study smaller runs/first runs/first/fold_0 runs/student runs/pruned --data test/ "
    "--out results/smaller"
)


@dataclass(frozen=True, kw_only=True)
class Options(SmallerConfig):
    """Compare runs by Dice, size on disk and seconds a case."""

    json: bool = False
    """Print study.json instead of tables."""


def run(options: Options) -> int:
    """Measure, write and print."""
    rows = rows_of(measure_runs(options))
    content = write_study(
        options.out, "smaller", ["run"], rows, to_table(options), plot(rows), machine()
    )
    print(json.dumps(content, indent=2) if options.json else as_text(content))
    return 0
