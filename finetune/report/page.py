"""The report's HTML: one file with styles, viewer and images inside, that asks for nothing else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined

from gliomoe.finetune.report.evaluations import Evaluation, cell, measure_names
from gliomoe.finetune.report.figures import comparison, curves
from gliomoe.finetune.report.scans import LABEL_COLOURS, Scan, embed

IMAGE_BYTES = 6_000_000
"""What embedded scans may take, so that a report stays below 10 MB with the viewer's 2.3 MB."""

LEGEND = {
    3: "ET: enhancing tumour",
    1: "TC: ET and this, the necrotic core",
    2: "WT: TC and this, oedema and infiltration",
}
"""Canonical label → what it means and how the regions ET, TC and WT follow from it."""


@dataclass(frozen=True)
class Page:
    """Everything that a report shows."""

    title: str
    lead: str
    """Plain-language summary."""
    chips: Mapping[str, str]
    """Short facts under the title."""
    curves: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]]
    """Panel → line → steps and values."""
    curves_caption: str
    config: str
    provenance: Mapping[str, str]
    notes: Sequence[str] = ()
    """Warnings under the summary, such as that the data are phantoms."""
    evaluations: Sequence[Evaluation] = ()
    caption: str = ""
    """Of the table of evaluations."""
    scans: Sequence[Scan] = ()
    scans_caption: str = ""


def render(page: Page) -> str:
    """The whole HTML file."""
    measures = measure_names(page.evaluations)
    charted = {one.name: one.measures for one in page.evaluations}
    cases = embed(page.scans, IMAGE_BYTES)
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}
    return environment.from_string(_asset("template.html")).render(
        title=page.title,
        lead=page.lead,
        chips=page.chips,
        notes=page.notes,
        table=_table(page.evaluations, measures),
        caption=page.caption,
        comparison=comparison(charted, measures) if measures else "",
        curves=curves(page.curves) if page.curves else "",  # a pruned run was not trained
        curves_caption=page.curves_caption,
        slices=[(case["title"], case.pop("slices")) for case in cases],
        cases=cases,
        scans_caption=page.scans_caption,
        regions=[{"colour": LABEL_COLOURS[label], "text": text} for label, text in LEGEND.items()],
        palette=LABEL_COLOURS,
        config=page.config,
        provenance=page.provenance,
        style=_asset("style.css"),
        viewer=_asset("viewer.js"),
        niivue=_asset("niivue.umd.js"),
        licences=_asset("niivue-licenses.txt"),
    )


def _table(evaluations: Sequence[Evaluation], measures: Sequence[str]) -> dict[str, Any] | None:
    """Rows of the comparison, None without evaluations."""
    if not evaluations:
        return None
    rows = [
        {
            "name": one.name,
            "cases": one.cases,
            "cells": [cell(one.measures.get(name)) for name in measures],
        }
        for one in evaluations
    ]
    return {"measures": measures, "rows": rows}


def _asset(name: str) -> str:
    return (files("gliomoe.finetune.report") / name).read_text("utf-8")
