"""Starts commands in processes that have already imported all they need: run as a script.

Reads one JSON object a line. `{"argv": …, "env": …, "log": …, "full": …}` is answered with the
number of the process that runs `gliomoe` with these arguments, on a full disk if so asked;
`{"wait": number}` with its exit code, negative for a signal.
"""

import ctypes
import errno
import json
import os
import signal
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace

import deepspeed.runtime.zero.muon.muon_optimizer  # noqa: F401  every engine imports it: seconds
import torch.utils.tensorboard  # noqa: F401

from gliomoe.data_shards.files import write_json
from gliomoe.launch import options  # noqa: F401
from gliomoe.launch.cli import main
from gliomoe.launch.commands import pretrain  # noqa: F401
from gliomoe.pretrain import loop, train  # noqa: F401
from gliomoe.pretrain.engine import writing
from gliomoe.pretrain.engine.engine import Engine
from gliomoe.pretrain.planning import work  # noqa: F401

PR_SET_PDEATHSIG = 1  # linux/prctl.h: a signal for when the parent ends


def note_buffers(log):
    """Leave a checksum of each buffer of this rank beside the log, whenever a run saves."""
    save = Engine.save

    def noted(engine, folder):
        found = {n: zlib.crc32(b.cpu().numpy()) for n, b in engine.module.named_buffers()}
        write_json(Path(f"{log}.{os.environ['RANK']}.json"), found)
        return save(engine, folder)

    Engine.save = noted


def fill_disk():
    """Let what DeepSpeed writes meet a full disk."""

    def save(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    writing.torch = SimpleNamespace(save=save)


def become(argv, env, log, full):
    """Run a command in this process."""
    os.setpgid(0, 0)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.environ.update(env)
    note_buffers(log)
    if full:
        fill_disk()
    os._exit(main(argv))


for line in sys.stdin:
    asked = json.loads(line)
    if "wait" in asked:
        print(os.waitstatus_to_exitcode(os.waitpid(asked["wait"], 0)[1]), flush=True)
        continue
    child = os.fork()
    if child == 0:
        become(**asked)
    print(child, flush=True)
