"""Pretraining as a part of a study: as `launch/pretrain.sh` starts it, then exported.

OUT/pretraining/<name>/config.toml   its configuration
OUT/pretraining/<name>/shards/       the studies that it reads, if not all
OUT/pretraining/<name>/run/          the run of `gliomoe pretrain`
OUT/pretraining/<name>/checkpoint/   what is fine-tuned; there once it is done
OUT/logs/pretraining_<name>.txt      what it had to say
"""

import logging
import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import tomli_w
import torch
from tqdm import tqdm

from gliomoe.data_shards.errors import DataError, UsageError
from gliomoe.data_shards.files import atomic_write
from gliomoe.data_shards.preprocess import PreprocessConfig
from gliomoe.data_shards.reading.indexed import ShardSet
from gliomoe.finetune.config import SCRATCH
from gliomoe.launch.exit_codes import INTERRUPTED
from gliomoe.launch.options import parse, to_table
from gliomoe.launch.studies.arms import Arm
from gliomoe.launch.studies.config import PretrainStudyConfig, Table, merged, recipe
from gliomoe.launch.studies.subset import write_subset
from gliomoe.models.checkpoint import CONFIG
from gliomoe.models.errors import ModelError
from gliomoe.pretrain.build import build
from gliomoe.pretrain.config import PretrainConfig
from gliomoe.pretrain.export import export
from gliomoe.pretrain.faults.signals import end_with_parent

log = logging.getLogger(__name__)

_SUBSET_SEED = 0


@dataclass(frozen=True)
class Pretraining:
    """One pretraining of a study."""

    name: str
    config: PretrainConfig
    out: Path
    """Folder of the study."""
    unlabelled: tuple[str, ...]
    """Shard sets that the study pretrains on."""
    studies: int | None = None
    """How many of their studies, drawn at random, it is for; None: all."""

    @property
    def checkpoint(self) -> Path:
        """The folder that it exports to."""
        return self.folder / "checkpoint"

    @property
    def folder(self) -> Path:
        """Where all of it is."""
        return self.out / "pretraining" / self.name

    @property
    def is_done(self) -> bool:
        """Whether it is exported.

        Raises:
            UsageError: If what is there, done or begun, has another configuration.
        """
        written = self.folder / "config.toml"
        if written.is_file() and tomllib.loads(written.read_text("utf-8")) != self._table:
            raise UsageError(
                f"{self.folder}: holds a pretraining with other settings; choose another folder "
                "for the study or repeat its options"
            )
        return (self.checkpoint / CONFIG).is_file()

    @property
    def _table(self) -> Table:
        return tomllib.loads(tomli_w.dumps(to_table(self.config)))

    def run(self) -> None:
        """Pretrain, or go on with it, and export.

        Raises:
            DataError: If it fails.
            KeyboardInterrupt: If it was interrupted; its checkpoint is written.
        """
        if self.is_done:
            return
        begun = time.monotonic()
        said = self.out / "logs" / f"pretraining_{self.name}.txt"
        said.parent.mkdir(parents=True, exist_ok=True)
        config = self.folder / "config.toml"
        with atomic_write(config, "w") as file:
            file.write(tomli_w.dumps(self._table))
        if self.studies is not None:
            subset = Path(self.config.data.train[0])
            write_subset(ShardSet.open(*self.unlabelled), self.studies, _SUBSET_SEED, subset)
        log.info("pretraining %s: %d steps, see %s", self.name, self.config.run.steps, said)
        if code := _start(config, said):
            last = said.read_text("utf-8").strip().rpartition("\n")[2]
            raise DataError(f"pretraining {self.name} ended with exit code {code}: {last}")
        export(self.config.run.out, self.checkpoint)
        took = tqdm.format_interval(time.monotonic() - begun)
        log.info("pretraining %s: done in %s", self.name, took)

    def arm(self, settings: Table, name: str = "") -> Arm:
        """An arm that fine-tunes it, by default of its name."""
        return Arm(name or self.name, str(self.checkpoint), settings)


def read_pretrainings(
    config: PretrainStudyConfig, changes: Mapping[str, Table]
) -> dict[str, Pretraining]:
    """Name → pretraining, all of them checked.

    Args:
        config: The study's options.
        changes: Name → what is changed of the study's pretraining.

    Raises:
        UsageError: If a setting is unknown, does not fit, or the network cannot be built.
    """
    if not config.unlabelled:
        raise UsageError("--unlabelled: give a shard set to pretrain on")
    table = recipe(config.pretrain, "gliomoe.pretrain", "pretrain")
    found = {}
    for name, own in changes.items():
        run = {"out": str(config.out / "pretraining" / name / "run")}
        given = {"data": {"train": list(config.unlabelled)}, "run": run}
        values = merged(merged(table, given), own)
        one = parse(PretrainConfig, (), "gliomoe pretrain", table=values, source=name)
        try:
            with torch.device("meta"):
                build(one)
        except (UsageError, ModelError) as error:
            raise UsageError(f"pretraining {name}: {error}") from error
        found[name] = Pretraining(name, one, config.out, config.unlabelled)
    return found


def scratch_arm(pretraining: Pretraining) -> Arm:
    """The network and the input of a pretraining, from scratch."""
    shards = ShardSet.open(*pretraining.unlabelled)
    spacing = PreprocessConfig.from_json(shards.info["preprocess"]).spacing
    model = pretraining.config.model
    settings = list(model.set)
    settings += [] if model.experts is None else [f"experts={model.experts}"]
    own = {"spacing": spacing, "patch_size": str(model.patch_size), "set": settings}
    return Arm(SCRATCH, SCRATCH, {"model": model.name, "arch": own})


def planned_pretraining(pretrainings: Sequence[Pretraining]) -> str:
    """The pretrainings of a study and which are done, for `--dry-run`."""
    done = [one.name for one in pretrainings if one.is_done]
    left = [one.name for one in pretrainings if one.name not in done]
    parts = [f"{len(pretrainings)} pretrainings, {len(done)} done"]
    return "\n".join([*parts, *([f"  to do: {', '.join(left)}"] if left else [])])


def _start(config: Path, said: Path) -> int:
    """Run `gliomoe pretrain`; its exit code."""
    command = [sys.executable, "-m", "gliomoe.launch.start", str(config)]
    with said.open("ab") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=partial(end_with_parent, os.getpid(), signal.SIGTERM),
        )
    try:
        code = process.wait()
    except KeyboardInterrupt:
        process.terminate()
        process.wait()  # it writes its checkpoint
        raise
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    return code
