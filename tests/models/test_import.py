"""Importing the models brings in nothing heavy beyond torch."""

import json
import subprocess
import sys

SCRIPT = """
import json, sys, time
import torch
before = set(sys.modules)
start = time.perf_counter()
import gliomoe.models
seconds = time.perf_counter() - start
print(json.dumps([seconds, sorted({m.split(".")[0] for m in set(sys.modules) - before})]))
"""


def test_import_is_light():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    )
    _, modules = json.loads(done.stdout)
    heavy = {"deepspeed", "SimpleITK", "torchio", "monai", "nilearn", "matplotlib", "pandas"}
    assert "gliomoe" in modules
    assert not heavy & set(modules)
