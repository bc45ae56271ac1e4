"""Variants of the method, each with changes to pretraining, to fine-tuning, or to both."""

from collections.abc import Sequence
from pathlib import Path

from gliomoe.data_shards.errors import UsageError
from gliomoe.launch.studies.config import PretrainStudyConfig, Table, read_tables
from gliomoe.launch.studies.grid import Grid
from gliomoe.launch.studies.pretraining import Pretraining, read_pretrainings
from gliomoe.launch.studies.study import make_grid

FULL = "full"
"""The recipe that nothing is taken from."""

SHIPPED = Path(__file__).with_name("ablations.toml")

_PARTS = ("pretrain", "finetune")


def read_variants(
    config: PretrainStudyConfig, path: Path | None, only: Sequence[str]
) -> tuple[list[Pretraining], Grid]:
    """The pretrainings that the variants need, that of the full recipe first, and their runs.

    Args:
        config: The study's options.
        path: TOML file of variants; None for the one that is shipped.
        only: Names of variants; none for all.

    Raises:
        UsageError: If the file cannot be read, a name is unknown, or settings do not fit.
    """
    tables = _read(path or SHIPPED)
    if unknown := sorted(set(only) - set(tables)):
        raise UsageError(f"--only {unknown[0]}: no such variant; there are {', '.join(tables)}")
    tables = {FULL: {}, **{name: tables[name] for name in only or tables}}
    changed = {
        name: table.get("pretrain", {})
        for name, table in tables.items()
        if name == FULL or "pretrain" in table
    }
    pretrainings = read_pretrainings(config, changed)
    arms = [
        pretrainings.get(name, pretrainings[FULL]).arm(table.get("finetune", {}), name)
        for name, table in tables.items()
    ]
    return list(pretrainings.values()), make_grid(config, arms, config.shots)


def _read(path: Path) -> dict[str, Table]:
    """The variants of a file.

    Raises:
        UsageError: If one changes nothing, or something else than pretraining or fine-tuning.
    """
    if not (tables := read_tables(path)):
        raise UsageError(f"{path}: holds no variant; give a table for each")
    for name, table in tables.items():
        if name == FULL:
            raise UsageError(f"{path}: {FULL} is the recipe as it is; call the variant otherwise")
        other = [key for key in table if key not in _PARTS or not isinstance(table[key], dict)]
        if other or not table:
            raise UsageError(
                f"{path}, {name}: give its changes as `pretrain.section.key` or "
                f"`finetune.section.key`, not {', '.join(other) or 'nothing'}"
            )
    return tables
