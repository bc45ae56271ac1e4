"""One case: a folder of NIfTI files named by sequence, or a single file."""

from pathlib import Path

from gliomoe.data_shards.ingest.names import by_sequence, is_mask, nifti_files, parts, stem
from gliomoe.data_shards.study import RawStudy


def find_case(source: Path, layout: str = "case") -> list[RawStudy]:
    """The study in a folder such as `<id>/<id>_{t1,t1ce,t2,flair,seg}.nii.gz`, or of one file.

    Names of BraTS up to 2022 (`_t1ce`), since 2023 (`-t1c`) and plain ones (`t1c.nii.gz`) work;
    the labels of a segmentation beside files in the spelling of 2023 follow its convention.

    Args:
        source: Folder or file.
        layout: Name of the layout to record.
    """
    if source.is_file():
        return [RawStudy(stem(source), None, by_sequence([source]), None, source, layout)]
    files = nifti_files(source)
    segs = [path for path in files if parts(path)[-1] == "seg"]
    images = [path for path in files if path not in segs and not is_mask(path)]
    since_2023 = any(parts(path)[-1] in ("t1n", "t1c", "t2w", "t2f") for path in images)
    return [
        RawStudy(
            subject=source.resolve().name,
            session=None,
            series=by_sequence(images),
            seg=segs[0] if segs else None,
            source=source,
            layout=layout,
            seg_labels="brats2023" if since_2023 else "brats2021",
        )
    ]
