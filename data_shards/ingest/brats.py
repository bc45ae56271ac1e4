"""A folder of case folders, as BraTS is published."""

from pathlib import Path

from gliomoe.data_shards.ingest.case import find_case
from gliomoe.data_shards.study import RawStudy


def find_brats(source: Path) -> list[RawStudy]:
    """One study for each sub-folder; one without images is a study without series."""
    folders = sorted(
        path for path in source.iterdir() if path.is_dir() and not path.name.startswith(".")
    )
    return [study for folder in folders for study in find_case(folder, layout="brats")]
