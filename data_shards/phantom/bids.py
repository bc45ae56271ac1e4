"""A phantom cohort as a BIDS data set: names, metadata, tables and the hidden truth.

participants.tsv                                age, sex, protocol, markers, grade, type
phenotype/genes.tsv                             mutations, copy numbers, expression
sub-001/anat/, sub-001/dwi/                     images with their times
derivatives/segmentations/sub-001/anat/         labels of the tumour
derivatives/truth/traits.tsv, ceiling.json      what the images were made from, what it tells
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gliomoe.data_shards.files import atomic_write, write_json
from gliomoe.data_shards.nifti import write_nifti
from gliomoe.data_shards.phantom.config import CohortConfig
from gliomoe.data_shards.phantom.patients.ceiling import ceiling, ceiling_of, trait_row
from gliomoe.data_shards.phantom.patients.gene_table import CODELETED, GENES
from gliomoe.data_shards.phantom.patients.genes import GENE_DESCRIPTIONS, draw_genes
from gliomoe.data_shards.phantom.patients.looks import TRAIT_DESCRIPTIONS
from gliomoe.data_shards.phantom.scanner.protocols import Acquisition
from gliomoe.data_shards.phantom.subject import GENERATOR_VERSION, Images, Subject, generator

NOTICE = "Simulated: a test bed for software, never clinical evidence."

GENERATED_BY = [{"Name": "gliomoe phantom", "Version": str(GENERATOR_VERSION)}]

_VERSION = "1.9.0"

_FILES = {
    "t1": "anat/{}_T1w",
    "t1ce": "anat/{}_ce-gadolinium_T1w",
    "t2": "anat/{}_T2w",
    "flair": "anat/{}_FLAIR",
    "pd": "anat/{}_PDw",
    "dwi": "dwi/{}_trace",
    "adc": "dwi/{}_ADC",
}

_SEGMENTATIONS = Path("derivatives", "segmentations")
_TRUTH = Path("derivatives", "truth")

_REGIONS = {
    "brats2021": {1: "NCR necrotic or non-enhancing core", 2: "ED oedema", 4: "ET enhancing"},
    "brats2023": {
        1: "NCR necrotic or non-enhancing core",
        2: "ED oedema",
        3: "ET enhancing",
        4: "RC resection cavity",
    },
}

_PARTICIPANTS = {
    "age": {"Description": "Age at the scan", "Units": "years"},
    "sex": {"Levels": {"M": "male", "F": "female"}},
    "protocol": {"Description": "Kind of centre that scanned: A, B or C"},
    "grade": {"Description": "WHO 2021 grade of the glioma"},
    "idh": {"Levels": {"mutant": "IDH1 or IDH2 mutated", "wildtype": "neither"}},
    "1p19q": {"Levels": {"codeleted": "1p and 19q deleted", "intact": "not both"}},
    "tert": {"Levels": {"mutant": "TERT promoter mutated", "wildtype": "not"}},
    "who_type": {"Description": "WHO 2021 type of the glioma"},
}


def description(config: CohortConfig) -> dict[str, Any]:
    """`dataset_description.json` of a cohort; JSON values only."""
    return {
        "Name": "GlioMoE phantom cohort",
        "BIDSVersion": _VERSION,
        "DatasetType": "raw",
        "GeneratedBy": GENERATED_BY,
        "Notice": NOTICE,
        "Settings": json.loads(json.dumps(dataclasses.asdict(config))),
    }


def subject_name(config: CohortConfig, number: int) -> str:
    """`sub-007`; as many digits as the largest number needs, at least three."""
    return f"sub-{number:0{max(3, len(str(config.subjects)))}d}"


def segmentation_folder(out: Path, name: str) -> Path:
    """Where the labels of a subject lie."""
    return out / _SEGMENTATIONS / name


def write_images(folder: Path, name: str, subject: Subject, images: Images) -> None:
    """Images and their metadata into the folder of a subject."""
    for sequence, image in images.series.items():
        stem = folder / _FILES[sequence].format(name)
        write_nifti(stem.with_suffix(".nii.gz"), image.voxels, image.affine)
        write_json(stem.with_suffix(".json"), _sidecar(subject.session[sequence]))


def write_labels(folder: Path, name: str, config: CohortConfig, images: Images) -> None:
    """The segmentation into a folder of a subject; its name says which labels these are."""
    file = folder / "anat" / f"{name}_desc-{config.convention}_dseg.nii.gz"
    write_nifti(file, images.seg.voxels, images.seg.affine)


def write_tables(out: Path, config: CohortConfig, subjects: Sequence[Subject]) -> None:
    """Every table of a cohort; the participants' last, whose presence says that all is there."""
    names = [subject_name(config, subject.number) for subject in subjects]
    if not config.unlabelled:
        _write_genes(out, config, names, subjects)
        _write_truth(out, names, subjects)
        _describe_derivative(out / _SEGMENTATIONS, "True segmentations of a GlioMoE phantom cohort")
        rows = [(index, *text.split(" ", 1)) for index, text in _REGIONS[config.convention].items()]
        _write_table(out / _SEGMENTATIONS / "dseg.tsv", ("index", "abbreviation", "name"), rows)
    header = ("participant_id", *_PARTICIPANTS)
    rows = [
        (name, subject.age, subject.sex, subject.protocol, *subject.labels.values())
        for name, subject in zip(names, subjects, strict=True)
    ]
    write_json(out / "participants.json", _PARTICIPANTS)
    _write_table(out / "participants.tsv", header, rows)


