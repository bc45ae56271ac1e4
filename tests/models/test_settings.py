"""Settings changed by name, and as the command line writes them."""

from dataclasses import dataclass

import pytest

from gliomoe.models.errors import ModelError
from gliomoe.models.settings import changed, parse_settings


@dataclass(frozen=True)
class Config:
    experts: int = 8
    dlka: bool = True
    rate: float = 0.2
    levels: tuple[int, ...] = (8, 16)
    fusion: str = "scalar"
    limit: int | None = None


def test_settings_are_changed_in_the_preset_s_types():
    settings = {"experts": 4, "rate": 1, "levels": [4, 8], "limit": 3}
    assert changed("net", Config(), settings) == Config(4, True, 1.0, (4, 8), "scalar", 3)
    assert isinstance(changed("net", Config(), {"rate": 1}).rate, float)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"expert": 4}, "unknown setting 'expert' of net; known: experts, dlka"),
        ({"experts": "many"}, "setting experts of net: 'many' is a str, it takes a int as 8"),
        ({"experts": True}, "True is a bool"),
        ({"dlka": 0}, "0 is a int, it takes a bool"),
        ({"levels": 3}, "it takes a tuple"),
    ],
)
def test_what_does_not_fit_is_named(settings, message):
    with pytest.raises(ModelError, match=message):
        changed("net", Config(), settings)


def test_settings_of_a_command_line():
    texts = ["experts=16", "dlka=false", "msda=False", "rate=0.5", "levels=[8,16]", "fusion=mean"]
    assert parse_settings(texts) == {
        "experts": 16,
        "dlka": False,
        "msda": False,
        "rate": 0.5,
        "levels": [8, 16],
        "fusion": "mean",
    }
    with pytest.raises(ModelError, match="'experts': write it as name=value"):
        parse_settings(["experts"])
