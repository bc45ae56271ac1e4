"""`gliomoe report`."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from gliomoe.data_shards.errors import UsageError
from gliomoe.finetune.report.build import ReportConfig, build_report
from gliomoe.finetune.report.evaluations import as_text

EXAMPLE = (
    "gliomoe report runs/finetuned --out report.html "
    "--evaluations eval/pretrained eval/scratch --predictions predictions"
)


@dataclass(frozen=True)
class Options:
    """Options of the command."""

    run: tyro.conf.Positional[Path]
    """Folder of a fine-tuning run."""
    out: Path
    """The HTML file, which a browser opens offline."""
    evaluations: tuple[Path, ...] = ()
    """Folders of `gliomoe evaluate` to compare, in this order."""
    predictions: tuple[Path, ...] = ()
    """Folders of `gliomoe predict` to show."""
    cases: int = 2
    """Validation cases to show, each predicted by the fold that did not train on it."""

    def __post_init__(self) -> None:
        """Refuse a negative count."""
        if self.cases < 0:
            raise ValueError("cases must not be negative")


def run(options: Options) -> int:
    """Write the report and print its comparison."""
    if options.out.is_dir():
        raise UsageError(f"{options.out}: is a folder; name the HTML file")
    config = ReportConfig(options.run, options.evaluations, options.predictions, options.cases)
    evaluations = build_report(config, options.out)
    if evaluations:
        print(as_text(evaluations), end="\n\n")
    print(options.out.resolve())
    return 0
