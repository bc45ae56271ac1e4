"""The `gliomoe` command: a table of commands, each in a module of its own that is imported late.

A command module defines `Options` (a frozen dataclass), `EXAMPLE` (a command line that works) and
`run(options) -> int` (the exit code). With `PRESETS` (an import name such as `gliomoe.pretrain`)
its first argument may name a preset of that package or a TOML file.

Exit codes: 0 done, 1 the work found a problem, 2 the call was wrong, 75 interrupted and resumable.
"""

import difflib
import importlib
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from gliomoe.data_shards.errors import UsageError, printable
from gliomoe.data_shards.files import FULL, disk_full
from gliomoe.launch.exit_codes import INTERRUPTED

COMMANDS = {
    "phantom": "simulate a cohort of brain MRI with gliomas, labels and markers",
    "shards build": "turn folders of MRI into a shard set",
    "shards merge": "join the parts of a build, or several shard sets, into one",
    "shards overlap": "name the studies that two shard sets share, or one holds twice",
    "shards verify": "check every shard and study of a shard set",
    "shards inspect": "show what a shard set or one of its studies holds",
    "pretrain": "pretrain an encoder on unlabelled shards",
    "pretrain status": "show how a pretraining run stands",
    "pretrain plan": "predict hours and memory of a pretraining on a number of GPUs",
    "export": "turn a pretraining run into a checkpoint folder to publish",
    "pull": "fetch a published checkpoint, checked by sha256",
    "finetune": "adapt a checkpoint, or train from scratch, on a few labelled cases",
    "prune": "drop the least used experts of a fine-tuned run",
    "evaluate": "measure a fine-tuned run on labelled cases, with error bars",
    "study subsets": "measure a run on every subset of the MRI sequences",
    "study shift": "measure runs on other cohorts, and on scans corrupted by degrees",
    "study experts": "compare the experts that tokens choose with the parts of the tumour",
    "study satellites": "count satellite lesions found by size, and lesions invented",
    "study calibration": "show how far probabilities of markers can be taken at their word",
    "study uncertainty": "show whether models know when they are wrong",
    "study smaller": "compare runs by Dice, size and time: ensembles, students, pruned experts",
    "predict": "segment a case and give its markers, in its own space",
    "report": "write a run, its figures and a prediction as one HTML file",
    "study shots": "what pretraining gains by the number of labelled cases, over seeds",
    "study backbones": "registered models side by side, with sizes and times",
    "study pretraining_size": "what is gained by the number of studies pretrained on",
    "study ablations": "what every part of the method is worth",
    "models": "list the models with their sizes, FLOPs and papers",
    "bench loader": "measure how fast crops are read, beside other libraries",
}
"""Command → one line for the help. `shards build` lives in `commands/shards_build.py`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Arguments after `gliomoe`; None takes the process's own.

    Returns:
        The exit code.
    """
    # Read when torch is loaded: threads that spin while they wait slow a busy machine many times.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    args = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in args
    args = [arg for arg in args if arg != "--debug"]
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.INFO, format="%(message)s", stream=sys.stderr
    )
    # They greet, report each file that they read, or tell of their fonts.
    for talkative in ("numexpr", "tensorboard", "matplotlib"):
        logging.getLogger(talkative).setLevel(logging.WARNING)
    name = ""
    try:
        if not args or args[0] in ("-h", "--help"):
            print(_overview())
            return 0 if args else UsageError.exit_code
        if args[0] == "--version":
            print(importlib.import_module("gliomoe").__version__)
            return 0
        name, rest = _command(args)
        return _run(name, rest)
    except KeyboardInterrupt:
        print(f"{_called(name)}: interrupted; the same command continues", file=sys.stderr)
        return INTERRUPTED
    except SystemExit as stop:  # help was printed
        return int(stop.code or 0)
    except BrokenPipeError:  # whoever read the output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if debug:
            traceback.print_exc()
        if not _said_beside(error):
            print(f"{_called(name)}: error: {_explain(error)}", file=sys.stderr)
        return getattr(error, "exit_code", 1)


def _run(name: str, rest: list[str]) -> int:
    """Parse the options of a command and run it."""
    # Imported here: the overview and a wrong name answer at once, without torch or the parser.
    from gliomoe.launch import options

    module = importlib.import_module(
        f"gliomoe.launch.commands.{name.replace(' ', '_').replace('-', '_')}"
    )
    presets = getattr(module, "PRESETS", None)
    table: dict[str, Any] = {}
    source = ""
    if presets and rest and not rest[0].startswith("-"):
        table, source = options.read_preset(rest.pop(0), presets)
    parsed = options.parse(
        module.Options, rest, f"gliomoe {name}", _description(name, module), table, source
    )
    code = int(module.run(parsed))
    sys.stdout.flush()  # here, where a closed pipe is still handled
    return code


def _command(args: list[str]) -> tuple[str, list[str]]:
    """Split the command's name, of one word or two, from its arguments."""
    for words in (2, 1):
        name = " ".join(args[:words])
        if name in COMMANDS:
            return name, args[words:]
    group = [name for name in COMMANDS if name.startswith(f"{args[0]} ")]
    if group:
        width = max(map(len, group))
        lines = "\n".join(f"  gliomoe {name:{width}s}  {COMMANDS[name]}" for name in group)
        if args[1:] in (["-h"], ["--help"]):
            print(lines)
            raise SystemExit(0)
        raise UsageError(f"{args[0]} needs one of: {', '.join(n.split()[1] for n in group)}")
    near = difflib.get_close_matches(args[0], COMMANDS, n=1)
    hint = f"perhaps {near[0]}" if near else "gliomoe --help lists the commands"
    raise UsageError(f"unknown command {args[0]!r}; {hint}")


def _overview() -> str:
    """The text of `gliomoe --help`."""
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:{width}s}  {text}" for name, text in COMMANDS.items())
    return (
        "usage: gliomoe COMMAND [OPTIONS]\n\n"
        f"{rows}\n\n"
        "gliomoe COMMAND --help shows the options and an example; --debug adds tracebacks."
    )


def _description(name: str, module: ModuleType) -> str:
    """The text above the options of a command."""
    text = COMMANDS[name]
    if presets := getattr(module, "PRESETS", None):
        from importlib.resources import files

        configs = (files(presets) / "configs").iterdir()
        names = sorted(c.name.removesuffix(".toml") for c in configs if c.name.endswith(".toml"))
        text += (
            "\n\nThe first argument may be a preset or a TOML file; flags win over it. "
            f"Presets: {', '.join(names)}."
        )
    return f"{text[0].upper()}{text[1:]}\n\nExample:\n  {module.EXAMPLE}"


def _called(name: str) -> str:
    """The command as it was called, as far as it was understood."""
    return f"gliomoe {name}".rstrip()


def _said_beside(error: Exception) -> bool:
    """Whether another process says it: all of a node refuse a wrong call alike.

    What ends only some of them is a `RankError`, no `ValueError`.
    """
    code = getattr(error, "exit_code", 1) if isinstance(error, ValueError) else 1
    return code == UsageError.exit_code and os.environ.get("LOCAL_RANK", "0") != "0"


def _explain(error: Exception) -> str:
    """One line for a person."""
    text = printable(" ".join(str(error).split()))
    if hasattr(error, "exit_code"):
        return text
    if isinstance(error, OSError) and error.errno in FULL:
        return f"{error.filename}: {disk_full(error)}" if error.filename else disk_full(error)
    if isinstance(error, OSError):
        return f"{error.strerror or text}: {error.filename}" if error.filename else text
    return f"{type(error).__name__}: {text}; this is a fault of GlioMoE, --debug shows where"