def _write_genes(
    out: Path, config: CohortConfig, names: Sequence[str], subjects: Sequence[Subject]
) -> None:
    """The gene table of all gliomas."""
    rows = []
    for name, subject in zip(names, subjects, strict=True):
        if subject.glioma is not None:
            genes = draw_genes(subject.glioma, generator(config, subject.number, "genes"))
            hidden = _telling(subject.labels)
            rows.append((name, *(None if key in hidden else genes[key] for key in genes)))
    write_json(out / "phenotype" / "genes.json", GENE_DESCRIPTIONS)
    _write_table(out / "phenotype" / "genes.tsv", ("participant_id", *GENE_DESCRIPTIONS), rows)


def _telling(labels: Mapping[str, str]) -> set[str]:
    """Columns of the gene table that would give withheld markers away."""
    columns = set()
    if labels["idh"] == "n/a":
        columns |= {"IDH1_mutation", "IDH2_mutation"}
    if labels["tert"] == "n/a":
        columns.add("TERT_mutation")
    if labels["1p19q"] == "n/a":
        columns |= {f"{name}_copy_number" for name, gene in GENES.items() if gene.arm in CODELETED}
    return columns


def _write_truth(out: Path, names: Sequence[str], subjects: Sequence[Subject]) -> None:
    """What the images were made from, and how well markers could be told from it at best."""
    gliomas = [subject.glioma for subject in subjects if subject.glioma is not None]
    rows = [
        (name, *trait_row(glioma).values()) for name, glioma in zip(names, gliomas, strict=True)
    ]
    _describe_derivative(out / _TRUTH, "Truth behind a GlioMoE phantom cohort")
    _write_table(out / _TRUTH / "traits.tsv", ("participant_id", *TRAIT_DESCRIPTIONS), rows)
    write_json(out / _TRUTH / "traits.json", TRAIT_DESCRIPTIONS)
    write_json(
        out / _TRUTH / "ceiling.json",
        {"Notice": NOTICE, **ceiling(), "this_cohort": ceiling_of(gliomas)},
    )


def _write_table(path: Path, header: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """Tab-separated; None is `n/a`, as BIDS wants."""
    with atomic_write(path, "w") as file:
        for line in (header, *rows):
            file.write("\t".join("n/a" if cell is None else str(cell) for cell in line) + "\n")


def _sidecar(acquisition: Acquisition) -> dict[str, float | str]:
    """BIDS metadata of a series, times in seconds."""
    seconds = {
        "RepetitionTime": acquisition.tr,
        "EchoTime": acquisition.te,
        "InversionTime": acquisition.ti,
    }
    return {
        "MagneticFieldStrength": acquisition.field,
        **{key: round(ms / 1000, 6) for key, ms in seconds.items() if ms is not None},
        "SliceThickness": round(acquisition.thickness, 3),
        "Notice": NOTICE,
    }


def _describe_derivative(folder: Path, name: str) -> None:
    """The description that BIDS wants of derived data."""
    content = {
        "Name": name,
        "BIDSVersion": _VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": GENERATED_BY,
    }
    write_json(folder / "dataset_description.json", content)
