"""The same shards read from first to last by plain `webdataset`, for slow links and interchange.

Notable: members are taken as bytes and decoded here. `webdataset`'s own `.decode()` would run
what some members contain, so it is never called, and `WDS_SECURE` forbids it to the process. A
shard that was cut off ends quietly in `webdataset`, so the studies of each are counted.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gliomoe.data_shards.batch import StudySample
from gliomoe.data_shards.dataset import read_dataset
from gliomoe.data_shards.errors import DataError
from gliomoe.data_shards.record import parse_record
from gliomoe.data_shards.sample import StoredStudy

os.environ["WDS_SECURE"] = "1"  # read once, when webdataset is imported

from webdataset.tariterators import group_by_keys, tar_file_expander


def stream_studies(folder: Path, start: int = 0) -> Iterator[StudySample]:
    """The studies of a finished set in the order of its shards.

    Args:
        folder: The shard set.
        start: Studies to leave out at the beginning, so that a reader resumes where it was;
            whole shards among them are not opened.

    Raises:
        UsageError: If the folder is no finished set.
        DataError: If a shard is damaged or holds fewer studies than it should.
    """
    for shard in read_dataset(folder)["shards"]:
        if start >= shard["studies"]:
            start -= shard["studies"]
            continue
        path = folder / shard["name"]
        count = 0
        for count, members in enumerate(_members(path), 1):
            if count > start:
                name = f"{path}, study {members['__key__']}"
                if "json" not in members:
                    raise DataError(f"{name}: has no record; fetch the shard again")
                yield StoredStudy(members, parse_record(members["json"], name)).read()
        if count != shard["studies"]:
            raise DataError(
                f"{path}: {count} of {shard['studies']} studies, cut off; fetch the shard again"
            )
        start = 0


def _members(path: Path) -> Iterator[dict[str, Any]]:
    """Suffix → bytes of each study of a shard."""
    try:
        with path.open("rb") as stream:
            yield from group_by_keys(tar_file_expander([{"url": str(path), "stream": stream}]))
    except Exception as error:  # webdataset passes on whatever tarfile and the stream raise
        if isinstance(error, DataError):  # of the caller, who decodes between two studies
            raise
        raise DataError(f"{path}: cannot be read ({error}); fetch the shard again") from error
