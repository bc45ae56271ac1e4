"""The cells of a grid, without training any."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gliomoe.finetune.run import SUMMARY
from gliomoe.launch.commands.finetune import Options
from gliomoe.launch.studies import grid as grids
from gliomoe.launch.studies.grid import Cohort, Grid, Job


@pytest.fixture
def grid(tmp_path: Path) -> Grid:
    """Two arms, two numbers of shots and two seeds, two at a time."""
    options = Options(data=Path("cases"), out=tmp_path, folds=2)
    test = Cohort("A", Path("test"), None, None)
    arms = {"pretrained": options, "scratch": options}
    return Grid(tmp_path, arms, (5, 10), 2, (test,), parallel=2)


@pytest.fixture
def jobs(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """The jobs that a grid gives out; none is done."""
    given: list[Job] = []
    monkeypatch.setattr(
        grids, "ordered_map", lambda _, all_jobs, workers: given.extend(all_jobs) or ()
    )
    grid.run()
    return given


def test_arms_of_a_draw_come_one_after_the_other(grid: Grid, jobs: list[Job]):
    names = [job.cell.name for job in jobs]
    assert names == [cell.name for cell in grid.cells]
    assert names[:3] == ["pretrained_5_0", "scratch_5_0", "pretrained_10_0"]
    assert [job.options.seed for job in jobs] == [0, 0, 0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("gpus", "chosen"), [(0, []), (1, [0] * 8), (2, [0, 1] * 4), (4, [0, 1] * 4)]
)
def test_gpus_are_dealt_out_to_cells_that_run_side_by_side(jobs, monkeypatch, gpus, chosen):
    taken: list[int] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    threads = torch.get_num_threads()
    for job in jobs:
        (job.options.out).mkdir(parents=True)
        (job.options.out / SUMMARY).touch()  # trained
        (job.options.out / grids.RECORD).touch()
        grids.work(replace(job, evaluations=(), threads=threads))
    assert taken == chosen
