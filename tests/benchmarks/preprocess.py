"""Time each step of preprocessing on real studies, one after the other, in one process.

    python tests/benchmarks/preprocess.py FOLDER [FOLDER ...]

writes tests/benchmarks/results/preprocess.json: for every study its series and the seconds that
reading and each step took, beside machine and versions; and for each step the median over the
studies in which it had something to do. Of each folder the first studies are taken; name
folders with raw series of several sequences, or registration has nothing to do.
"""

import statistics
import sys
import time
from importlib.metadata import version
from pathlib import Path

from gliomoe.data_shards.files import write_json
from gliomoe.data_shards.ingest import find_studies
from gliomoe.data_shards.preprocess import STEPS, PreprocessConfig
from gliomoe.data_shards.preprocess.orient import to_ras
from gliomoe.data_shards.preprocess.pipeline import _read
from gliomoe.data_shards.preprocess.template import head_template
from gliomoe.data_shards.study import RawStudy
from gliomoe.launch.runs import machine

RESULT = Path(__file__).parent / "results" / "preprocess.json"
STUDIES = 3
"""Of each folder."""


def units(step: str, note: dict) -> int:
    """Series that a step changed or tried to, studies for the brain; 0 where it had no work."""
    if step == "register":
        return len(note["series"])
    if step == "n4":
        return len(note["corrected"])
    return int(note.get("method") != "none")


def timed(raw: RawStudy, config: PreprocessConfig) -> dict:
    """Seconds of each step of one study, and of how much work it had."""
    begun = time.perf_counter()
    case = _read(raw).map(to_ras)
    seconds = {"read": time.perf_counter() - begun}
    for name in config.steps:
        begun = time.perf_counter()
        case = STEPS[name](case, config)
        seconds[name] = time.perf_counter() - begun
    return {
        "source": raw.source.name,
        "series": list(case.series),
        "seconds": {name: round(spent, 3) for name, spent in seconds.items()},
        "units": {name: units(name, case.history[name]) for name in config.steps},
    }


def main(folders: list[Path]) -> None:
    """Run it and write the result."""
    if not folders:
        sys.exit(__doc__)
    config = PreprocessConfig()
    for factor in (1, 2):  # read once for a process, not for a study
        head_template(factor * config.brain.grid)
    studies = []
    for folder in folders:
        for raw in find_studies(folder)[:STUDIES]:
            studies.append(timed(raw, config))
            print(studies[-1], flush=True)
    each = {
        name: [one["seconds"][name] / one["units"][name] for one in studies if one["units"][name]]
        for name in config.steps
    }
    about = machine()
    about["versions"] |= {name: version(name) for name in ("SimpleITK", "scipy", "nilearn")}
    write_json(
        RESULT,
        {
            "machine": about,
            "settings": config.to_json(),
            "seconds_per_unit": {
                name: {"median": round(statistics.median(spent), 3), "of": len(spent)}
                for name, spent in each.items()
                if spent
            },
            "unit": "a series for register and n4, a study for the rest",
            "studies": studies,
        },
    )
    print(RESULT)


if __name__ == "__main__":
    main([Path(name).resolve() for name in sys.argv[1:]])
