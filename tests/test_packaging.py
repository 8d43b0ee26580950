"""The built wheel holds every module and data file, and works without the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

FOLDERS = ["configs", "embodied", "datasets", "preference", "policies"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that no build folder is left in the checkout, and without a network."""
    root, folder = Path(__file__).parents[1], tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in FOLDERS:
        shutil.copytree(root / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ["pyproject.toml", "LICENSE", "README.md"]:
        if (root / name).exists():
            shutil.copy(root / name, source)
    build = [sys.executable, "-m", "pip", "wheel", ".", "--no-build-isolation", "--no-deps", "--no-index", "-w", folder]
    done = subprocess.run(build, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("robopref-*.whl"))


def test_wheel_holds_every_source_template_and_settings_file(wheel: Path, root: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        f"robopref/{path.relative_to(root).as_posix()}"
        for folder in FOLDERS
        for pattern in ("*.py", "*.yaml", "*.j2")
        for path in (root / folder).rglob(pattern)
    }
    assert not wanted - names
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"robopref"}
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_wheel_runs_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    script = (
        "import sys; from robopref.configs import cli, hydra\n"
        "assert cli.__file__.startswith(sys.argv[1]), cli.__file__\n"
        "print(hydra.compose('train').out); sys.exit(cli.main(['--version']))"
    )
    child = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0 and child.stdout.endswith("robopref 0.1.0\n"), child.stderr


def test_every_bound_has_its_reason_and_every_name_its_lock(root: Path) -> None:
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    project = tomllib.loads(text)["project"]
    extras = project["optional-dependencies"]
    for line in text[text.index("\ndependencies = [") : text.index("\n[project.scripts]")].splitlines():
        code, _, comment = line.partition("#")
        if any(sign in code for sign in (">=", "==", "<")):
            assert comment.strip(), f"no reason beside {code.strip()}"
    locked = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {line.partition("==")[0].lower().replace("_", "-") for line in locked if not line.startswith("#")}
    for requirement in [*project["dependencies"], *extras["dev"]]:
        name = requirement.split(">")[0].split("=")[0].split("<")[0].lower().replace("_", "-")
        assert name in pins, f"{name} is not in constraints.txt"
    assert not [line for line in locked if not line.startswith("#") and ("@" in line or "+" in line or "==" not in line)]
