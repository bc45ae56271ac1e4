"""Presets, flags and the effective configuration go through one parser."""

from dataclasses import dataclass, field
from typing import Annotated

import pytest
import tyro

from gliomoe.data_shards.errors import UsageError
from gliomoe.launch.options import parse, to_table


@dataclass(frozen=True)
class Optim:
    lr: float = 1e-4
    """Learning rate."""
    betas: tuple[float, float] = (0.9, 0.999)

    def __post_init__(self):
        if self.lr <= 0:
            raise ValueError("optim.lr must be positive")


@dataclass(frozen=True)
class Options:
    from_: Annotated[str, tyro.conf.arg(name="from")] = "scratch"
    limit: int | None = None
    optim: Optim = field(default_factory=Optim)


def resolve(*args, **table):
    return parse(Options, args, "gliomoe test", table=table, source="some.toml")


def test_flags_win_over_the_file():
    options = resolve("--optim.lr", "2e-3", optim={"lr": 1e-3, "betas": [0.8, 0.9]})
    assert options == Options(optim=Optim(lr=2e-3, betas=(0.8, 0.9)))


def test_effective_configuration_reads_back():
    options = resolve("--from", "folder", "--limit", "3")
    assert resolve(**to_table(options)) == options
    assert to_table(Options()) == {"from": "scratch", "optim": {"lr": 1e-4, "betas": [0.9, 0.999]}}


@pytest.mark.parametrize(
    ("args", "table", "message"),
    [
        (["--optim.lrr", "3"], {}, "--optim.lr FLOAT"),
        (["--optim.lr", "fast"], {}, "could not convert string to float: 'fast'"),
        (["--optim.lr", "-1"], {}, "optim.lr must be positive"),
        ([], {"optim": {"lrr": 3}}, "some.toml: unknown key optim.lrr; perhaps optim.lr"),
        ([], {"optim": {"lr": "fast"}}, "could not convert string to float: 'fast'"),
        ([], {"limit": {"a": 1}}, "some.toml: limit is a value, not a section"),
    ],
)
def test_wrong_options_are_one_line(args, table, message):
    with pytest.raises(UsageError) as error:
        resolve(*args, **table)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@dataclass(frozen=True)
class Switches:
    json: bool = False
    hash: bool = True


@pytest.mark.parametrize(
    ("args", "wanted"),
    [
        ([], Switches(json=False, hash=True)),
        (["--json"], Switches(json=True)),
        (["--json", "True", "--hash=False"], Switches(json=True, hash=False)),
    ],
)
def test_switches_may_stand_bare(args, wanted):
    assert parse(Switches, args, "gliomoe test") == wanted


def test_switches_take_nothing_else():
    with pytest.raises(UsageError, match="expected True or False, not 'maybe'"):
        parse(Switches, ["--json", "maybe"], "gliomoe test")
