"""DICOM series as scanners write them, of random voxels."""

import hashlib
import struct

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

MR = "1.2.840.10008.5.1.4.1.1.4"
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"

SECRETS = {
    "PatientName": "Kowalska^Zdzislawa",
    "PatientID": "MRN-7741290",
    "PatientBirthDate": "19520229",
    "ImageComments": "calls herself Zdzisia",
    "ReferringPhysicianName": "Brzeczyszczykiewicz",
    "AccessionNumber": "ACC5550199",
    "StudyDescription": "follow-up of Mrs K",
    "InstitutionName": "Szpital Wojewodzki",
}


def uid(name):
    """A UID that is always the same for a name."""
    return generate_uid(entropy_srcs=[name])


def directions():
    """[3, 3]: unit vectors along columns, rows and slices, LPS, oblique."""
    a, b = 0.2, -0.1
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    return about_z @ about_x


def voxels(shape=(20, 24, 8), seed=0):
    """[rows, columns, slices] uint16, no two volumes alike."""
    return np.random.default_rng(seed).integers(1, 1000, shape).astype(np.uint16)


def lps_affine(spacing=(1.5, 2.0, 3.0)):
    """[4, 4]: (column, row, slice) → LPS mm."""
    affine = np.eye(4)
    affine[:3, :3] = directions() * spacing
    affine[:3, 3] = -20, -15, 30
    return affine


def _blank(sop, study, series, number):
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop
    meta.MediaStorageSOPInstanceUID = uid(f"{study}{series}{number}")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    image.SOPClassUID = sop
    image.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    image.StudyInstanceUID, image.SeriesInstanceUID = uid(study), uid(study + series)
    image.Modality, image.Manufacturer = "MR", "ACME"
    image.StudyDate, image.StudyTime = "20200101", "101500"
    image.SeriesNumber, image.InstanceNumber = 1, number + 1
    for name, value in SECRETS.items():
        setattr(image, name, value)
    image.SeriesDescription = series
    return image


def _pixels(image, array):
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.Rows, image.Columns = array.shape[-2:]
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, 16, 15
    image.PixelRepresentation = 0
    image.PixelData = np.ascontiguousarray(array).tobytes()


def _save(image, folder, name):
    """Under a name that says nothing and is in no order."""
    path = folder / hashlib.md5(name.encode()).hexdigest()[:8]
    folder.mkdir(parents=True, exist_ok=True)
    image.save_as(path, enforce_file_format=True)
    return path


def write_series(folder, series="T1", study="study", array=None, spacing=(1.5, 2.0, 3.0), **more):
    """Write a series of single-frame files; `more` are elements. Returns the paths by slice."""
    array = voxels() if array is None else array
    affine, unit = lps_affine(spacing), directions()
    paths = []
    for k in range(array.shape[2]):
        image = _blank(more.get("SOPClassUID", MR), study, series, k)
        image.ImageType = ["ORIGINAL", "PRIMARY", "M"]
        image.ImageOrientationPatient = [*unit[:, 0], *unit[:, 1]]
        image.ImagePositionPatient = list(affine[:3, 2] * k + affine[:3, 3])
        image.PixelSpacing = [spacing[1], spacing[0]]
        image.SliceThickness = spacing[2]
        image.RepetitionTime, image.EchoTime = 500, 10
        for name, value in more.items():
            setattr(image, name, value)
        if "SeriesInstanceUID" in more:  # another part of a series that is there
            image.SOPInstanceUID = uid(f"{folder}{k}")
            image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
        _pixels(image, array[:, :, k])
        paths.append(_save(image, folder, f"{study}{series}{k}"))
    return paths


def write_capture(folder, study="study"):
    """Write a screenshot."""
    image = _blank(SECONDARY_CAPTURE, study, "shot", 0)
    _pixels(image, voxels((30, 30)))
    return _save(image, folder, f"{study}shot")


def _item(**elements):
    item = Dataset()
    for name, value in elements.items():
        setattr(item, name, value)
    return item


