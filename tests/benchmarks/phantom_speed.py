"""How fast phantom cohorts are made, and how much memory a worker takes.

    python tests/benchmarks/phantom_speed.py FOLDER [--subjects N] [--workers N]

makes a few subjects of four sequences at 1 and 2 mm, preprocessed and raw, each cohort in a process
of its own, then N at 2 mm with all workers, all below FOLDER, and writes
tests/benchmarks/results/phantom_speed.json with machine and versions.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from gliomoe.data_shards.files import write_json
from gliomoe.launch.runs import machine

RESULT = Path(__file__).parent / "results/phantom_speed.json"
FEW = 8
"""Subjects of a cohort that is made by one process."""

_ONE = """
import json, resource, sys, time
from pathlib import Path
from gliomoe.data_shards.phantom.cohort import write_cohort
from gliomoe.data_shards.phantom.config import CohortConfig
out, spacing, form, few = sys.argv[1:]
few = int(few)
for subjects, name in ((1, "warm"), (few, "timed")):
    begun = time.perf_counter()
    config = CohortConfig(subjects, "mixed", form=form, spacing=float(spacing), seed=1)
    write_cohort(Path(out, name), config)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"seconds_per_subject": round((time.perf_counter() - begun) / few, 2),
                  "peak_memory_gb": round(peak / 1e9, 2)}))
"""


def one_process(out: Path, spacing: float, form: str) -> dict[str, float]:
    """Seconds a subject and peak memory of one process, what it loads first left out."""
    command = [sys.executable, "-c", _ONE, out, str(spacing), form, str(FEW)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def cohort(out: Path, subjects: int, workers: int) -> dict[str, float]:
    """A whole cohort by the command."""
    command = [sys.executable, "-m", "gliomoe", "phantom", out, "--subjects", str(subjects)]
    begun = time.perf_counter()
    subprocess.run([*command, "--spacing", "2", "--workers", str(workers)], check=True)
    seconds = time.perf_counter() - begun
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    return {
        "subjects": subjects,
        "workers": workers,
        "minutes": round(seconds / 60, 2),
        "gb": round(size / 1e9, 3),
    }


def main() -> None:
    """Run it and write the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="to make")
    parser.add_argument("--subjects", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    options.folder.mkdir(parents=True)
    alone = {}
    for spacing in (2.0, 1.0):
        for form in ("preprocessed", "raw"):
            name = f"{spacing:g} mm, {form}"
            alone[name] = one_process(options.folder / name.replace(" ", "_"), spacing, form)
            print(name, alone[name], flush=True)
    many = cohort(options.folder / "many", options.subjects, options.workers)
    print(many)
    write_json(RESULT, {"machine": machine(), "one_process": alone, "cohort_at_2_mm": many})


if __name__ == "__main__":
    main()
