"""`gliomoe study uncertainty`."""

import json
from dataclasses import dataclass

from gliomoe.finetune.studies.evaluations import EvaluationStudyConfig
from gliomoe.finetune.studies.output import as_text
from gliomoe.finetune.studies.uncertainty import study_uncertainty
from gliomoe.launch.runs import machine

EXAMPLE = "gliomoe study uncertainty results/pretrained results/scratch --out studies/uncertainty"


@dataclass(frozen=True, kw_only=True)
class Options(EvaluationStudyConfig):
    """Options of the command."""

    json: bool = False
    """Print study.json instead of a table."""


def run(options: Options) -> int:
    """Study and print."""
    content = study_uncertainty(options, machine())
    print(json.dumps(content, indent=2) if options.json else as_text(content))
    return 0
