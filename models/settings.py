"""Settings of a model: a frozen dataclass beside its class, a preset of it, and what is changed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from gliomoe.models.errors import ModelError

Config = TypeVar("Config")


def changed(family: str, preset: Config, settings: Mapping[str, Any]) -> Config:
    """A preset with some settings changed.

    Args:
        family: Name for the message.
        preset: A frozen dataclass.
        settings: Field → value, lists where the dataclass has tuples, as JSON gives them.

    Raises:
        ModelError: If a setting is unknown or of another kind than the preset's.
    """
    assert is_dataclass(preset) and not isinstance(preset, type)
    known = [field.name for field in fields(preset)]
    if unknown := sorted(set(settings) - set(known)):
        raise ModelError(f"unknown setting {unknown[0]!r} of {family}; known: {', '.join(known)}")
    values = {key: _like(family, key, getattr(preset, key), v) for key, v in settings.items()}
    return replace(preset, **values)


def parse_settings(texts: Sequence[str]) -> dict[str, Any]:
    """Settings as written on a command line: `experts=16 dlka=false fusion=mean levels=[8,16]`.

    Args:
        texts: `name=value`; a value is read as JSON, or taken as text where it is none.

    Raises:
        ModelError: If one has no `=`.
    """
    settings = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign:
            raise ModelError(f"setting {text!r}: write it as name=value")
        try:
            settings[name] = json.loads(value)
        except json.JSONDecodeError:
            settings[name] = {"True": True, "False": False}.get(value, value)
    return settings


def _like(family: str, key: str, old: Any, new: Any) -> Any:
    """A new value in the type of the old one; `ModelError` if it is of another kind."""
    if isinstance(old, tuple) and isinstance(new, list):
        new = tuple(new)
    if isinstance(old, float) and isinstance(new, int) and not isinstance(new, bool):
        new = float(new)
    if old is not None and type(new) is not type(old):
        raise ModelError(
            f"setting {key} of {family}: {new!r} is a {type(new).__name__}, "
            f"it takes a {type(old).__name__} as {old!r}"
        )
    return new
