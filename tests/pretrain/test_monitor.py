"""What one sees of a run: curves, pictures, journals, lines without a terminal."""

import os
import pty
import re
import sys
import termios
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gliomoe.data_shards.errors import UsageError
from gliomoe.models.features import Routing
from gliomoe.pretrain.build import build
from gliomoe.pretrain.config import PretrainConfig
from gliomoe.pretrain.monitoring import charts, sinks
from gliomoe.pretrain.monitoring.asking import asked
from gliomoe.pretrain.monitoring.journal import Journal, cut, read_lines
from gliomoe.pretrain.monitoring.monitor import Monitor, StepReport
from gliomoe.pretrain.monitoring.pictures import expert_grid, expert_picture, use_picture
from gliomoe.pretrain.monitoring.stopwatch import Stopwatch
from gliomoe.pretrain.sections import MonitorConfig
from gliomoe.pretrain.train import pretrain

CPU = torch.device("cpu")


def report(step, norm=1.0, **more):
    values = {"losses": {"loss": 2.0}, "lr": 1e-3, "studies": 4, "seconds": 0.5, "waited": 0.1}
    return StepReport(step=step, norm=norm, **{**values, **more})


def board(run):
    found = EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0, "scalars": 0})
    found.Reload()
    return found


def test_a_run_shows_curves_and_pictures(config, caplog):
    caplog.set_level("INFO")
    assert pretrain(config)
    found = board(config.run.out)
    scalars = set(found.Tags()["scalars"])
    assert {
        "train/loss", "train/reconstruction", "train/contrast_accuracy", "optim/learning_rate",
        "optim/gradient_norm", "optim/skipped_steps", "data/damaged_studies", "data/wait_percent",
        "memory/rss_gb", "speed/studies_per_s", "speed/seconds/forward", "speed/seconds/backward",
        "speed/seconds/optimizer", "speed/seconds/views", "experts/entropy/layer_0",
        "sequences/stem/flair",
    } <= scalars  # fmt: skip
    assert set(found.Tags()["images"]) == {"reconstruction", "experts/map", "experts/use"}
    assert [event.step for event in found.Scalars("train/loss")] == [5, 10]
    patterns = [
        pattern for page in charts.LAYOUT.values() for _, them in page.values() for pattern in them
    ]
    shown = [p for p in patterns if any(re.match(p, name) for name in scalars)]
    assert len(shown) == len([p for p in patterns if not p.startswith("probe/")])

    trace, timing = (read_lines(config.run.out / f) for f in ("metrics.jsonl", "timing.jsonl"))
    losses = np.mean([line["loss"] for line in trace[5:]])
    assert found.Scalars("train/loss")[-1].value == pytest.approx(losses, rel=1e-6)
    assert [(line["steps"], line["of"], line["studies"]) for line in timing] == [
        (5, 5, 20),
        (10, 5, 20),
    ]
    parts = timing[-1]["seconds"]
    known = sum(parts[name] for name in ("data_wait", "views", "forward", "backward", "optimizer"))
    assert 0 < known <= parts["step"] <= timing[-1]["wall"]
    use = read_lines(config.run.out / "experts.jsonl")[-1]["use"]
    assert all(sum(layer) == pytest.approx(1, abs=1e-3) for layer in use)
    (start,) = read_lines(config.run.out / "starts.jsonl")
    assert (start["steps"], start["world"], start["device"]) == (0, 1, "cpu")
    said = [line for line in caplog.messages if line.startswith("step 5/10")]
    assert re.search(r"studies/s  data wait \d+ %  0:\d\d:\d\d left", said[0])


def test_pictures_do_not_change_the_training(config):
    """The same lines with a picture after every step and with none."""
    runs = []
    for every in (0, 1):
        out = config.run.out.with_name(f"run-{every}")
        run = replace(config.run, out=out, steps=3)
        monitor = replace(config.monitor, pictures_every=every)
        assert pretrain(replace(config, run=run, monitor=monitor))
        runs.append((out / "metrics.jsonl").read_text())
    assert runs[0] == runs[1]


def test_asking_puts_every_mode_back(config):
    module = build(config)[1].encoder
    module.blocks[0].eval()
    before = [part.training for part in module.modules()]
    with asked(module, "fp32") as device:
        assert device == CPU
        assert not any(part.training for part in module.modules())
        assert not torch.is_grad_enabled()
    assert [part.training for part in module.modules()] == before


def test_skipped_steps_are_counted_and_left_out_of_the_means(config):
    with Monitor(config, 0, CPU, 1, True) as monitor:
        for step in range(5):
            bad = step == 2
            monitor.show(
                report(step, None if bad else 1.0, losses={"loss": float("nan") if bad else 3.0})
            )
    found = board(config.run.out)
    assert found.Scalars("train/loss")[-1].value == 3.0
    assert found.Scalars("optim/skipped_steps")[-1].value == 1


