"""Pretrain for 2,000 steps on phantoms and keep the curves: does what should fall fall?

    python tests/benchmarks/curves.py FOLDER [--steps N]

300 unlabelled phantoms of mixed protocols to train on, 40 labelled ones of protocol A for the
probe, both at 3.5 mm; the preset `coarse`, under an hour on one core. The same command continues.
Writes tests/benchmarks/results/curves.json: thinned curves, first and last values beside what was
expected of them, machine and versions; exit code 1 if an expectation does not hold. Nothing is
expected of the markers: the standard error of an AUC on 40 cases is some 0.1. One run of one seed.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

from gliomoe.data_shards.files import write_json
from gliomoe.launch.runs import machine
from gliomoe.pretrain.monitoring.journal import EXPERTS, PROBE, TIMING, TRACE, read_lines

RESULT = Path(__file__).resolve().parent / "results/curves.json"
SPACING = ("--spacing", "3.5")
PROBING = ("--probe.every", "1600")
POINTS = 50
"""Points of a thinned curve, each the mean of its stretch."""
EDGE = 100
"""Steps whose mean is the first or the last value."""


def gliomoe(*args: object) -> None:
    """Run a command; ends the program where it fails."""
    done = subprocess.run([sys.executable, "-m", "gliomoe", *map(str, args)], check=False)
    if done.returncode:
        sys.exit(done.returncode)


def make_shards(folder: Path, name: str, subjects: int, *options: object) -> Path:
    """A shard set of phantoms."""
    cohort, shards = folder / "cohorts" / name, folder / "shards" / name
    gliomoe("phantom", cohort, "--subjects", subjects, *SPACING, *options)
    gliomoe("shards", "build", cohort, "--out", shards, *SPACING)
    return shards


def thin(steps: list[int], values: list[float]) -> dict[str, list[float]]:
    """A curve of at most `POINTS` points."""
    width = -(-len(values) // POINTS)
    starts = range(0, len(values), width)
    return {
        "step": [round(fmean(steps[i : i + width])) for i in starts],
        "value": [round(fmean(values[i : i + width]), 5) for i in starts],
    }


def curves(run: Path) -> dict[str, Any]:
    """Thinned curves of a run."""
    lines = [line for line in read_lines(run / TRACE) if line["norm"] is not None]
    names = [name for name in lines[0] if name not in ("step", "lr", "damaged")]
    experts = read_lines(run / EXPERTS)
    probes = read_lines(run / PROBE)
    return {
        "train": {
            name: thin([line["step"] for line in lines], [line[name] for line in lines])
            for name in names
        },
        "experts_smallest_share": thin(
            [line["steps"] for line in experts],
            [min(min(layer) for layer in line["use"]) for line in experts],
        ),
        "experts_last_use": experts[-1]["use"],
        "probe": probes,
    }


def verdicts(run: Path) -> dict[str, dict[str, Any]]:
    """First and last values, and whether they are as they should be."""
    lines = [line for line in read_lines(run / TRACE) if line["norm"] is not None]

    def ends(name: str) -> tuple[float, float]:
        values = [line[name] for line in lines]
        return fmean(values[:EDGE]), fmean(values[-EDGE:])

    first, last = ends("reconstruction")
    found = {"reconstruction falls": {"first": first, "last": last, "holds": last < 0.9 * first}}
    first, last = ends("contrast_accuracy")
    found["contrast accuracy rises"] = {"first": first, "last": last, "holds": last > first + 0.1}
    shares = [min(min(layer) for layer in line["use"]) for line in read_lines(run / EXPERTS)]
    first, last = shares[0], fmean(shares[-5:])
    found["no expert is unused"] = {"first": first, "last": last, "holds": last > 0.01}
    probes = read_lines(run / PROBE)
    for name in ("tumour_dice", "tumour_auc"):
        first, last = probes[0][name], probes[-1][name]
        found[f"probe rises, {name}"] = {"first": first, "last": last, "holds": last > first}
    return found


def main() -> int:
    """Run it and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=2000)
    args = parser.parse_args()
    folder = args.folder.resolve()
    mixed = ("--protocol", "mixed", "--seed", 1, "--unlabelled")
    unlabelled = make_shards(folder, "unlabelled", 300, *mixed)
    labelled = make_shards(folder, "labelled", 40, "--protocol", "A", "--seed", 2)
    run = folder / "run"
    where = ("--data.train", unlabelled, "--probe.data", labelled, "--run.out", run)
    gliomoe("pretrain", "coarse", *where, "--run.steps", args.steps, *PROBING)
    found, timing = verdicts(run), read_lines(run / TIMING)
    result = {
        "machine": machine(),
        "steps": args.steps,
        "hours": round(sum(line["seconds"]["step"] for line in timing) / 3600, 2),
        "verdicts": found,
        **curves(run),
    }
    write_json(RESULT, result)
    for name, verdict in found.items():
        word = "yes" if verdict["holds"] else "NO"
        print(f"{name:32s} {word:4s} {verdict['first']:.4g} -> {verdict['last']:.4g}")
    return 0 if all(verdict["holds"] for verdict in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
