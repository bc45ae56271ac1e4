"""`gliomoe study shift`."""

import json
from dataclasses import dataclass

from gliomoe.finetune.studies.output import as_text
from gliomoe.finetune.studies.shift import ShiftConfig, study_shift, summary
from gliomoe.launch.runs import machine

EXAMPLE = (
    "gliomoe study shift runs/pretrained runs/scratch --data test_a test_b "
    "--labels test_a/participants.tsv test_b/participants.tsv --out studies/shift"
)


@dataclass(frozen=True, kw_only=True)
class Options(ShiftConfig):
    """Options of the command."""

    json: bool = False
    """Print study.json instead of a table."""


def run(options: Options) -> int:
    """Study and print."""
    content = study_shift(options, machine())
    print(json.dumps(content, indent=2) if options.json else as_text(summary(content)))
    return 0