def test_a_continued_run_drops_what_will_come_again(config):
    with Monitor(config, 0, CPU, 1, True) as monitor:
        for step in range(10):
            monitor.show(report(step, left_out=("x",), expert_use=[[0.5, 0.5]]))
        for step in (0, 5, 8):
            monitor.show_probe({"tumour_dice": 0.5}, step)
    with Monitor(config, 7, CPU, 2, True) as monitor:
        monitor.show(report(7))
    run = config.run.out
    assert [line["step"] for line in read_lines(run / "metrics.jsonl")] == list(range(8))
    assert [line["steps"] for line in read_lines(run / "experts.jsonl")] == [5]
    assert [line["steps"] for line in read_lines(run / "probe.jsonl")] == [0, 5]
    assert [line["steps"] for line in read_lines(run / "timing.jsonl")] == [5, 10]  # work was done
    assert [line["steps"] for line in read_lines(run / "starts.jsonl")] == [0, 7]
    assert monitor._damaged == 7


def test_a_last_line_that_is_not_whole_is_passed_over(tmp_path):
    path = tmp_path / "lines.jsonl"
    journal = Journal(path)
    for step in range(10):
        journal.write({"step": step})
    journal.close()
    with path.open("a") as file:
        file.write('{"step": 1')
    assert [line["step"] for line in read_lines(path)] == list(range(10))
    assert [line["step"] for line in read_lines(path, 5)] == [0, 2, 4, 6, 8]
    cut(path, lambda line: line["step"] < 3)
    assert path.read_text().count("\n") == 3
    assert read_lines(tmp_path / "none") == []


def test_a_terminal_gets_a_bar(config, monkeypatch):
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, 120))
    with open(slave, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with Monitor(config, 0, CPU, 1, True) as monitor:
            for step in range(10):
                monitor.show(report(step))
    os.set_blocking(master, False)
    said = ""
    with suppress(OSError):  # all is read, and nobody writes any more
        while chunk := os.read(master, 4096):
            said += chunk.decode()
    assert "pretrain 10/10 |" in said
    assert "8 studies/s  data wait 20 %" in said


def routing(experts=3):
    position = torch.tensor([[-1, -1, -1], [0, 0, 0], [1, 0, 1]])
    choice = torch.tensor([[2, 0], [1, 2], [0, 1]])
    chances = torch.full((3, experts), 1 / experts)
    return Routing("blocks.1", chances, choice, chances, torch.zeros(3).long(), position, 4)


def test_an_expert_map_paints_first_choices_where_the_tokens_are():
    grid = expert_grid(routing(), (8, 6, 8))
    wanted = np.full((8, 6, 8), -1)
    wanted[:4, :4, :4], wanted[4:, :4, 4:] = 1, 0
    np.testing.assert_array_equal(grid, wanted)


@pytest.mark.parametrize("experts", [3, 16, 64])
def test_pictures_of_experts_of_any_number(experts):
    picture = expert_picture(torch.rand(8, 6, 8), [routing(experts)] * 8)
    use = torch.rand(4, experts).softmax(1).tolist()
    over_time = use_picture([{"steps": step, "use": use} for step in (5, 10)])
    for image in (picture, over_time):
        assert image.shape[0] == 3 and image.dtype == torch.float32
        assert 0 <= float(image.min()) < float(image.max()) <= 1
    assert len(np.unique(charts.expert_scalars(use)["experts/min/layer_0"])) == 1


def test_a_stopwatch_adds_up_stretches_of_one_name(monkeypatch):
    clock = iter([0.0, 1.0, 3.0, 6.0, 7.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    watch = Stopwatch(CPU)
    for name in ("views", "forward", "", "views"):
        watch.mark(name)
    assert watch.seconds() == {"views": 2.0, "forward": 2.0}


@pytest.mark.parametrize("package", ["wandb", "mlflow"])
def test_a_missing_package_is_named_before_the_first_step(config, monkeypatch, package):
    monkeypatch.setattr(sinks, "find_spec", lambda name: None)
    config: PretrainConfig = replace(config, monitor=MonitorConfig(**{package: "project"}))
    with pytest.raises(UsageError, match=f"needs the package {package}: pip install {package}"):
        pretrain(config)
    assert not config.run.out.exists()


def shown_twice(config, run):
    """Log at the start and, as a continued run does, again from an earlier step."""
    for step in (5, 3):
        with_picture = sinks.open_sinks(config, run, step - 1, {"run": {"steps": 9}})
        for sink in with_picture:
            sink.scalars({"train/loss": float(step)}, step)
            sink.image("experts/map", torch.rand(3, 8, 8), step)
            sink.close()


def test_mlflow_continues_its_run(tmp_path, monkeypatch):
    pytest.importorskip("mlflow", reason="mlflow-skinny is not installed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    run = tmp_path / "run"
    run.mkdir()
    shown_twice(MonitorConfig(mlflow="experiment"), run)
    from mlflow import MlflowClient

    client, name = MlflowClient(), (run / "mlflow_id").read_text()
    history = client.get_metric_history(name, "train/loss")
    assert [(point.step, point.value) for point in history] == [(5, 5.0), (3, 3.0)]
    assert client.get_run(name).data.params == {"run.steps": "9"}
    assert client.list_artifacts(name, "images")


@pytest.mark.slow
def test_wandb_continues_its_run(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    shown_twice(MonitorConfig(wandb="project"), tmp_path)
    name = (tmp_path / "wandb_id").read_text()
    assert len(list((tmp_path / "wandb").glob(f"offline-run-*-{name}"))) == 2
