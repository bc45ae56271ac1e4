"""A BIDS data set: `sub-*[/ses-*]/{anat,dwi,swi,perf}`, segmentations under `derivatives`.

Notable: each session is a study of its own. Raw diffusion series (with a `.bval` beside them) and
perfusion series (with a context table) are 4-D acquisitions and no images; they are left out. Of
several files of one sequence the one is used that comes first by: not after contrast, unless T1;
no `space-` or `desc-`, no `rec-`; `acq-` that says 3-D, none, any other; lowest `run-`, `echo-` and
`inv-`; name. Labels are those of BraTS up to 2022 unless the segmentation has `desc-brats2023` or
`desc-bratsped`.
"""

import re
from pathlib import Path

from gliomoe.data_shards.ingest.brats import sub_folders
from gliomoe.data_shards.ingest.names import in_order, nifti_files, read_folder, second, stem
from gliomoe.data_shards.ingest.participants import read_participants
from gliomoe.data_shards.labels import CONVENTIONS
from gliomoe.data_shards.sequences import canonical_sequence
from gliomoe.data_shards.study import LeftOut, RawStudy, Source

FOLDERS = ("anat", "dwi", "swi", "perf")

_OTHER_FOLDERS = ("func", "fmap", "pet", "mrs", "meg", "eeg")

_VOLUMETRIC = ("3d", "iso", "mprage", "bravo", "cube", "vista", "space", "highres", "hires")
"""Parts of an `acq-` label that say that a series is 3-D."""

_CONTRAST = ("ce", "gd", "gad", "post", "postgd", "postce", "postcontrast", "contrast")
"""`acq-` labels that say what `ce-` says."""

_WITHOUT = ("none", "no", "pre", "off")
"""`ce-` labels that say that there is no contrast agent."""

_NO_IMAGE = {
    "bold": "a functional series",
    "sbref": "a reference of another series",
    "m0scan": "a reference of another series",
    "localizer": "a localiser",
    "scout": "a localiser",
    "angio": "an angiogram",
}
"""Suffix → what it is."""

_NO_TUMOUR = ("aseg", "aparcaseg", "brain", "tissue", "carpet", "hypothalamus")
"""`desc-` labels of segmentations of something else."""

_ANATOMY = ("fmriprep", "smriprep", "freesurfer", "fastsurfer", "synthseg")
"""Derivatives whose segmentations are of tissues."""


def find_bids(source: Path) -> list[RawStudy]:
    """One study for each session of each subject; one without images is a study without series.

    Args:
        source: The data set, or the folder of one of its subjects.

    Raises:
        UsageError: If `participants.tsv` has columns of labels and cannot be read.
    """
    source = source.resolve()
    one = is_subject(source)
    root, subjects = (source.parent, [source]) if one else (source, _children(source, "sub-*"))
    labels = read_participants(root / "participants.tsv")
    studies = []
    for subject in subjects:
        sessions = _children(subject, "ses-*")
        if not sessions or any((subject / kind).is_dir() for kind in FOLDERS):
            sessions = [subject, *sessions]
        for folder in sessions:
            series, left_out = _images(folder)
            seg, other_segs = _segmentation(root, folder.relative_to(root))
            studies.append(
                RawStudy(
                    subject=subject.name,
                    session=None if folder == subject else folder.name,
                    series=series,
                    seg=seg,
                    seg_labels=_convention(seg),
                    source=folder,
                    layout="bids",
                    labels=labels.get(subject.name, {}),
                    left_out=(*left_out, *other_segs),
                )
            )
    return studies


def is_data_set(folder: Path) -> bool:
    """Whether a folder is a BIDS data set: it says so, or has subjects with images."""
    patterns = [f"sub-*/{session}{kind}/*.nii*" for session in ("", "ses-*/") for kind in FOLDERS]
    described = (folder / "dataset_description.json").is_file()
    return described or any(any(folder.glob(pattern)) for pattern in patterns)


def is_subject(folder: Path) -> bool:
    """Whether a folder is that of one subject."""
    return folder.resolve().name.startswith("sub-")


def entities(path: Path) -> tuple[dict[str, str], str]:
    """The entities of a name, in lower case, and its suffix as it is spelt.

    `sub-01_ce-Gad_T1w.nii.gz` gives `{"sub": "01", "ce": "gad"}` and `T1w`.
    """
    *pairs, suffix = stem(path).split("_")
    found = (pair.partition("-") for pair in pairs)
    return {key.lower(): value.lower() for key, _, value in found}, suffix


