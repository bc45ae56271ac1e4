"""A folder of case folders, as BraTS is published, also one level down (`HGG`, `LGG`)."""

from dataclasses import replace
from pathlib import Path

from gliomoe.data_shards.ingest.case import find_case
from gliomoe.data_shards.ingest.names import nifti_files
from gliomoe.data_shards.study import RawStudy


def find_brats(source: Path) -> list[RawStudy]:
    """The studies of each sub-folder; one without images is a study without series.

    In a sub-folder of case folders, these are cases of their own if their files carry their name
    (`HGG/<id>/<id>_t1.nii.gz`), and otherwise the sessions of one subject
    (`<subject>/<session>/t1.nii.gz`).
    """
    studies = []
    for folder in sub_folders(source):
        inner = [path for path in sub_folders(folder) if nifti_files(path)]
        if nifti_files(folder) or not inner:
            studies += find_case(folder, layout="brats")
            continue
        for case in inner:
            found = find_case(case, layout="brats")
            own_names = all(path.name.startswith(case.name) for path in nifti_files(case))
            if not own_names and len(found) == 1:
                found = [replace(found[0], subject=folder.name, session=case.name)]
            studies += found
    return studies


def sub_folders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted, without hidden ones."""
    return sorted(
        path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
    )
