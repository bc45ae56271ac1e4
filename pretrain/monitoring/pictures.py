"""Pictures of a run: what is reconstructed, which expert takes which token, how experts are used.

Slices are axial, nose up, the patient's right on the left.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from gliomoe.data_shards.batch import StudyBatch
from gliomoe.data_shards.sequences import SEQUENCES
from gliomoe.models.features import Routing
from gliomoe.models.tissue import tissue_positions
from gliomoe.pretrain.monitoring.asking import asked
from gliomoe.pretrain.objectives.objective import Objective
from gliomoe.pretrain.samples.views import Views

_MASKED = (0.12, 0.2, 0.5)
_INCH = 2.2
"""Side of a slice."""
_COLUMNS = 6
_LEGEND = 18
"""Experts up to which each has an entry in the legend."""


def make_pictures(objective: Objective, views: Views, precision: str) -> dict[str, Tensor]:
    """Pictures by name of the first view: what is reconstructed, and experts if there are any.

    Args:
        objective: In training, which does not notice.
        views: Of a step.
        precision: Of the run's arithmetic.
    """
    one, encoder = first_study(views), objective.encoder
    with asked(objective, precision):
        filled = objective.picture(one)
        tissue = tissue_positions(one.complete, encoder.patch_size)
        routing = encoder(one.complete, tissue).routing
    pictures = {}
    if filled is not None:
        pictures["reconstruction"] = reconstruction_picture(one, filled, encoder.patch_size)
    if routing:
        pictures["experts/map"] = expert_picture(one.complete.voxels[0, 0], routing)
    return pictures


def first_study(views: Views) -> Views:
    """The first view alone."""

    def only(batch: StudyBatch) -> StudyBatch:
        chosen = batch.study == 0
        return replace(
            batch,
            voxels=batch.voxels[chosen],
            sequence=batch.sequence[chosen],
            study=batch.study[chosen],
            spacing=batch.spacing[:1],
            keys=batch.keys[:1],
        )

    mask = views.mask
    return Views(
        visible=only(views.visible),
        complete=only(views.complete),
        mask=replace(mask, keep=mask.keep[:1], predict=mask.predict[:1], masked=mask.masked[:1]),
        subject=views.subject[:1],
        turns=views.turns[:1],
    )


def reconstruction_picture(views: Views, filled: Tensor, patch_size: int) -> Tensor:
    """The middle slice of a view, a row a sequence: complete, seen by the encoder, filled in.

    Args:
        views: One study; of what the encoder saw, hidden sequences are empty, masked patches blue.
        filled: [V, 1, D, H, W], the complete volumes with the masked positions predicted.
        patch_size: Side of a patch, voxels.

    Returns:
        [3, H, W] float32 from 0 to 1.
    """
    masked = views.mask.masked[0].cpu()
    for axis in range(3):
        masked = masked.repeat_interleave(patch_size, axis)
    covered = _slice(masked)
    shown = dict(zip(views.visible.sequence.tolist(), views.visible.voxels[:, 0], strict=True))
    names = views.complete.sequence.tolist()
    figure, panels = _figure(len(names), 3)
    for row, sequence in enumerate(names):
        complete = views.complete.voxels[row, 0]
        seen = _grey(shown.get(sequence, torch.zeros_like(complete)))
        seen[covered] = _MASKED
        name = SEQUENCES[sequence] + ("" if sequence in shown else "\n(hidden)")
        panels[row, 0].set_ylabel(name, fontsize=9)
        images = {"complete": _grey(complete), "seen": seen, "filled in": _grey(filled[row, 0])}
        for panel, (title, image) in zip(panels[row], images.items(), strict=True):
            _fill(panel, image, title if row == 0 else "")
    return _drawn(figure)


def expert_picture(image: Tensor, routing: Sequence[Routing]) -> Tensor:
    """The first choice of each token of the middle slice, a column a mixture, beside the image.

    Args:
        image: [D, H, W], one of the study's volumes.
        routing: What the routers decided for this one study.

    Returns:
        [3, H, W] float32 from 0 to 1.
    """
    grey = _grey(image)
    experts = routing[0].probabilities.shape[1]
    colours = _palette(experts)
    images: dict[str, np.ndarray] = {"image": grey}
    for number, layer in enumerate(routing):
        chosen = expert_grid(layer, image.shape)
        tokens = _slice(chosen)
        painted = grey.copy()
        painted[tokens >= 0] = 0.4 * grey[tokens >= 0] + 0.6 * colours[tokens[tokens >= 0]]
        images[f"mixture {number} ({layer.layer})"] = painted
    columns = min(_COLUMNS, len(images))
    figure, panels = _figure(-(-len(images) // columns), columns, below=0.4)
    for panel, (title, picture) in zip(panels.flat, images.items(), strict=False):
        _fill(panel, picture, title)
    if experts <= _LEGEND:
        handles = [Patch(color=colours[e], label=str(e)) for e in range(experts)]
        figure.legend(handles=handles, loc="lower center", ncols=experts, frameon=False)
    return _drawn(figure)


def expert_grid(layer: Routing, shape: Sequence[int]) -> Tensor:
    """First choices of one study's tokens, voxel by voxel.

    Args:
        layer: What its router decided.
        shape: D, H, W.

    Returns:
        [D, H, W] int64, -1 where there is no token.
    """
    placed = (layer.position >= 0).all(1).cpu()
    grid = torch.full([-(-side // layer.patch_size) for side in shape], -1)
    grid[layer.position.cpu()[placed].unbind(1)] = layer.choice[:, 0].cpu()[placed]
    for axis in range(3):
        grid = grid.repeat_interleave(layer.patch_size, axis)
    return grid[: shape[0], : shape[1], : shape[2]]


def use_picture(lines: Sequence[Mapping[str, Any]]) -> Tensor:
    """How the experts were used over time: a panel a mixture, a row an expert, a column a time.

    Args:
        lines: Of the journal of experts.

    Returns:
        [3, H, W] float32 from 0 to 1. White is an even share, blue less, red more.
    """
    use = np.array([line["use"] for line in lines]).transpose(1, 2, 0)  # layers, E, times
    layers, experts, _ = use.shape
    figure = Figure(figsize=(7, 0.8 + layers * min(3.0, 0.5 + 0.1 * experts)), layout="constrained")
    panels = figure.subplots(layers, 1, sharex=True, squeeze=False)[:, 0]
    ends = (lines[0]["steps"], max(lines[-1]["steps"], lines[0]["steps"] + 1))
    for layer, panel in enumerate(panels):
        shown = panel.imshow(
            use[layer] * experts,
            aspect="auto",
            cmap="RdBu_r",
            vmin=0,
            vmax=2,
            interpolation="nearest",
            extent=(*ends, experts - 0.5, -0.5),
        )
        panel.set_ylabel(f"mixture {layer}\nexpert")
    panels[-1].set_xlabel("step")
    figure.colorbar(shown, ax=panels, label="share of the choices, 1 is even", extend="max")
    return _drawn(figure)


def _slice(volume: Tensor) -> np.ndarray:
    """The middle axial slice of [D, H, W] as rows and columns."""
    return volume[:, :, volume.shape[2] // 2].T.flip(0).flip(1).cpu().numpy()


def _grey(volume: Tensor) -> np.ndarray:
    """The middle slice as colours [H, D, 3] from 0 to 1."""
    return np.repeat(_slice(volume.float().clamp(0, 1))[..., None], 3, axis=2)


def _palette(experts: int) -> np.ndarray:
    """[E, 3], colours that tell experts apart, none of them grey."""
    if experts > _LEGEND:
        return colormaps["turbo"](np.linspace(0, 1, experts))[:, :3]
    name, grey = ("tab10", (7,)) if experts < 10 else ("tab20", (14, 15))
    base = colormaps[name]
    assert isinstance(base, ListedColormap)
    return np.delete(np.array(base.colors), grey, axis=0)[:experts]


def _figure(rows: int, columns: int, below: float = 0.0) -> tuple[Figure, np.ndarray]:
    """A figure for slices, and its empty panels [rows, columns]."""
    size = (columns * _INCH + 0.4, rows * (_INCH + 0.2) + below + 0.1)
    figure = Figure(figsize=size)
    panels = figure.subplots(rows, columns, squeeze=False)
    for panel in panels.flat:
        panel.set_xticks([])
        panel.set_yticks([])
        panel.set_frame_on(False)
    figure.subplots_adjust(0.4 / size[0], below / size[1], 1, 1 - 0.3 / size[1], 0.02, 0.1)
    return figure, panels


def _fill(panel: Any, image: np.ndarray, title: str) -> None:
    """Show a slice."""
    panel.imshow(image, interpolation="nearest")
    panel.set_title(title, fontsize=9, pad=3)


def _drawn(figure: Figure) -> Tensor:
    """A figure as [3, H, W] float32 from 0 to 1."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