def _images(folder: Path) -> tuple[dict[str, Source], list[LeftOut]]:
    """One file for each sequence of a session, and what is not used."""
    candidates: dict[str, list[Path]] = {}
    left_out: list[LeftOut] = []
    for kind in FOLDERS:
        if not (folder / kind).is_dir():
            continue
        files = read_folder(folder / kind)
        left_out += files.left_out
        left_out += [
            LeftOut(str(path), "a segmentation outside derivatives") for path in files.segs
        ]
        for path in files.images:
            if reason := _no_image(path):
                left_out.append(LeftOut(str(path), reason))
            else:
                candidates.setdefault(_sequence(path), []).append(path)
    for kind in (kind for kind in _OTHER_FOLDERS if (folder / kind).is_dir()):
        left_out += [
            LeftOut(str(path), f"the folder {kind} is not read")
            for path in nifti_files(folder / kind)
        ]
    used = {}
    for sequence, paths in candidates.items():
        used[sequence], *others = sorted(paths, key=_preference)
        left_out += [second(path, sequence, used[sequence]) for path in others]
    return in_order(used), left_out


def _no_image(path: Path) -> str | None:
    """Why a file is no image of a sequence, None if it is one."""
    name = stem(path)
    given, suffix = entities(path)
    context = re.sub(r"_asl$", "_aslcontext.tsv", name)
    if any((path.parent / other).exists() for other in (f"{name}.bval", context)):
        return "a 4-D acquisition"
    if (part := given.get("part", "mag")) != "mag":
        return f"part-{part}, not the magnitude"
    if suffix.endswith("map"):
        return "a derived map"
    return _NO_IMAGE.get(suffix.lower())


def _sequence(path: Path) -> str:
    """The canonical sequence of a file: its suffix, and for T1 whether there is contrast agent."""
    given, suffix = entities(path)
    name = canonical_sequence(suffix)
    return "t1ce" if name == "t1" and _has_contrast(given) else name


def _has_contrast(given: dict[str, str]) -> bool:
    """Whether entities speak of a contrast agent."""
    return given.get("ce", "none") not in _WITHOUT or given.get("acq") in _CONTRAST


def _preference(path: Path) -> tuple[object, ...]:
    """What is smallest for the file to use."""
    given, suffix = entities(path)
    acquisition = given.get("acq", "")
    volumetric = any(word in acquisition for word in _VOLUMETRIC)
    return (
        canonical_sequence(suffix) != "t1" and _has_contrast(given),
        sum(key in given for key in ("space", "desc")),
        "rec" in given,
        0 if volumetric else 1 if not acquisition else 2,
        *(_number(given.get(key, "")) for key in ("run", "echo", "inv")),
        path.name,
    )


def _number(label: str) -> int:
    """A label as a number; one that is none comes first."""
    return int(label) if label.isdecimal() else 0


def _children(folder: Path, prefix: str) -> list[Path]:
    """Sub-folders of a name, sorted."""
    return [path for path in sub_folders(folder) if path.match(prefix)]


def _segmentation(root: Path, folder: Path) -> tuple[Path | None, list[LeftOut]]:
    """The first `*_dseg` of a tumour in a subject's or session's folder of any derivative."""
    candidates: list[Path] = []
    left_out: list[LeftOut] = []
    for path in sorted(root.glob(f"derivatives/*/{_literal(folder)}/anat/*_dseg.nii*")):
        given, _ = entities(path)
        if given.get("desc") in _NO_TUMOUR or path.relative_to(root).parts[1].lower() in _ANATOMY:
            left_out.append(LeftOut(str(path), "a segmentation of tissues"))
        elif given.get("space", "orig").startswith("mni"):
            left_out.append(LeftOut(str(path), "not in the space of the images"))
        else:
            candidates.append(path)
    used, others = (candidates[0], candidates[1:]) if candidates else (None, [])
    left_out += [LeftOut(str(path), "a second segmentation") for path in others]
    return used, left_out


def _convention(seg: Path | None) -> str:
    """The convention of the labels: what `desc-` names, otherwise that of BraTS up to 2022."""
    named = entities(seg)[0].get("desc") if seg else None
    return named if named in CONVENTIONS else "brats2021"


def _literal(folder: Path) -> str:
    """A path for a pattern, in which nothing stands for anything else."""
    return re.sub(r"([*?\[])", r"[\1]", str(folder))
