"""Rules for every source file: imports point one way; nothing unpickles, hides warnings or swallows errors."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

FLOW = ["configs", "embodied", "datasets", "preference", "policies"]  # each may import those before it
ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for folder in FLOW for path in (ROOT / folder).rglob("*.py"))
PICKLES = {"pickle", "cPickle", "cloudpickle", "dill", "shelve", "marshal"}


def imported(tree: ast.Module) -> Iterator[str]:
    """Dotted names that a file imports, relative ones from another folder as `robopref.FOLDER`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = ("robopref." if node.level > 1 else "." * node.level) + (node.module or "")
            yield from (f"{module}.{alias.name}".replace("..", ".") for alias in node.names)


def violations(tree: ast.Module) -> Iterator[str]:
    guarded = {
        call
        for node in ast.walk(tree)
        if isinstance(node, ast.With) and any("catch_warnings" in ast.unparse(item) for item in node.items)
        for call in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name.endswith(("filterwarnings", "simplefilter")) and node not in guarded:
                yield f"line {node.lineno}: a warning filter for the whole process"
            if name in ("torch.load", "joblib.load", "pd.read_pickle", "pandas.read_pickle"):
                yield f"line {node.lineno}: {name} can unpickle"
            if any(word.arg == "allow_pickle" and ast.unparse(word.value) != "False" for word in node.keywords):
                yield f"line {node.lineno}: allow_pickle"
        elif isinstance(node, ast.ExceptHandler):
            caught = ast.unparse(node.type) if node.type else "everything"
            silent = all(isinstance(statement, ast.Pass | ast.Continue) for statement in node.body)
            if silent and caught in ("everything", "Exception", "BaseException"):
                yield f"line {node.lineno}: an error is swallowed"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_point_one_way(path: Path) -> None:
    folder = path.relative_to(ROOT).parts[0]
    later = FLOW[FLOW.index(folder) + 1 :]
    for name in imported(ast.parse(path.read_text(encoding="utf-8"))):
        first, _, rest = name.partition(".")
        assert first not in FLOW, f"{name}: import it as robopref.{name}"
        assert first != "robopref" or rest.split(".")[0] not in later, f"{folder} comes before {name}"
        assert first not in PICKLES, f"{name}: checkpoints and data are pickle-free"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_unpickles_hides_warnings_or_swallows_errors(path: Path) -> None:
    assert not list(violations(ast.parse(path.read_text(encoding="utf-8"))))


def test_the_rules_bite() -> None:
    bad = ast.parse(
        "import warnings\nwarnings.filterwarnings('ignore')\nnp.load(f, allow_pickle=True)\ntorch.load(f)\n"
        "try:\n    x\nexcept Exception:\n    pass\n"
    )
    assert len(list(violations(bad))) == 4
    assert not list(violations(ast.parse("with warnings.catch_warnings():\n    warnings.simplefilter('ignore')")))
    assert list(imported(ast.parse("from ..policies import iql\nfrom .files import digest\nimport a.b"))) == [
        "robopref.policies.iql",
        ".files.digest",
        "a.b",
    ]
