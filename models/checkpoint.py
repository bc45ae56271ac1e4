"""Published checkpoints: a folder of weights, configuration, card and fingerprints.

    config.json                  format version, model, sequences, preprocessing, training, files
    model.safetensors            weights; nothing here is ever unpickled
    README.md                    model card
    pretraining_fingerprints.bin content fingerprints of the studies of pretraining

Notable: a folder appears whole or not at all, is never overwritten with other content, and is
checked (size, sha256, shapes, finite values) before a single weight reaches a model.
"""

import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gliomoe.models.errors import CheckpointError, ModelError
from gliomoe.models.model import Model
from gliomoe.models.registry import create_model
from gliomoe.models.stem import share_other

FORMAT_VERSION = 1
CONFIG = "config.json"
WEIGHTS = "model.safetensors"
CARD = "README.md"
FINGERPRINTS = "pretraining_fingerprints.bin"

_SECTIONS = {"model": dict, "sequences": list, "preprocessing": dict, "training": dict}
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadReport:
    """Names of tensors, of what happened to each when weights were loaded."""

    loaded: tuple[str, ...]
    """Of the model, taken from the checkpoint."""
    new: tuple[str, ...]
    """Of the model, left as they were initialised."""
    left_out: tuple[str, ...]
    """Of the checkpoint, without a place in the model."""

    def __str__(self) -> str:
        """One line: each part by its first two name levels and number of tensors."""
        parts = {"loaded": self.loaded, "new": self.new, "left out": self.left_out}
        return "; ".join(f"{title}: {_by_module(names)}" for title, names in parts.items())


def save_checkpoint(
    folder: Path,
    model: Model,
    *,
    training: Mapping[str, Any],
    preprocessing: Mapping[str, Any],
    sequences: Sequence[str],
    card: str,
    fingerprints: bytes = b"",
) -> None:
    """Write a checkpoint folder, whole or not at all.

    Args:
        folder: Where it shall be. A folder that holds the same content already is left alone.
        model: Its weights are written as they are.
        training: Summary of the training, JSON-able.
        preprocessing: Settings that input must be prepared with, JSON-able.
        sequences: Canonical names of all sequences that any training of the weights saw.
        card: Text of the model card.
        fingerprints: Content fingerprints of the studies of pretraining, joined.

    Raises:
        CheckpointError: If the folder holds something else.
    """
    with whole_folder(folder) as temporary:
        tensors = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
        save_file(tensors, temporary / WEIGHTS)
        (temporary / CARD).write_text(card, "utf-8")
        (temporary / FINGERPRINTS).write_bytes(fingerprints)
        config = {
            "format_version": FORMAT_VERSION,
            "model": model.config,
            "sequences": list(sequences),
            "preprocessing": dict(preprocessing),
            "training": dict(training),
            "files": {name: _describe(temporary / name) for name in (WEIGHTS, CARD, FINGERPRINTS)},
        }
        text = json.dumps(config, indent=2, allow_nan=False) + "\n"
        (temporary / CONFIG).write_text(text, "utf-8")


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A temporary neighbour of a checkpoint folder that takes its place when the block ends well.

    Raises:
        CheckpointError: If the folder holds something else than what was written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".tmp"))
    try:
        yield temporary
        temporary.chmod(0o755)
        if folder.is_dir() and _same_content(folder, temporary):
            return
        if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
            raise CheckpointError(f"{folder}: holds something else; choose another folder")
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration of a checkpoint folder, checked for form.

    Raises:
        CheckpointError: If there is none, or it is not one of this format version.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise CheckpointError(f"{folder}: not a checkpoint, it has no {CONFIG}")
    return parse_config(path.read_bytes(), str(path))


def parse_config(content: bytes, source: str) -> dict[str, Any]:
    """The configuration in the bytes of a `config.json`; errors name `source`."""
    try:
        config = json.loads(content)
    except ValueError as error:
        raise CheckpointError(f"{source}: not JSON ({error}); fetch the checkpoint again") from None
    version = config.get("format_version") if isinstance(config, dict) else None
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{source}: format version {version!r}, this GlioMoE reads {FORMAT_VERSION}; "
            "another version of GlioMoE may read it"
        )
    for section, kind in (*_SECTIONS.items(), ("files", dict)):
        if not isinstance(config.get(section), kind):
            raise CheckpointError(f"{source}: {section!r} is missing or no {kind.__name__}")
    for name, facts in config["files"].items():
        whole = isinstance(facts, dict) and isinstance(facts.get("size"), int)
        if not _PLAIN_NAME.fullmatch(name) or name == CONFIG or not whole or "sha256" not in facts:
            raise CheckpointError(f"{source}: entry {name!r} of 'files' is not valid")
    if WEIGHTS not in config["files"]:
        raise CheckpointError(f"{source}: 'files' does not list {WEIGHTS}")
    return config


def verify_files(folder: Path, config: Mapping[str, Any]) -> None:
    """Compare size and sha256 of every listed file; `CheckpointError` at the first difference."""
    for name, facts in config["files"].items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"{path}: missing; fetch the checkpoint again")
        found = _describe(path)
        for fact in ("size", "sha256"):
            if found[fact] != facts[fact]:
                raise CheckpointError(
                    f"{path}: damaged, its {fact} is {found[fact]} and not {facts[fact]}; "
                    "fetch the checkpoint again"
                )


