"""What a worker of a build does: the files of one study to the members of a shard."""

from dataclasses import dataclass

from gliomoe.data_shards.errors import DataError, UsageError, printable
from gliomoe.data_shards.format.record import EncodedStudy, encode_study
from gliomoe.data_shards.preprocess import PreprocessConfig, preprocess
from gliomoe.data_shards.study import RawStudy


@dataclass(frozen=True)
class Job:
    """One study to prepare."""

    raw: RawStudy
    """Its files."""
    origin: str
    """Their hash, for the record."""
    config: PreprocessConfig
    secret: str | None
    """Salt of the keys, None to keep ids."""


def prepare(job: Job) -> EncodedStudy | str:
    """One study, or why it cannot be used."""
    try:
        study = preprocess(job.raw, job.config, job.secret)
        return encode_study(study, job.config.digest(), job.origin)
    except (DataError, UsageError, OSError) as error:
        return _one_line(error)
    except MemoryError:
        return printable(f"{job.raw.source}: does not fit into memory; {_RETRY}")
    except Exception as error:  # whatever a library raises: one study must not stop the others
        return printable(f"{job.raw.source}: {type(error).__name__}: {_one_line(error)}")


def worker_died(job: Job) -> str:
    """Why a study that ended its worker process cannot be used."""
    return printable(f"{job.raw.source}: its process died, perhaps for want of memory; {_RETRY}")


def _one_line(error: Exception) -> str:
    """What an error says."""
    return printable(" ".join(str(error).split()))


_RETRY = "the same command with more memory tries it again"
