"""Pictures of the subjects of a phantom cohort: three planes of each sequence, labels outlined.

    python tests/benchmarks/phantom_pictures.py COHORT OUT [--subjects N] [--sheet NAME ...]

writes one PNG a subject into OUT, or with --sheet one of the axial planes of the named subjects.
Planes go through the middle of the tumour, of the head without one. Works for any folder of studies
whose series lie along the same axes.
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from gliomoe.data_shards.ingest import find_studies
from gliomoe.data_shards.preprocess import PreprocessConfig, preprocess
from gliomoe.data_shards.study import RawStudy, Study

CORE = (1, 3, 4)
COLOURS = {1: "tab:red", 2: "gold", 3: "deepskyblue", 4: "magenta"}
"""Canonical label → colour of its outline."""


def middle(study: Study) -> list[int]:
    """A voxel in the middle of the tumour's core, of the grid without a tumour."""
    if study.seg is not None and np.isin(study.seg, CORE).any():
        return [int(np.median(places)) for places in np.nonzero(np.isin(study.seg, CORE))]
    return [side // 2 for side in next(iter(study.volumes.values())).shape]


def show(panel: Axes, study: Study, name: str, axis: int, outlined: bool = True) -> None:
    """One plane of one sequence."""
    volume, place = study.volumes[name], middle(study)[axis]
    low, high = np.percentile(volume[volume != 0], (0.5, 99.5))
    plane = np.take(volume, place, axis).T
    panel.imshow(plane, cmap="gray", vmin=min(low, 0), vmax=high, origin="lower")
    if study.seg is not None and outlined:
        labels = np.take(study.seg, place, axis).T
        for value, colour in COLOURS.items():
            if (labels == value).any():
                panel.contour(labels == value, (0.5,), colors=colour, linewidths=0.7)
    panel.axis("off")


def draw(study: Study, path: Path, title: str) -> None:
    """One row for each plane, one column for each sequence."""
    names = list(study.volumes)
    figure, axes = plt.subplots(3, len(names), figsize=(3 * len(names), 9), squeeze=False)
    for column, name in enumerate(names):
        for row, axis in enumerate((2, 1, 0)):
            show(axes[row, column], study, name, axis)
        axes[0, column].set_title(name)
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(path, dpi=70)
    plt.close(figure)


def sheet(studies: dict[str, Study], path: Path) -> None:
    """The axial plane of every sequence of some subjects, once more with the labels."""
    names = list(next(iter(studies.values())).volumes)
    shape = (len(studies), len(names) + 1)
    figure, axes = plt.subplots(*shape, figsize=(2 * shape[1], 2.5 * shape[0]), squeeze=False)
    figure.patch.set_facecolor("black")
    for row, (title, study) in zip(axes, studies.items(), strict=True):
        for panel, name in zip(row, (*names, names[-1]), strict=True):
            show(panel, study, name, 2, outlined=panel is row[-1])
            panel.set_title(name, fontsize=8, color="white")
        row[0].text(0, 1.16, title, transform=row[0].transAxes, fontsize=8, color="white")
    figure.subplots_adjust(0.01, 0, 0.99, 0.95, 0.02, 0.25)
    figure.savefig(path, dpi=75)
    plt.close(figure)


def read(raw: RawStudy) -> Study:
    """A study on the grid of its finest series."""
    return preprocess(raw, PreprocessConfig(steps=("grid",), spacing=None))


def main() -> None:
    """Draw them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cohort", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--subjects", type=int, default=10)
    parser.add_argument("--sheet", nargs="+", default=[], metavar="NAME")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    chosen = {}
    for raw in find_studies(options.cohort):
        said = ", ".join(f"{key} {value}" for key, value in raw.labels.items())
        if raw.subject in options.sheet:
            chosen[f"{raw.subject}: {said}"] = read(raw)
        elif not options.sheet and options.subjects > 0:
            options.subjects -= 1
            draw(read(raw), options.out / f"{raw.subject}.png", f"{raw.subject} {said}")
    if chosen:
        sheet(chosen, options.out / "sheet.png")


if __name__ == "__main__":
    main()
