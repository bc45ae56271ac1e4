"""From folders of MRI to a finished shard set: in parallel, continued after a kill, the same bytes.

Notable: studies are prepared by worker processes but written by one, in the order of their keys;
`build.json` tells which studies and settings a folder is for, whole shards tell what is done, and
`dataset.json` appears last. Studies that failed are tried again by the same command.
"""

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from gliomoe.data_shards.building.failures import Failure, read_failures, write_failures
from gliomoe.data_shards.building.plan import BUILD, BuildConfig, Plan, claim, digest, make_plan
from gliomoe.data_shards.building.prepare import Job, prepare, worker_died
from gliomoe.data_shards.building.resume import (
    Replaced,
    WholeShard,
    check_origins,
    make_room,
    remove_replaced,
    whole_shards,
)
from gliomoe.data_shards.errors import DataError, printable
from gliomoe.data_shards.format.dataset import DATASET, read_dataset, seal
from gliomoe.data_shards.format.record import EncodedStudy
from gliomoe.data_shards.format.writer import write_shards
from gliomoe.data_shards.parallel import ordered_map
from gliomoe.data_shards.preprocess.pipeline import check_steps

if TYPE_CHECKING:
    from gliomoe.data_shards.reading.indexed import ShardSet

__all__ = ["BuildConfig", "BuildReport", "build_shards", "open_or_build"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BuildReport:
    """What a build did."""

    out: Path
    info: dict[str, Any]
    """`dataset.json`."""
    failed: tuple[Failure, ...]
    """Studies that could not be used, with the reason."""
    built: int
    """Studies that this call added; the rest were there already."""
    seconds: float


def build_shards(sources: Sequence[Path], out: Path, config: BuildConfig) -> BuildReport:
    """Build a shard set, or continue or recognise the one in `out`.

    Args:
        sources: Data sets, case folders or files, which may have different layouts.
        out: Folder of the set; `failed.csv` in it lists studies that could not be used.
        config: Settings. Workers do not change the bytes.

    Raises:
        UsageError: If a source has no studies, two studies have one key, or `out` holds another
            set or other files.
        DataError: If no study could be used, unless this is one of several parts.
    """
    begun = time.monotonic()
    check_steps(config.preprocess)
    plan = make_plan(sources, config)
    claim(out, plan.identity)
    failed = read_failures(out)
    info = read_dataset(out) if (out / DATASET).is_file() else None
    if info is not None and info["inputs"] == plan.inputs and not failed:
        remove_replaced(out)
        return BuildReport(out, info, (), 0, time.monotonic() - begun)
    shards = whole_shards(out)
    check_origins(out, shards, plan)
    before = sum(shard.info.studies for shard in shards)
    if info is None:  # the others are tried again when their turn comes
        failed = [one for one in failed if shards and one.key < shards[-1].last]
    failed, repaired = _retry(failed, plan, config)
    if repaired is not None:
        shards, info = list(make_room(out, shards, repaired, config.limit)), None
    if info is None or info["inputs"] != plan.inputs:
        info = _complete(plan, config, shards, failed, out)
    write_failures(out, failed)
    built = info["studies"] - before
    return BuildReport(out, info, tuple(failed), built, time.monotonic() - begun)


def open_or_build(data: Path, cache: Path, config: BuildConfig) -> "ShardSet":
    """A shard set as it is, or one built once from a raw folder.

    Args:
        data: A finished shard set, or a data set, case folder or file.
        cache: Where built sets are kept, each in a folder of its own for its files and settings.
        config: Settings of the build; ids are kept, because tables of labels name them.

    Raises:
        UsageError: If `data` holds neither.
        DataError: If a study cannot be used; a labelled case is never left out in silence.
    """
    from gliomoe.data_shards.reading.indexed import ShardSet  # needs torch, which a build does not

    if (data / DATASET).is_file():
        return ShardSet.open(data)
    if (data / BUILD).is_file():
        read_dataset(data)  # raises: an unfinished set
    config = replace(config, keep_ids=True)
    plan = make_plan([data], config)
    changed = [p.stat().st_mtime_ns for raw in plan.studies.values() for p in raw.files]
    name = digest([plan.identity, plan.inputs, str(data.resolve()), changed])
    folder = cache / name[:16]
    report = build_shards([data], folder, config)
    if report.failed:
        first = report.failed[0]
        raise DataError(
            f"{data}: {len(report.failed)} studies cannot be used, first {first.key}: "
            f"{first.reason}; repair or remove them"
        )
    return ShardSet.open(folder)


def _complete(
    plan: Plan,
    config: BuildConfig,
    shards: Sequence[WholeShard],
    failed: list[Failure],
    out: Path,
) -> dict[str, Any]:
    """Write what is missing; `dataset.json`."""
    known = {key for shard in shards for key in shard.origins} | {one.key for one in failed}
    infos = [shard.info for shard in shards]
    studies = _studies(plan, config, known, failed, out)
    for written in write_shards(out, studies, config.limit, len(infos)):
        infos.append(written)
    write_failures(out, failed)
    if not infos and "part" not in plan.identity:
        raise DataError(
            f"{out}: none of {len(plan.studies)} studies could be used; first {failed[0].key}: "
            f"{failed[0].reason}; failed.csv there lists all"
        )
    more: dict[str, Any] = {
        "inputs": plan.inputs,
        "failed": len(failed),
        "generated_by": plan.generated_by,
    }
    info = seal(out, infos, **plan.identity, **more)
    remove_replaced(out)
    return info


def _retry(
    failed: Sequence[Failure], plan: Plan, config: BuildConfig
) -> tuple[list[Failure], str | None]:
    """Try studies again that failed; those before the first that can be used now, and its key."""
    still: list[Failure] = []
    keys = [one.key for one in failed]
    for key, result in zip(keys, _prepared(keys, plan, config), strict=True):
        if isinstance(result, EncodedStudy):
            return still, key
        still.append(Failure(key, printable(str(plan.studies[key].source)), result))
    return still, None


def _studies(
    plan: Plan,
    config: BuildConfig,
    known: set[str],
    failed: list[Failure],
    out: Path,
) -> Iterator[EncodedStudy]:
    """The studies that can be used, in order; the others go to `failed` and into its file."""
    old = Replaced(out)
    todo = {key: old.find(key, plan.origins[key]) for key in plan.studies if key not in known}
    results = _prepared([key for key, copy in todo.items() if copy is None], plan, config)
    total = len(plan.studies)
    with tqdm(desc="shards", total=total, initial=len(known), unit="study", disable=None) as bar:
        for number, (key, copy) in enumerate(todo.items(), len(known) + 1):
            result = next(results) if copy is None else copy
            if isinstance(result, EncodedStudy):
                yield result
            else:
                failed.append(Failure(key, printable(str(plan.studies[key].source)), result))
                # Before the shard that follows is whole, so that a continued build still knows.
                write_failures(out, failed)
                _log.warning("%s: left out: %s", key, result)
            bar.update()
            bar.set_postfix_str(f"{len(failed)} failed" if failed else "", refresh=False)
            if bar.disable and number % max(1, total // 100) == 0:  # a log file, not a terminal
                _log.info("%d of %d studies, %d failed", number, total, len(failed))


def _prepared(keys: Iterable[str], plan: Plan, config: BuildConfig) -> Iterator[EncodedStudy | str]:
    """Studies ready to be written, or why they cannot be used, in the order of the keys."""
    jobs = (
        Job(plan.studies[key], plan.origins[key], config.preprocess, config.secret) for key in keys
    )
    return ordered_map(prepare, jobs, config.workers, died=worker_died)
