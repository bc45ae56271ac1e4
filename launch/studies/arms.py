"""The arms of a study: where each starts and the settings of its fine-tuning."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gliomoe.data_shards.errors import UsageError
from gliomoe.finetune.config import SCRATCH
from gliomoe.launch.commands.finetune import Options
from gliomoe.launch.options import parse
from gliomoe.launch.studies.config import StudyConfig, Table, merged, pairs, read_tables, recipe

FROZEN = ":frozen"

_OWN = ("data", "labels", "out", "from", "shots", "seed", "splits", "cache", "dry_run")
"""Options of `gliomoe finetune` that a study sets itself."""


@dataclass(frozen=True)
class Arm:
    """One of the things compared."""

    name: str
    source: str
    """Checkpoint, or `scratch`."""
    settings: Table = field(default_factory=dict)
    """What it changes of the study's fine-tuning."""


def read_arms(texts: Sequence[str], settings: Path | None, option: str = "arms") -> list[Arm]:
    """Arms from the command line.

    Args:
        texts: `NAME=SOURCE`, or `NAME=SOURCE:frozen` for an encoder that keeps its weights.
        settings: TOML file with a table of changes for each arm that has some.
        option: That they come from, for messages.

    Raises:
        UsageError: If one cannot be read, or the file names another arm.
    """
    tables = read_tables(settings) if settings else {}
    arms = []
    for name, value in pairs(texts, option).items():
        source = value.removesuffix(FROZEN)
        frozen = {"freeze": "encoder"} if source != value else {}
        arms.append(Arm(name, source, merged(frozen, tables.pop(name, {}))))
    if tables:
        known = ", ".join(arm.name for arm in arms)
        raise UsageError(f"{settings}: tables for {', '.join(tables)}, but there are {known}")
    return arms


def finetune_options(config: StudyConfig, arms: Sequence[Arm]) -> Mapping[str, Options]:
    """Arm → options of `gliomoe finetune`; shots, seed, splits and folder are set for each run.

    Raises:
        UsageError: If a setting is unknown, does not fit, or is one that the study sets.
    """
    table = recipe(config.finetune, "gliomoe.finetune", "finetune")
    if changed := [text for text in config.finetune[1:] if text.partition("=")[0] in _OWN]:
        raise UsageError(f"--finetune {changed[0]}: the study sets it; leave it out")
    found = {}
    for arm in arms:
        if own := [key for key in arm.settings if key in _OWN]:
            raise UsageError(f"arm {arm.name}: {own[0]} is set by the study; leave it out")
        source = arm.source if arm.source == SCRATCH or ":" in arm.source else Path(arm.source)
        given = {"data": config.data, "from": source, "out": config.out}
        given |= {"cache": config.out / "shards"}
        given |= {} if config.labels is None else {"labels": config.labels}
        changes = merged(table, arm.settings)
        changes.pop("shots", None)  # a preset's own
        found[arm.name] = parse(
            Options, (), "gliomoe finetune", table=merged(changes, given), source=f"arm {arm.name}"
        )
    return found
