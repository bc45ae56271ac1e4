"""What every study of training is told, and the settings of runs as its options spell them."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gliomoe.data_shards.errors import UsageError
from gliomoe.launch.options import read_preset
from gliomoe.models.settings import parse_settings

Table = dict[str, Any]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


@dataclass(frozen=True)
class StudyConfig:
    """Options that all studies of training share."""

    data: Path
    """Labelled cases to train on: shard set with kept ids, or a raw folder (BIDS, BraTS)."""
    test: tuple[str, ...]
    """Cohorts to measure on, as `A=DIR B=DIR`."""
    out: Path
    """Folder of the study; the same command continues it."""
    labels: Path | None = None
    """CSV or TSV with the cases' labels; without it those that the data carry themselves."""
    test_labels: tuple[str, ...] = ()
    """Label tables of test cohorts that carry none themselves, as `A=TABLE`."""
    test_genes: tuple[str, ...] = ()
    """Gene tables of test cohorts, for models that take them (mdl_ca), as `A=TABLE`."""
    finetune: tuple[str, ...] = ("gliomoe_20shot",)
    """Fine-tuning: a preset or TOML file, then changes, as `quickstart train.epochs=8`."""
    seeds: int = 5
    """Repetitions; each draws other labelled cases, the same for all that is compared."""
    parallel: int = 1
    """Runs at a time, each in a process of its own with its share of the threads."""
    dry_run: bool = False
    """Print the runs and which are done; train nothing."""
    json: bool = False
    """Print study.json instead of a table."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if self.seeds < 1 or self.parallel < 1:
            raise ValueError("seeds and parallel must be at least 1")


@dataclass(frozen=True, kw_only=True)
class PretrainStudyConfig(StudyConfig):
    """Options of studies that pretrain too."""

    unlabelled: tuple[str, ...]
    """Shard sets to pretrain on, folders or URLs."""
    pretrain: tuple[str, ...] = ("gliomoe_tiny",)
    """Pretraining: a preset or TOML file, then changes, as `quickstart run.steps=500`."""
    shots: tuple[int, ...] = (20,)
    """Labelled cases to fine-tune on; those of a seed are nested."""


def pairs(texts: Sequence[str], option: str) -> dict[str, str]:
    """`NAME=VALUE` of an option, in order; a name becomes part of a folder's name.

    Raises:
        UsageError: If one is not of this form, or a name comes twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not (sign and value and _NAME.fullmatch(name)):
            raise UsageError(
                f"--{option} {text}: write it as NAME=VALUE, the name of letters, digits and ._+-"
            )
        if name in found:
            raise UsageError(f"--{option}: {name} is there twice; give each a name of its own")
        found[name] = value
    return found


def recipe(texts: Sequence[str], package: str, option: str) -> Table:
    """A preset or TOML file with changes, as one table.

    Args:
        texts: Its name, then `section.key=value`; a value is read as JSON, or taken as text.
        package: Import name of the layer whose preset it is.
        option: For messages.

    Raises:
        UsageError: If there is no such preset.
        ModelError: If a change has no `=`.
    """
    if not texts:
        raise UsageError(f"--{option}: give a preset or a TOML file")
    return merged(read_preset(texts[0], package)[0], nested(parse_settings(texts[1:])))


def nested(settings: Mapping[str, Any]) -> Table:
    """`{"a.b": 1, "a.c": 2}` as `{"a": {"b": 1, "c": 2}}`."""
    table: Table = {}
    for name, value in settings.items():
        for section in reversed(name.split(".")):
            value = {section: value}
        table = merged(table, value)
    return table


def merged(table: Mapping[str, Any], changes: Mapping[str, Any]) -> Table:
    """A table with the values of another in their places, section by section.

    A list called `set`, as `model.set` of pretraining, holds settings by name and is added to.
    """
    result = dict(table)
    for key, value in changes.items():
        before = result.get(key)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            result[key] = merged(before, value)
        elif key == "set" and isinstance(before, list) and isinstance(value, list):
            result[key] = [*before, *value]
        else:
            result[key] = value
    return result


def read_tables(path: Path) -> dict[str, Table]:
    """The tables of a TOML file by name.

    Raises:
        UsageError: If it cannot be read, or holds anything else.
    """
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as TOML ({error})") from error
    for name, table in content.items():
        if not isinstance(table, dict) or not _NAME.fullmatch(name):
            raise UsageError(f"{path}: {name}: give a table under a name of letters, digits, ._+-")
    return content
