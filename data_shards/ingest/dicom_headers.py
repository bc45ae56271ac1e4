"""What the header of a DICOM file says of its image.

Notable: only the elements that are needed are parsed, never the pixels. Names, dates and
descriptions stay here: what leaves is the subject's id, which becomes a hashed key, a digest of the
study's UID, and numbers.
"""

import hashlib
import math
import struct
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from gliomoe.data_shards.ingest.dicom_table import Headers

if TYPE_CHECKING:
    from pydicom import Dataset

_MR_IMAGES = (
    "1.2.840.10008.5.1.4.1.1.4",
    "1.2.840.10008.5.1.4.1.1.4.1",
    "1.2.840.10008.5.1.4.1.1.4.4",
)
"""SOP classes: MR image, enhanced MR image, legacy converted enhanced MR image."""

_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
"""SOP class, and the beginning of those of its multi-frame kinds."""

_DIRECTORY = "1.2.840.10008.1.3.10"

_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
_NEEDED = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber"),
    *("PatientID", "ImageType", "Rows", "Columns", "PixelSpacing", "ImageOrientationPatient"),
    *("ImagePositionPatient", "EchoTime", "SliceThickness", "DiffusionBValue"),
    "SamplesPerPixel",
)

_SPELT = {"EchoTime": "EffectiveEchoTime", "InversionTime": "InversionTimes"}
"""Keyword → the one that enhanced images have instead."""

_PRIVATE_B_VALUES = (
    (0x00190010, "SIEMENS MR HEADER", 0x0019100C),
    (0x20010010, "Philips Imaging DD 001", 0x20011003),
    (0x00430010, "GEMS_PARM_01", 0x00431039),
)
"""Where makers put the b-value: element and name of the owner, element."""

_NO_ID = ("", "anonymous", "anonymized", "anonymised", "anon", "unknown", "none", "na", "0")

_BROKEN = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    TypeError,
    ValueError,
    struct.error,
)
"""What a damaged header makes of its reader."""

_DAMAGED = "a damaged or truncated DICOM header; copy the file again"


@dataclass(frozen=True)
class Image:
    """One file of a series."""

    path: Path
    instance: str
    study: str
    series: str
    subject: str
    headers: Headers
    grid: tuple[int, int]
    """Rows, columns."""
    geometry: tuple[float, ...]
    """Orientation of rows and columns [6], pixel spacing [2]."""
    positions: tuple[float, ...]
    """Where each frame lies along the normal of the slices, mm."""
    mosaic: bool
    """Whether all slices of the volume lie side by side in one frame."""

    def number(self, keyword: str) -> float:
        """The value of a numeric element; 0 where there is none."""
        values = self.headers.get(keyword, ())
        return float(values[0]) if values else 0.0


def read_image(path: Path, wanted: Sequence[str]) -> Image | str:
    """What a file's header says, or why the file is no image to use.

    Args:
        path: Any file.
        wanted: Further DICOM keywords to read.
    """
    from pydicom import dcmread
    from pydicom.config import disable_value_validation
    from pydicom.errors import InvalidDicomError

    tags: list[Any] = [*_NEEDED, *wanted, *_GROUPS, *_SPELT.values()]
    tags += [tag for owner, _, tag in _PRIVATE_B_VALUES for tag in (owner, tag)]
    try:
        with warnings.catch_warnings(), disable_value_validation(), path.open("rb") as file:
            warnings.simplefilter("ignore")  # they quote what the header says
            dataset = dcmread(file, stop_before_pixels=True, specific_tags=tags)
            if _is_cut(dataset, file):
                return _DAMAGED
            return _no_image(dataset) or _image(path, dataset, wanted)
    except InvalidDicomError:
        return "not a DICOM file"
    except PermissionError as error:
        return f"cannot be read ({error.strerror})"
    except _BROKEN:
        return _DAMAGED


def digest(uid: str) -> str:
    """Eight hexadecimal digits for a UID, which tell studies apart and give nothing away."""
    return hashlib.blake2b(uid.encode(), digest_size=4).hexdigest()


def _is_cut(dataset: "Dataset", file: IO[bytes]) -> bool:
    """Whether a file that promises an MR image ends before its pixels; it stands before them."""
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    meta = getattr(dataset, "file_meta", {})
    promised = meta.get("MediaStorageSOPClassUID") in _MR_IMAGES
    deflated = meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian
    return promised and not deflated and not file.read(1)


