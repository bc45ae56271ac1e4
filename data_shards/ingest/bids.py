"""A BIDS data set: `sub-*[/ses-*]/{anat,dwi,swi,perf}`, segmentations under `derivatives`.

Notable: each session is a study of its own. Raw diffusion series (with a `.bval` beside them) and
perfusion series (with a context table) are 4-D acquisitions and no images; they are left alone.
"""

import re
from pathlib import Path

from gliomoe.data_shards.ingest.names import by_sequence, is_mask, nifti_files, stem
from gliomoe.data_shards.study import RawStudy

FOLDERS = ("anat", "dwi", "swi", "perf")


def find_bids(source: Path) -> list[RawStudy]:
    """One study for each session of each subject; one without images is a study without series.

    Args:
        source: The data set, or the folder of one of its subjects.
    """
    studies = []
    source = source.resolve()
    one = is_subject(source)
    root, subjects = (source.parent, [source]) if one else (source, _children(source, "sub-*"))
    for subject in subjects:
        sessions: list[Path | None] = [*_children(subject, "ses-*")]
        for session in sessions or [None]:
            folder = session or subject
            images = [
                path
                for kind in FOLDERS
                if (folder / kind).is_dir()
                for path in nifti_files(folder / kind)
                if not is_mask(path) and not _is_acquisition(path)
            ]
            studies.append(
                RawStudy(
                    subject=subject.name,
                    session=session.name if session else None,
                    series=by_sequence(images),
                    seg=_segmentation(root, folder.relative_to(root)),
                    source=folder,
                    layout="bids",
                )
            )
    return studies


def is_subject(folder: Path) -> bool:
    """Whether a folder is that of one subject."""
    return folder.resolve().name.startswith("sub-")


def _children(folder: Path, pattern: str) -> list[Path]:
    """Sub-folders of a name, sorted."""
    return sorted(path for path in folder.glob(pattern) if path.is_dir())


def _is_acquisition(path: Path) -> bool:
    """Whether a file is a 4-D series with a table of its own."""
    name = stem(path)
    context = re.sub(r"_asl$", "_aslcontext.tsv", name)
    return any((path.parent / other).exists() for other in (f"{name}.bval", context))


def _segmentation(source: Path, folder: Path) -> Path | None:
    """The first `*_dseg` of a subject's or session's folder in any derivative."""
    found = sorted(source.glob(f"derivatives/*/{folder}/anat/*_dseg.nii*"))
    return found[0] if found else None
