"""From where the voxels of a sequence lie to the voxels."""

from gliomoe.data_shards.nifti import Volume, read_nifti
from gliomoe.data_shards.study import DicomSeries, Source


def read_source(source: Source) -> Volume:
    """Read an image.

    Raises:
        UsageError: If there is no such file.
        DataError: If the file, or one of the files of a DICOM series, is unusable.
    """
    if isinstance(source, DicomSeries):
        from gliomoe.data_shards.ingest.dicom_convert import convert

        return convert(source)
    return read_nifti(source)