def load_checkpoint(folder: Path) -> Model:
    """The model of a checkpoint folder, encoder and heads, on the CPU.

    Sequences that its training never saw get the weights of `other`.

    Raises:
        CheckpointError: If a file is damaged, or a tensor is missing, misshapen or not finite.
    """
    config, tensors = _read(folder)
    with torch.device("meta"):  # draws no random numbers, takes no time
        model = _rebuild(config, folder)
    report = _match(model, tensors, folder, config["model"]["name"])
    if report.left_out:
        raise CheckpointError(f"{folder}: has tensors without a place: {_some(report.left_out)}")
    model.load_state_dict(tensors, assign=True)
    share_other(model, config["sequences"])
    return model


def load_encoder(model: Model, folder: Path, allow_partial: bool = False) -> LoadReport:
    """Take over the encoder of a checkpoint, in place; heads stay new.

    Sequences that its training never saw get the weights of `other`.

    Args:
        model: Of the same architecture.
        folder: Checkpoint folder.
        allow_partial: Keep encoder tensors new that the checkpoint lacks or has in other shapes.

    Returns:
        What was loaded, which is logged as well.

    Raises:
        CheckpointError: If a file is damaged or, without `allow_partial`, an encoder tensor is
            missing or misshapen.
    """
    config, tensors = _read(folder)
    own = {n.removeprefix("encoder."): t for n, t in tensors.items() if n.startswith("encoder.")}
    fit = _match(model.encoder, own, folder, config["model"]["name"], allow_partial)
    model.encoder.load_state_dict({name: own[name] for name in fit.loaded}, strict=False)
    share_other(model.encoder, config["sequences"])
    loaded = tuple(f"encoder.{name}" for name in fit.loaded)
    report = LoadReport(
        loaded=loaded,
        new=tuple(name for name in model.state_dict() if name not in set(loaded)),
        left_out=tuple(name for name in tensors if name not in set(loaded)),
    )
    logger.info("%s: %s", folder, report)
    return report


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration and tensors of a folder whose files are whole and whose values are finite."""
    config = read_config(folder)
    verify_files(folder, config)
    try:
        tensors = load_file(folder / WEIGHTS)
    except SafetensorError as error:
        raise CheckpointError(f"{folder / WEIGHTS}: not safetensors ({error})") from error
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise CheckpointError(f"{folder / WEIGHTS}: tensor {name} has values not finite")
    return config, tensors


def _rebuild(config: Mapping[str, Any], folder: Path) -> Model:
    """A model as the configuration describes it."""
    settings = config["model"]
    try:
        return create_model(settings["name"], settings["tasks"], **settings["overrides"])
    except (ModelError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{folder / CONFIG}: describes a model that this GlioMoE cannot build ({error})"
        ) from error


def _match(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    folder: Path,
    stored: str,
    allow_partial: bool = False,
) -> LoadReport:
    """Which tensors fit a module by name and shape; `stored` names the checkpoint's model."""
    wanted = module.state_dict()
    missing = [name for name in wanted if name not in tensors]
    misfits = [n for n, t in wanted.items() if n in tensors and t.shape != tensors[n].shape]
    absent = {*missing, *misfits}
    if absent and not allow_partial:
        reasons = [f"tensors are missing: {_some(missing)}"] if missing else []
        if misfits:
            name = misfits[0]
            shapes = f"{list(tensors[name].shape)}, the model needs {list(wanted[name].shape)}"
            reasons.append(f"{len(misfits)} do not fit the model: {name} is {shapes}")
        raise CheckpointError(
            f"{folder}: {len(wanted) - len(absent)} of the model's {len(wanted)} tensors fit "
            f"{stored}; {'; '.join(reasons)}; build the model with the checkpoint's own settings"
        )
    loaded = tuple(name for name in wanted if name not in absent)
    left_out = tuple(name for name in tensors if name not in wanted or name in absent)
    return LoadReport(loaded, tuple(name for name in wanted if name in absent), left_out)


def _describe(path: Path) -> dict[str, Any]:
    """Size and sha256 of a file."""
    with path.open("rb") as file:
        return {
            "size": path.stat().st_size,
            "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
        }


def _same_content(a: Path, b: Path) -> bool:
    """Whether two folders hold the same files."""
    names = {path.name for path in a.iterdir()}
    return names == {path.name for path in b.iterdir()} and all(
        (a / name).is_file() and _describe(a / name) == _describe(b / name) for name in names
    )


def _by_module(names: Sequence[str]) -> str:
    """`encoder.blocks (42), encoder.stem (8)`, or `none`."""
    groups: dict[str, int] = {}
    for name in names:
        group = ".".join(name.split(".")[:2])
        groups[group] = groups.get(group, 0) + 1
    return ", ".join(f"{group} ({number})" for group, number in groups.items()) or "none"


def _some(names: Sequence[str]) -> str:
    """The first names of many."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
