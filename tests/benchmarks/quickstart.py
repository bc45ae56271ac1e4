"""Run launch/quickstart.sh from nothing and keep what it took and what came out.

    python tests/benchmarks/quickstart.py FOLDER

writes tests/benchmarks/results/quickstart.json: seconds of each step, peak memory of all processes
together, and the figures of every evaluation, beside machine and versions. One run of one seed: it
says how long the quickstart takes, not whether pretraining helps.
"""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil

from gliomoe.data_shards.files import write_json
from gliomoe.launch.runs import machine

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "tests/benchmarks/results/quickstart.json"


class PeakMemory(threading.Thread):
    """Watches the memory of a process and its children, shared pages counted once."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.process = psutil.Process(pid)
        self.peak = 0

    def run(self) -> None:
        """Look twice a second until the process ends."""
        while self.process.is_running() and self.process.status() != psutil.STATUS_ZOMBIE:
            self.peak = max(self.peak, self.now())
            time.sleep(0.5)

    def now(self) -> int:
        """Bytes at this moment."""
        total = 0
        for process in [self.process, *self.process.children(recursive=True)]:
            try:
                total += process.memory_full_info().pss
            except psutil.NoSuchProcess:
                continue  # it ended since the list was made
        return total


def figures(metrics: dict) -> dict:
    """The part of a metrics.json that the table of the quickstart shows."""
    return {
        "cases": metrics["cases"],
        "dice": {region: figure["dice"] for region, figure in metrics["regions"].items()},
        "mean_dice": metrics["mean_dice"],
        "auc": {
            task: figure["macro_auc" if task == "grade" else "auc"]
            for task, figure in metrics["markers"].items()
        },
    }


def main(folder: Path) -> None:
    """Run it and write the result."""
    if folder.exists():
        sys.exit(f"{folder}: already there; give a folder to make")
    begun = time.monotonic()
    script = subprocess.Popen([ROOT / "launch/quickstart.sh", folder])
    memory = PeakMemory(script.pid)
    memory.start()
    if code := script.wait():
        sys.exit(code)
    seconds = time.monotonic() - begun
    memory.join()
    rows = [line.split("\t") for line in (folder / "timings.tsv").read_text().splitlines()]
    evaluations = sorted((folder / "evaluations").glob("*/metrics.json"))
    write_json(
        RESULT,
        {
            "machine": machine(),
            "seconds": round(seconds),
            "peak_memory_gb": round(memory.peak / 1e9, 2),
            "steps": {title: int(spent) for title, spent in rows},
            "evaluations": {
                path.parent.name: figures(json.loads(path.read_text())) for path in evaluations
            },
        },
    )
    print(RESULT.read_text())


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
