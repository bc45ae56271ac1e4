"""Writes what `gliomoe pretrain plan` says into pretrain/SCALING.md and into the presets' comments.

    python tests/benchmarks/scaling_tables.py [--measured FILE]

No GPU is needed: work is counted, speed is assumed, or taken from a measurement of `gpu_check.sh`.
"""

import argparse
import io
import re
from contextlib import redirect_stdout
from pathlib import Path

from gliomoe.launch.cli import main

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "pretrain/SCALING.md"
PRESETS = {
    **{"gliomoe_tiny": 1, "gliomoe_small": 1, "gliomoe_base": 4, "gliomoe_large": 32},
    "magpie_parity": 4,
}
"""Preset → GPUs of the duration in its comment."""
_NOT_MEASURED = "(pretrain/SCALING.md), not measured."
START, END = "<!-- tables -->", "<!-- end of tables -->"


def say(*arguments: str) -> str:
    """What the command prints."""
    with redirect_stdout(io.StringIO()) as printed:
        if main(["pretrain", "plan", *arguments]):
            raise SystemExit(f"gliomoe pretrain plan {' '.join(arguments)} failed")
    return printed.getvalue().strip()


def duration(table: str, gpus: int) -> str:
    """GPU hours of a preset, as in its comment, from its table."""
    row = next(line for line in table.splitlines() if line.startswith(f"| {gpus} |"))
    return row.split(" | ")[5].replace(" to ", "-").replace(",", "")


def write(tables: dict[str, str]) -> None:
    """Write the document and the comments from the table of each preset."""
    text = DOCUMENT.read_text("utf-8")
    before, _, rest = text.partition(START)
    after = rest.partition(END)[2]
    DOCUMENT.write_text(f"{before}{joined(tables)}{after}", "utf-8")
    for preset, table in tables.items():
        path = ROOT / f"pretrain/configs/{preset}.toml"
        hours = duration(table, PRESETS[preset])
        line = f"# Duration: about {hours} GPU hours on H100, estimated {_NOT_MEASURED}"
        found, count = re.subn(r"# Duration: .*", line, path.read_text("utf-8"))
        if count != 1:
            raise SystemExit(f"{path}: no line `# Duration: …`")
        path.write_text(found, "utf-8")


def joined(tables: dict[str, str]) -> str:
    """The part of the document between its marks, marks included."""
    return "\n".join([START, "\n\n".join(tables.values()), END])


def make(*more: str) -> dict[str, str]:
    """The table of each preset."""
    return {preset: say(preset, "--table", *more) for preset in PRESETS}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measured", help="gpu_check.json")
    options = parser.parse_args()
    write(make(*(["--measured", options.measured] if options.measured else [])))
