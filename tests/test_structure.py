"""What the layout promises: layers import in one direction, modules and functions stay small."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ALLOWED = {
    "models": {"models"},
    "data_shards": {"data_shards"},
    "pretrain": {"models", "data_shards", "pretrain"},
    "finetune": {"models", "data_shards", "finetune"},
    "launch": {"models", "data_shards", "pretrain", "finetune", "launch", "model_cards"},
}
MODULES = sorted(path for folder in ALLOWED for path in (ROOT / folder).rglob("*.py"))


def name(path):
    return str(path.relative_to(ROOT))


def imported(tree):
    """Absolute names of what a module imports, relative imports refused."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_layers(path):
    folder = path.relative_to(ROOT).parts[0]
    used = {
        full.split(".")[1] for full in imported(ast.parse(path.read_text())) if "gliomoe." in full
    }
    if path.parent.name == "root":  # the installed package itself: version and entry point
        return
    assert used <= ALLOWED[folder]


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_size(path):
    text = path.read_text()
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < 60, f"{node.name}, line {node.lineno}"
