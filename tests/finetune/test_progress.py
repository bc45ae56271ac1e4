"""What a log file tells of a fold."""

import io
import logging

from gliomoe.finetune import progress
from gliomoe.finetune.progress import FoldBar


def test_without_a_terminal_each_validation_is_a_line(caplog, monkeypatch):
    clock = iter([100.0, 160.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr("sys.stderr", written := io.StringIO())
    bar = FoldBar("fold 1/5", epochs=8, steps=1, done=2)
    bar.step(1.0)
    bar.step(0.5)
    with caplog.at_level(logging.INFO):
        bar.validated(4, 0.7)  # two epochs in a minute, four to go
    bar.close()
    assert caplog.messages == [
        "fold 1/5  epoch 4/8  loss 0.750  validation 0.700  at most 02:00 left"
    ]
    assert not written.getvalue()
