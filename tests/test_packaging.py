"""The packaging contract: folders map to `gliomoe.*`, in the checkout and in the wheel."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest

import gliomoe.launch.cli
import gliomoe.models

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("models", "pretrain", "finetune", "data_shards", "launch", "model_cards")


def run(*command, **options):
    return subprocess.run(
        [str(part) for part in command], check=True, capture_output=True, text=True, **options
    ).stdout


def test_folders_are_live():
    assert Path(gliomoe.models.__file__) == ROOT / "models/__init__.py"
    assert Path(gliomoe.launch.cli.__file__) == ROOT / "launch/cli.py"


def test_every_subfolder_is_packaged():
    """A folder left out of `packages` would be missing from the wheel only."""
    conf = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = {
        ".".join(("gliomoe", *path.parent.relative_to(ROOT).parts))
        for top in FOLDERS
        for path in (ROOT / top).rglob("__init__.py")
        if path.parent != ROOT / "launch/root"
    }
    assert found | {"gliomoe"} == set(conf["packages"])


def test_data_files():
    for package in ("gliomoe.pretrain", "gliomoe.finetune"):
        assert (files(package) / "configs/quickstart.toml").is_file()
    assert (files("gliomoe.launch") / "pretrain.sh").is_file()
    assert (files("gliomoe.data_shards.ingest") / "dicom_sequences.toml").is_file()


def test_no_bare_import():
    """Nothing imports a folder by its bare name, even from the repository root."""
    code = (
        "import gliomoe.launch.cli, sys; "
        f"sys.exit(sum(n.split('.')[0] in {FOLDERS!r} for n in sys.modules))"
    )
    assert run(sys.executable, "-c", code, env=os.environ | {"PYTHONPATH": str(ROOT)}) == ""


def test_help_needs_no_torch():
    code = (
        "import sys; from gliomoe.launch.cli import main; main(['--help']); "
        "sys.exit('torch' in sys.modules)"
    )
    assert "pretrain" in run(sys.executable, "-c", code)


@pytest.mark.slow
def test_wheel(tmp_path):
    """The wheel gives a working command and puts nothing but `gliomoe` into site-packages."""
    if not shutil.which("uv"):
        pytest.skip("uv is not on the path")
    # From a copy of what git tracks: build folders and egg-info of the checkout must not help.
    tracked = run("git", "-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard")
    source = tmp_path / "source"
    for name in tracked.splitlines():
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    run("uv", "build", "--wheel", "--out-dir", tmp_path / "dist", source)
    run("uv", "venv", "--python", sys.executable, tmp_path / "env")
    python = tmp_path / "env/bin/python"
    wheel = next((tmp_path / "dist").glob("*.whl"))
    run("uv", "pip", "install", "--no-deps", "--python", python, wheel)

    site = next((tmp_path / "env/lib").glob("python*/site-packages"))
    own = {path.name.split("-")[0] for path in site.iterdir()} - {
        "_virtualenv.py",
        "_virtualenv.pth",
    }
    assert own == {"gliomoe"}

    # The dependencies come from this environment; PYTHONPATH brings no editable install along.
    env = os.environ | {"PYTHONPATH": sysconfig.get_paths()["purelib"]}
    shown = run(tmp_path / "env/bin/gliomoe", "models", "gliomoe_tiny", env=env, cwd=tmp_path)
    assert "gliomoe_tiny" in shown
    where = run(python, "-c", "import gliomoe; print(gliomoe.__file__)", env=env, cwd=tmp_path)
    assert where.strip() == str(site / "gliomoe/__init__.py")
