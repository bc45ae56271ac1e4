"""A Slurm job that requeues itself stops when that leads nowhere."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from gliomoe.data_shards.errors import DataError

RESTARTS = "restarts.jsonl"
"""In the run's folder: every start of a Slurm job and the checkpoint that it found."""


def check_progress(env: Mapping[str, str], args: Sequence[str]) -> None:
    """Note this start of a Slurm job and what it continues from.

    Raises:
        DataError: If its last two starts led to no new checkpoint.
        UsageError: If there is no such preset.
    """
    run = run_folder(args)
    if run is None:
        return
    job, restart = env["SLURM_JOB_ID"], int(env.get("SLURM_RESTART_COUNT", "0"))
    latest = run / "checkpoints/latest"
    found = latest.read_text("utf-8").strip() if latest.is_file() else ""
    record = run / RESTARTS
    entries = (
        [json.loads(line) for line in record.read_text("utf-8").splitlines()]
        if record.is_file()
        else []
    )
    before = {entry["restart"]: entry["found"] for entry in entries if entry["job"] == job}
    if restart >= 2 and all(before.get(restart - n, "") == found for n in (1, 2)):
        raise DataError(
            f"{run}: no checkpoint after {found or 'the start'} in two restarts of job {job}; its "
            "log says why, and sbatch starts it again"
        )
    if (run / "run.json").is_file():  # before that the folder is nobody's
        with record.open("a", encoding="utf-8") as file:
            print(json.dumps({"job": job, "restart": restart, "found": found}), file=file)


def run_folder(args: Sequence[str]) -> Path | None:
    """`run.out` from the arguments of `gliomoe pretrain`, None where they do not name it."""
    found = None
    for flag, following in zip(args, [*args[1:], ""], strict=True):
        name, equals, value = flag.partition("=")
        if name == "--run.out":
            found = value if equals else following
    if found is None and args and not args[0].startswith("-"):
        from gliomoe.launch.options import read_preset  # here, since it takes a while

        found = read_preset(args[0], "gliomoe.pretrain")[0].get("run", {}).get("out")
    return Path(found) if found else None
