"""Typed options: preset or TOML file, then command-line flags, through one parser.

A table of a TOML file is spelt as flags and parsed with them in a single call, so that a file, the
command line and the configuration saved with a run are checked alike.
"""

import dataclasses
import difflib
import io
import json
import re
import tomllib
import typing
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stderr
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import tyro

from gliomoe.data_shards.errors import UsageError

C = TypeVar("C")

_MARKERS = (tyro.conf.AvoidSubcommands, tyro.conf.FlagConversionOff)
_REGISTRY = tyro.constructors.ConstructorRegistry()


@_REGISTRY.primitive_rule
def _switch(
    info: tyro.constructors.PrimitiveTypeInfo,
) -> tyro.constructors.PrimitiveConstructorSpec[bool] | None:
    """A boolean may stand bare: `--json`, `--json True` and `--json=False` all parse."""
    if info.type is not bool:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=(0, 1),
        metavar="[True|False]",
        instance_from_str=_read_switch,
        is_instance=lambda value: isinstance(value, bool),
        str_from_instance=lambda value: [str(value)],
    )


def _read_switch(given: list[str]) -> bool:
    """True where nothing follows the flag; a TOML file spells out either."""
    if given and given[0] not in ("True", "False"):
        raise ValueError(f"expected True or False, not {given[0]!r}")
    return not given or given[0] == "True"


def parse(
    cls: type[C],
    args: Sequence[str],
    prog: str,
    description: str = "",
    table: Mapping[str, Any] | None = None,
    source: str = "",
) -> C:
    """Options from a table and flags; of two values for one option the later wins.

    Args:
        cls: A frozen dataclass, possibly nested.
        args: Command-line flags.
        prog: Command name for messages and help.
        description: Text above the options in the help.
        table: Values of a TOML file; its keys are the names of the flags.
        source: Where `table` came from, for messages.

    Raises:
        UsageError: If a key or flag is unknown or a value does not fit.
        SystemExit: After printing help.
    """
    _check_keys(cls, table or {}, source)
    spelt = [*_flags(table or {}), *args]
    caught = io.StringIO()
    try:
        with redirect_stderr(caught):
            return tyro.cli(
                cls,
                args=spelt,
                prog=prog,
                description=description,
                config=_MARKERS,
                registry=_REGISTRY,
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        where = f"{source}, then flags: " if source else ""
        raise UsageError(f"{where}{_one_line(caught.getvalue())}; see {prog} --help") from None
    except ValueError as invalid:  # a cross-field check in __post_init__
        raise UsageError(f"{invalid}; see {prog} --help") from invalid


def read_preset(name: str, package: str) -> tuple[dict[str, Any], str]:
    """The table of a preset of a package, or of a TOML file, and where it was found.

    Args:
        name: Stem of a file in `<package>/configs`, or a path to a TOML file.
        package: Import name, such as `gliomoe.pretrain`.

    Raises:
        UsageError: If there is no such preset or file, or it is not TOML.
    """
    presets = {
        entry.name.removesuffix(".toml"): entry
        for entry in (files(package) / "configs").iterdir()
        if entry.name.endswith(".toml")
    }
    entry = presets.get(name) or Path(name)
    if not entry.is_file():
        raise UsageError(
            f"{name}: neither a preset nor a TOML file; presets: {', '.join(sorted(presets))}"
        )
    try:
        return tomllib.loads(entry.read_text("utf-8")), str(name)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{name}: not TOML ({error})") from error


def to_table(config: Any) -> dict[str, Any]:
    """The effective configuration as plain TOML and JSON values, without what is None."""

    def strip(table: dict[str, Any]) -> dict[str, Any]:
        return {
            key: strip(value) if isinstance(value, dict) else value
            for key, value in table.items()
            if value is not None
        }

    def named(value: Any) -> Any:
        if not dataclasses.is_dataclass(value):
            return value
        return {
            name: named(getattr(value, field.name)) for name, field in _fields(type(value)).items()
        }

    return strip(json.loads(json.dumps(named(config), default=str)))


def _fields(cls: type) -> dict[str, dataclasses.Field[Any]]:
    """Option name → field; `from_` and the like lose the underscore that Python needs."""
    return {field.name.rstrip("_"): field for field in dataclasses.fields(cls)}


def _flags(table: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Spell a table as flags."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flags(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            yield from (f"--{prefix}{key}", *map(str, value))
        else:
            yield f"--{prefix}{key}={value}"


def _check_keys(cls: type, table: Mapping[str, Any], source: str, prefix: str = "") -> None:
    """Refuse unknown keys of a file by its name, which the parser of flags no longer knows."""
    known = _fields(cls)
    types = typing.get_type_hints(cls)
    for key, value in table.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"perhaps {prefix}{near[0]}" if near else f"known: {', '.join(known)}"
            raise UsageError(f"{source}: unknown key {prefix}{key}; {hint}")
        if isinstance(value, Mapping):
            section = types[known[key].name]
            if not dataclasses.is_dataclass(section):
                raise UsageError(f"{source}: {prefix}{key} is a value, not a section")
            _check_keys(typing.cast(type, section), value, source, f"{prefix}{key}.")


def _one_line(message: str) -> str:
    """The parser's framed message as one line: its first part and the nearest names, if any."""
    lines = [line.strip("│╭╮╰╯ ") for line in message.splitlines()]
    body = " ".join(line for line in lines[1:-1] if line)
    parts = [part.strip() for part in re.split("─{3,}", body)]
    kept = [parts[0], *(part for part in parts[1:] if part.startswith("Perhaps"))]
    return re.sub(r"\s+", " ", "; ".join(kept))