def write_enhanced(folder, series="T2", study="study", array=None, spacing=(1.5, 2.0, 3.0)):
    """Write a series as one enhanced multi-frame file, its frames in reverse order."""
    array = voxels() if array is None else array
    affine, unit = lps_affine(spacing), directions()
    image = _blank(ENHANCED_MR, study, series, 0)
    image.ImageType = ["ORIGINAL", "PRIMARY", "T2", "NONE"]
    image.NumberOfFrames = array.shape[2]
    measures = _item(PixelSpacing=[spacing[1], spacing[0]], SliceThickness=spacing[2])
    measures.SpacingBetweenSlices = spacing[2]
    orientation = _item(ImageOrientationPatient=[*unit[:, 0], *unit[:, 1]])
    timing = _item(RepetitionTime=4000.0, FlipAngle=90.0, EchoTrainLength=8)
    shared = _item(
        PixelMeasuresSequence=Sequence([measures]),
        PlaneOrientationSequence=Sequence([orientation]),
        MRTimingAndRelatedParametersSequence=Sequence([timing]),
        MREchoSequence=Sequence([_item(EffectiveEchoTime=90.0)]),
    )
    image.SharedFunctionalGroupsSequence = Sequence([shared])
    frames, order = [], list(reversed(range(array.shape[2])))
    for number, k in enumerate(order):
        place = _item(ImagePositionPatient=list(affine[:3, 2] * k + affine[:3, 3]))
        content = _item(StackID="1", InStackPositionNumber=k + 1, DimensionIndexValues=[1, k + 1])
        content.TemporalPositionIndex, content.FrameAcquisitionNumber = 1, number + 1
        frames.append(
            _item(PlanePositionSequence=Sequence([place]), FrameContentSequence=Sequence([content]))
        )
    image.PerFrameFunctionalGroupsSequence = Sequence(frames)
    _pixels(image, np.moveaxis(array[:, :, order], 2, 0))
    return _save(image, folder, f"{study}{series}")


def expected(array, volume, spacing=(1.5, 2.0, 3.0)):
    """What an image should hold at each of its voxels, looked up in the array by position."""
    index = np.indices(volume.data.shape).reshape(3, -1)
    ras = volume.affine[:3, :3] @ index + volume.affine[:3, 3:]
    affine = lps_affine(spacing)
    lps = ras * [[-1], [-1], [1]]
    found = np.linalg.solve(affine[:3, :3], lps - affine[:3, 3:])
    column, row, k = np.rint(found).astype(int)
    assert np.abs(found - np.rint(found)).max() < 1e-3
    return array[row, column, k].reshape(volume.data.shape)


def copy_to(path, folder):
    """The same file once more."""
    (folder / "again").write_bytes(path.read_bytes())


def write_mosaic(folder, series="ep2d_diff_TRACEW", array=None, spacing=(1.5, 2.0, 3.0)):
    """Write nine slices side by side in one frame, as Siemens scanners do."""
    array = voxels((20, 24, 9)) if array is None else array
    rows, columns, slices = array.shape
    side, unit = 3, directions()
    frame = np.zeros((side * rows, side * columns), np.uint16)
    for k in range(slices):
        y, x = k // side * rows, k % side * columns
        frame[y : y + rows, x : x + columns] = array[:, :, k]
    image = _blank(MR, "study", series, 0)
    image.Manufacturer, image.ImageType = "SIEMENS", ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]
    # Given is where the corner of the frame would lie if it were one large slice.
    outward = (side - 1) / 2 * (columns * spacing[0] * unit[:, 0] + rows * spacing[1] * unit[:, 1])
    image.ImagePositionPatient = list(lps_affine(spacing)[:3, 3] - outward)
    image.ImageOrientationPatient = [*unit[:, 0], *unit[:, 1]]
    image.PixelSpacing, image.SliceThickness = [spacing[1], spacing[0]], spacing[2]
    image.SpacingBetweenSlices, image.RepetitionTime, image.EchoTime = spacing[2], 3000, 90
    tags = [
        _csa_tag("NumberOfImagesInMosaic", "US", [str(slices)]),
        _csa_tag("SliceNormalVector", "FD", [f"{number:.8f}" for number in unit[:, 2]]),
    ]
    header = b"SV10\x04\x03\x02\x01" + struct.pack("<II", len(tags), 77) + b"".join(tags)
    image.private_block(0x0029, "SIEMENS CSA HEADER", create=True).add_new(0x10, "OB", header)
    _pixels(image, frame)
    return _save(image, folder, series)


def _csa_tag(name, kind, values):
    """An element of Siemens' own header."""
    content = name.encode().ljust(64, b"\0") + struct.pack("<i4s", len(values), kind.encode())
    content += struct.pack("<iii", 0, 6, 77)
    for value in [*values, *[""] * (6 - len(values))]:
        text = value.encode() + b"\0"
        content += struct.pack("<4i", *(len(text), len(text), 77, len(text)))
        content += text + b"\0" * (-len(text) % 4)
    return content