def _no_image(dataset: "Dataset") -> str | None:
    """Why a data set is no MR image, None if it is one."""
    from pydicom.uid import UID

    meta = getattr(dataset, "file_meta", {})
    kind = str(dataset.get("SOPClassUID") or meta.get("MediaStorageSOPClassUID") or "")
    if kind in _MR_IMAGES:
        missing = [
            name for name in ("StudyInstanceUID", "SeriesInstanceUID") if not dataset.get(name)
        ]
        return f"a damaged DICOM header without {missing[0]}" if missing else None
    if kind == _DIRECTORY:
        return "a DICOM directory"
    name = UID(kind).name if kind else "of no known kind"
    return f"{'a screenshot' if kind.startswith(_SECONDARY_CAPTURE) else 'no MR image'} ({name})"


def _image(path: Path, dataset: "Dataset", wanted: Sequence[str]) -> Image | str:
    """The image of a data set."""
    headers = {key: _values(dataset, key) for key in (*_NEEDED, *wanted)}
    headers["DiffusionBValue"] = headers["DiffusionBValue"] or _private_b_value(dataset)
    frames = list(_frames(dataset))
    planes = [_plane(frame, dataset) for frame in frames]
    if headers["SamplesPerPixel"] not in ((), (1,)):
        return "a colour image"
    if any(plane is None for plane in planes):
        return "an image without position in space"
    known = [plane for plane in planes if plane is not None]
    geometry, _ = known[0]
    if any(not np.allclose(geometry[:6], other[:6], atol=1e-3) for other, _ in known):
        return "slices in several directions: a localiser"
    normal = np.cross(geometry[:3], geometry[3:6])
    subject = str(dataset.get("PatientID") or "").strip()
    study = str(dataset.StudyInstanceUID)
    return Image(
        path=path,
        instance=str(dataset.get("SOPInstanceUID") or path),
        study=study,
        series=str(dataset.SeriesInstanceUID),
        subject=f"study-{digest(study)}" if subject.lower() in _NO_ID else subject,
        headers=headers,
        grid=(int(dataset.Rows), int(dataset.Columns)),
        geometry=geometry,
        positions=tuple(float(normal @ np.array(position)) for _, position in known),
        mosaic="MOSAIC" in headers["ImageType"],
    )


def _values(dataset: "Dataset", keyword: str) -> tuple[Any, ...]:
    """The values of an element, those of the first frame in a multi-frame image."""
    from pydicom.multival import MultiValue

    for name in (keyword, _SPELT.get(keyword)):
        value = None if name is None else next(_search(dataset, name), None)
        if value not in (None, ""):
            return tuple(value) if isinstance(value, MultiValue | list) else (value,)
    return ()


def _search(dataset: "Dataset", keyword: str) -> Iterator[Any]:
    """The values that an element has in a data set and in the first item of its sequences."""
    if keyword in dataset:
        yield dataset[keyword].value
    for group in _GROUPS:
        for item in list(dataset.get(group) or [])[:1]:
            for element in item:
                if element.VR == "SQ" and len(element.value) and keyword in element.value[0]:
                    yield element.value[0][keyword].value


def _private_b_value(dataset: "Dataset") -> tuple[float, ...]:
    """The b-value where the scanner's maker puts it."""
    for owner, name, tag in _PRIVATE_B_VALUES:
        if owner in dataset and tag in dataset and str(dataset[owner].value).strip() == name:
            value = dataset[tag].value
            first = (
                value[0] if isinstance(value, Sequence) and not isinstance(value, str) else value
            )
            if isinstance(first, bytes):  # of a private element whose type the file does not say
                return ()
            # GE adds a large round number to some.
            return (math.fmod(float(first), 100_000),)
    return ()


def _frames(dataset: "Dataset") -> Iterator["Dataset"]:
    """The data set of each frame; the whole one for a file with a single frame."""
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence")
    yield from per_frame or [dataset]


def _plane(frame: "Dataset", dataset: "Dataset") -> tuple[tuple[float, ...], list[float]] | None:
    """Orientation and pixel spacing, and position of a frame; None if it says none."""
    shared = (list(dataset.get("SharedFunctionalGroupsSequence") or []) or [dataset])[0]

    def find(group: str, keyword: str) -> list[float] | None:
        for place in (frame, shared):
            inner = place.get(group)
            for holder in ([inner[0]] if inner else []) + [place]:
                if holder.get(keyword):
                    return [float(number) for number in holder[keyword].value]
        return None

    orientation = find("PlaneOrientationSequence", "ImageOrientationPatient")
    position = find("PlanePositionSequence", "ImagePositionPatient")
    spacing = find("PixelMeasuresSequence", "PixelSpacing")
    if orientation is None or position is None or spacing is None:
        return None
    if len(orientation) != 6 or len(position) != 3 or len(spacing) != 2:
        return None
    return (*orientation, *spacing), position
