"""Settings of a model: a frozen dataclass beside its class, a preset of it, and what is changed."""

from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from gliomoe.models.errors import ModelError

Config = TypeVar("Config")


def changed(family: str, preset: Config, settings: dict[str, Any]) -> Config:
    """A preset with some settings changed.

    Args:
        family: Name for the message.
        preset: A frozen dataclass.
        settings: Field → value, lists where the dataclass has tuples, as JSON gives them.

    Raises:
        ModelError: If a setting is unknown.
    """
    assert is_dataclass(preset) and not isinstance(preset, type)
    known = [field.name for field in fields(preset)]
    if unknown := sorted(set(settings) - set(known)):
        raise ModelError(f"unknown setting {unknown[0]!r} of {family}; known: {', '.join(known)}")
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
    return replace(preset, **values)
