"""Pictures of the subjects of a phantom cohort: three planes of each sequence, labels outlined.

    python tests/benchmarks/phantom_pictures.py COHORT OUT [--subjects N]

writes one PNG a subject into OUT. Planes go through the middle of the tumour, of the head without
one. Works for any BIDS folder of axis-aligned scans.
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from gliomoe.data_shards.ingest import find_studies
from gliomoe.data_shards.preprocess import PreprocessConfig, preprocess
from gliomoe.data_shards.study import RawStudy, Study

COLOURS = {1: "tab:red", 2: "gold", 3: "deepskyblue", 4: "magenta"}
"""Canonical label → colour of its outline."""


def draw(study: Study, path: Path, title: str) -> None:
    """One row for each plane, one column for each sequence."""
    names = list(study.volumes)
    seg = study.seg
    shape = next(iter(study.volumes.values())).shape
    middle = np.array(shape) // 2
    if seg is not None and seg.any():
        middle = np.array(
            [int(np.median(places)) for places in np.nonzero(np.isin(seg, (1, 3, 4)))]
        )
    figure, axes = plt.subplots(3, len(names), figsize=(3 * len(names), 9), squeeze=False)
    for column, name in enumerate(names):
        volume = study.volumes[name]
        low, high = np.percentile(volume[volume != 0], (0.5, 99.5))
        for row, axis in enumerate((2, 1, 0)):
            plane = np.take(volume, middle[axis], axis).T
            panel = axes[row, column]
            panel.imshow(plane, cmap="gray", vmin=min(low, 0), vmax=high, origin="lower")
            if seg is not None:
                labels = np.take(seg, middle[axis], axis).T
                for value, colour in COLOURS.items():
                    if (labels == value).any():
                        panel.contour(labels == value, (0.5,), colors=colour, linewidths=0.7)
            panel.axis("off")
        axes[0, column].set_title(name)
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(path, dpi=70)
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
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for raw in find_studies(options.cohort)[: options.subjects]:
        said = ", ".join(f"{key} {value}" for key, value in raw.labels.items())
        draw(read(raw), options.out / f"{raw.subject}.png", f"{raw.subject} {said}")


if __name__ == "__main__":
    main()
