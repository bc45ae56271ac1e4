"""What a worker of a build does: the files of one study to the members of a shard."""

from gliomoe.data_shards.errors import DataError, UsageError, printable
from gliomoe.data_shards.preprocess import PreprocessConfig, preprocess
from gliomoe.data_shards.record import EncodedStudy, encode_study
from gliomoe.data_shards.study import RawStudy


def prepare(job: tuple[RawStudy, PreprocessConfig, str | None]) -> EncodedStudy | str:
    """One study, or why it cannot be used.

    Args:
        job: The files, the settings, and the salt of the keys (None keeps ids).
    """
    raw, config, salt = job
    try:
        return encode_study(preprocess(raw, config, salt), config.digest())
    except (DataError, UsageError, OSError) as error:
        return printable(" ".join(str(error).split()))
