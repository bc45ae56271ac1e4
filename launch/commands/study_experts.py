"""`gliomoe study experts`."""

import json
from dataclasses import dataclass

from gliomoe.finetune.studies.experts import ExpertsConfig, study_experts, summary
from gliomoe.finetune.studies.output import as_text
from gliomoe.launch.runs import machine

EXAMPLE = (
    "gliomoe study experts runs/first --data test/ --labels test/participants.tsv "
    "--out studies/experts"
)


@dataclass(frozen=True, kw_only=True)
class Options(ExpertsConfig):
    """Options of the command."""

    json: bool = False
    """Print study.json instead of a table."""


def run(options: Options) -> int:
    """Study and print."""
    content = study_experts(options, machine())
    print(json.dumps(content, indent=2) if options.json else as_text(summary(content)))
    return 0
