"""The `gliomoe` command itself: names, help, exit codes."""

import importlib
import subprocess
import sys

import pytest

from gliomoe.launch.cli import COMMANDS, main


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command, capsys):
    assert main([*command.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    module = importlib.import_module(f"gliomoe.launch.commands.{command.replace(' ', '_')}")
    assert module.EXAMPLE in shown
    assert module.EXAMPLE.startswith(f"gliomoe {command}")


def test_overview_lists_every_command(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(command in shown for command in COMMANDS)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["pretrian"], "perhaps pretrain"),
        (["shards"], "shards needs one of: build, merge, overlap, verify, inspect"),
        (["shards", "bild"], "shards needs one of"),
        (["pretrain", "no_such_preset"], "neither a preset nor a TOML file; presets: "),
        (["pretrain", "--run.stepps", "3"], "Unrecognized options: --run.stepps 3"),
    ],
)
def test_wrong_calls_are_one_line(args, message, capsys):
    assert main(args) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.count("\n") == 1


def test_of_the_processes_of_a_node_one_tells_what_is_wrong(monkeypatch, capsys):
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert main(["pretrain", "no_such_preset"]) == 2
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert main(["pretrain", "no_such_preset"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_reader_that_has_seen_enough_is_no_error():
    command = f"{sys.executable} -m gliomoe models gliomoe_tiny --json | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == ""
