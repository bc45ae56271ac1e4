"""Several finished shard sets as one: the parts of a job array, or sets of different sources.

Notable: studies are copied in the order of their keys and cut into shards by the rule of a build,
so merged parts are, to the byte, what a build without parts makes. One study is in memory at a
time.
"""

import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from gliomoe.data_shards.building.failures import Failure, read_failures, write_failures
from gliomoe.data_shards.building.plan import BUILD, IDENTITY, claim, digest, other_set
from gliomoe.data_shards.building.resume import whole_shards
from gliomoe.data_shards.errors import DataError, UsageError
from gliomoe.data_shards.files import write_json
from gliomoe.data_shards.format import tar
from gliomoe.data_shards.format.dataset import COUNTED, DATASET, read_dataset, seal
from gliomoe.data_shards.format.index import INDEX, Index
from gliomoe.data_shards.format.record import FORMAT, EncodedStudy
from gliomoe.data_shards.format.writer import from_members, write_shards

MERGE = "merge.json"
"""What a folder is for while a merge is under way."""

_OF_SETS = ("keys", "inputs")
"""Entries of `dataset.json` that differ between sets; those of a merged one hash those of all."""

_SUMMED = ("failed", "generated_by", "part")
"""Entries that are put together."""


@dataclass(frozen=True)
class MergeReport:
    """What a merge did."""

    out: Path
    info: dict[str, Any]
    """`dataset.json`."""
    failed: tuple[Failure, ...]
    """Studies that could not be used in any of the sets."""
    seconds: float


def merge_shards(folders: Sequence[Path], out: Path, shard_mb: float | None = None) -> MergeReport:
    """Merge finished sets, or continue or recognise the merge in `out`.

    Args:
        folders: All parts of one build, or whole sets with the same settings and other studies;
            their order does not matter.
        out: Folder of the merged set.
        shard_mb: Megabytes after which a shard is closed; None takes that of the sets.

    Returns:
        What was done; failures are those that the sets list.

    Raises:
        UsageError: If a folder is no finished set, a part is missing or there twice, settings or
            studies do not fit, or `out` holds something else.
        DataError: If a set is damaged.
    """
    begun = time.monotonic()
    if out.resolve() in [folder.resolve() for folder in folders]:
        raise UsageError(f"{out}: is one of the sets to merge; choose another folder")
    sets = [_Source.open(folder) for folder in folders]
    settings = _settings(sets, shard_mb)
    failed = sorted(
        (failure for one in sets for failure in read_failures(one.folder)),
        key=lambda failure: failure.key,
    )
    studies = sum(len(one.index) for one in sets)
    if (info := _finished(out, settings, studies)) is None:
        info = _complete(sets, settings, failed, out)
    return MergeReport(out, info, tuple(failed), time.monotonic() - begun)


@dataclass(frozen=True)
class _Source:
    """A set to merge."""

    folder: Path
    info: dict[str, Any]
    index: Index

    @classmethod
    def open(cls, folder: Path) -> "_Source":
        """A finished set, possibly without studies."""
        info, index = read_dataset(folder), Index.open(folder / INDEX)
        if len(index) != info["studies"]:
            raise DataError(f"{folder}: index and {DATASET} disagree; build the set again")
        return cls(folder, info, index)

    @property
    def settings(self) -> dict[str, Any]:
        """What `dataset.json` says apart from what is counted."""
        return {name: value for name, value in self.info.items() if name not in COUNTED}

    def study(self, i: int) -> EncodedStudy:
        """A study as it is stored.

        Raises:
            DataError: If it is damaged.
        """
        place = self.index.place(i)
        path = self.folder / self.info["shards"][place.shard]["name"]
        name = f"{path}, study {self.index.entry(i).key}"
        try:
            with path.open("rb") as file:
                file.seek(place.offset)
                piece = file.read(place.length)
        except FileNotFoundError as error:
            raise DataError(f"{name}: the shard is missing; build or fetch it again") from error
        if len(piece) != place.length or zlib.crc32(piece) != place.crc32:
            raise DataError(f"{name}: is damaged; build or fetch this set again")
        return from_members(list(tar.walk(memoryview(piece), 0, len(piece), name)))


