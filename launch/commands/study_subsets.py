"""`gliomoe study subsets`."""

import json
from dataclasses import dataclass

from gliomoe.finetune.studies.output import as_text
from gliomoe.finetune.studies.subsets import SubsetsConfig, study_subsets
from gliomoe.launch.runs import machine

EXAMPLE = (
    "gliomoe study subsets runs/first --data test/ --labels test/participants.tsv "
    "--out studies/subsets"
)


@dataclass(frozen=True, kw_only=True)
class Options(SubsetsConfig):
    """Options of the command."""

    json: bool = False
    """Print study.json instead of a table."""


def run(options: Options) -> int:
    """Study and print."""
    content = study_subsets(options, machine())
    print(json.dumps(content, indent=2) if options.json else as_text(content))
    return 0
