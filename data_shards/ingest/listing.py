"""What a survey found, for people and for machines."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gliomoe.data_shards.errors import printable
from gliomoe.data_shards.ingest.layouts import Survey
from gliomoe.data_shards.study import LeftOut, RawStudy, source_files


def to_json(sources: Sequence[Path], surveys: Sequence[Survey]) -> list[dict[str, Any]]:
    """Each source with its studies and what is left out, plain values, paths as they are."""
    return [
        {
            "source": str(source),
            "studies": [_study(study) for study in survey.studies],
            "left_out": _left_out(survey.left_out),
        }
        for source, survey in zip(sources, surveys, strict=True)
    ]


def to_text(listed: Iterable[Mapping[str, Any]]) -> str:
    """The lines of a listing; control characters in names are escaped."""
    lines = []
    for entry in listed:
        lines.append(str(entry["source"]))
        for study in entry["studies"]:
            lines += _study_lines(study)
        lines += [f"  left out  {_reasoned(one)}" for one in entry["left_out"]]
    return "\n".join(map(printable, lines))


def _study(study: RawStudy) -> dict[str, Any]:
    """A study as plain values."""
    return {
        "subject": study.subject,
        "session": study.session,
        "layout": study.layout,
        "series": {
            name: [str(path) for path in source_files(source)]
            for name, source in study.series.items()
        },
        "seg": None if study.seg is None else str(study.seg),
        "seg_labels": None if study.seg is None else study.seg_labels,
        "labels": dict(study.labels),
        "left_out": _left_out(study.left_out),
    }


def _left_out(left_out: Sequence[LeftOut]) -> list[dict[str, str]]:
    """What is not used, as plain values."""
    return [{"name": one.name, "reason": one.reason} for one in left_out]


def _study_lines(study: Mapping[str, Any]) -> list[str]:
    """The lines of one study."""
    session = f", session {study['session']}" if study["session"] else ""
    lines = [f"  {study['subject']}{session} ({study['layout']})"]
    for name, files in study["series"].items():
        more = f" and {len(files) - 1} more" if len(files) > 1 else ""
        lines.append(f"    {name:8s}  {files[0]}{more}")
    if not study["series"]:
        lines.append("    no series: this study cannot be used")
    if study["seg"]:
        lines.append(f"    seg       {study['seg']} ({study['seg_labels']})")
    if study["labels"]:
        labels = ", ".join(f"{marker} {value}" for marker, value in study["labels"].items())
        lines.append(f"    labels    {labels}")
    return lines + [f"    left out  {_reasoned(one)}" for one in study["left_out"]]


def _reasoned(one: Mapping[str, str]) -> str:
    """One thing that is left out, and why."""
    return f"{one['name']}: {one['reason']}"