def _settings(sets: Sequence[_Source], shard_mb: float | None) -> dict[str, Any]:
    """What the merged set says of itself, apart from what is counted.

    Raises:
        UsageError: If the sets do not fit together.
    """
    if not sets:
        raise UsageError("no shard set given; name those to merge")
    first = sets[0].settings
    are_parts = any("part" in one.info for one in sets)
    if are_parts:
        _check_parts(sets)
    free = {*_SUMMED, *(() if are_parts else _OF_SETS), *(() if shard_mb is None else ["shard_mb"])}
    for one in sets[1:]:
        theirs = one.settings
        names = sorted({*first, *theirs} - free)
        if names := [name for name in names if first.get(name) != theirs.get(name)]:
            raise UsageError(
                f"{one.folder}: differs from {sets[0].folder} in {', '.join(names)}; build both "
                f"with the same {'sources and ' if are_parts else ''}settings"
            )
    joint: dict[str, Any] = {
        "failed": sum(one.info.get("failed", 0) for one in sets),
        "generated_by": sorted({g for one in sets for g in one.info.get("generated_by", [])}),
    }
    if shard_mb is not None:
        joint["shard_mb"] = shard_mb
    if not are_parts and len(sets) > 1:
        for name in _OF_SETS:
            joint[name] = digest(sorted(one.info.get(name, "") for one in sets))
    return {**{name: value for name, value in first.items() if name != "part"}, **joint}


def _check_parts(sets: Sequence[_Source]) -> None:
    """Refuse anything but each part of one build once."""
    found: dict[int, Path] = {}
    count = next(one.info["part"][1] for one in sets if "part" in one.info)
    for one in sets:
        number, of = one.info.get("part", (0, 0))
        if of != count:
            what = f"part {number} of {of}" if of else "no part"
            raise UsageError(f"{one.folder}: is {what}, the others are parts of {count}")
        if number in found:
            raise UsageError(f"{one.folder} and {found[number]} are both part {number} of {count}")
        found[number] = one.folder
    if missing := sorted(set(range(1, count + 1)) - set(found)):
        raise UsageError(
            f"part {', '.join(map(str, missing))} of {count} is missing; "
            f"gliomoe shards build --part {missing[0]}/{count} makes it"
        )


def _finished(out: Path, settings: dict[str, Any], studies: int) -> dict[str, Any] | None:
    """`dataset.json` if this very merge is finished in a folder.

    Raises:
        UsageError: If another set is.
    """
    if not (out / DATASET).is_file():
        return None
    info = read_dataset(out)
    wanted = {**settings, "studies": studies}
    if changed := sorted(name for name in wanted if info.get(name) != wanted[name]):
        raise other_set(out, changed)
    (out / MERGE).unlink(missing_ok=True)
    return info


def _order(sets: Sequence[_Source]) -> tuple[np.ndarray, np.ndarray]:
    """Set, and study in it, of each study of the merged set.

    Raises:
        UsageError: If a study is in two sets.
    """
    keys = np.concatenate([one.index.keys for one in sets])
    numbers = np.repeat(np.arange(len(sets)), [len(one.index) for one in sets])
    studies = np.concatenate([np.arange(len(one.index)) for one in sets])
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    if len(same := np.flatnonzero(keys[1:] == keys[:-1])):
        one, other = (sets[numbers[order[at]]].folder for at in (same[0], same[0] + 1))
        raise UsageError(
            f"{len(same)} studies are in two sets, first {keys[same[0]].decode()} in {one} and "
            f"{other}; leave one of the sets out"
        )
    return numbers[order], studies[order]


def _complete(
    sets: Sequence[_Source], settings: dict[str, Any], failed: Sequence[Failure], out: Path
) -> dict[str, Any]:
    """Copy what is missing; `dataset.json`."""
    numbers, studies = _order(sets)
    content = digest([[shard["sha256"] for shard in one.info["shards"]] for one in sets])
    claim(out, {**settings, "content": content}, MERGE)
    infos = [shard.info for shard in whole_shards(out)]
    done = sum(info.studies for info in infos)
    places = zip(numbers[done:].tolist(), studies[done:].tolist(), strict=True)
    with tqdm(desc="merge", total=len(studies), initial=done, unit="study", disable=None) as bar:

        def copied() -> Iterator[EncodedStudy]:
            for number, i in places:
                yield sets[number].study(i)
                bar.update()

        limit = round(settings["shard_mb"] * 1e6)
        infos += write_shards(out, copied(), limit, len(infos))
    if not infos:
        raise DataError(f"{out}: none of the sets has a study; see their failed.csv")
    write_failures(out, failed)
    identity = {name: settings[name] for name in IDENTITY if name in settings}
    write_json(out / BUILD, {"format": FORMAT, **identity})
    info = seal(out, infos, **settings)
    (out / MERGE).unlink()
    return info
