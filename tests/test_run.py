"""Manifests say what was run, completed stages are recognised, and metrics continue where a checkpoint was."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from robopref.configs.errors import RoboprefError
from robopref.configs.files import read_json
from robopref.configs.run import MetricsLogger, is_complete, seed_everything, write_manifest


@dataclass(frozen=True)
class Settings:
    out: Path
    steps: int = 3
    tasks: tuple[str, ...] = ("drawer-close",)


@pytest.fixture
def stage(tmp_path: Path) -> tuple[Settings, dict[str, Path]]:
    """A finished stage with one input and one output."""
    episodes = tmp_path / "episodes"
    episodes.mkdir()
    (episodes / "data.hdf5").write_text("data")
    settings = Settings(out=tmp_path / "vlp")
    settings.out.mkdir()
    (settings.out / "model.safetensors").write_text("weights")
    write_manifest(settings.out, "train-vlp", settings, {"episodes": episodes}, 1, time.time() - 2, outputs=["model.safetensors"])
    return settings, {"episodes": episodes}


def test_manifest_says_what_was_run(stage: tuple[Settings, dict[str, Path]]) -> None:
    settings, inputs = stage
    manifest = read_json(settings.out / "manifest.json")
    assert manifest["stage"] == "train-vlp" and manifest["seeds"] == [1] and manifest["robopref"]
    assert manifest["config"] == {"out": str(settings.out), "steps": 3, "tasks": ["drawer-close"]}
    assert manifest["inputs"]["episodes"]["path"] == str(inputs["episodes"])
    assert len(manifest["inputs"]["episodes"]["sha256"]) == 64
    assert manifest["outputs"] == {"model.safetensors": 7}
    assert 2 <= manifest["wall_s"] < 60 and manifest["peak_mb"] > 10
    assert {"torch", "mujoco", "numpy"} <= manifest["packages"].keys()
    assert manifest["machine"]["cores"] >= 1 and manifest["command"] and manifest["python"].startswith("3.")


def test_complete_only_with_same_config_inputs_and_outputs(stage: tuple[Settings, dict[str, Path]]) -> None:
    settings, inputs = stage
    assert is_complete(settings.out, settings, inputs)
    assert not is_complete(settings.out, replace(settings, steps=4), inputs)
    assert not is_complete(settings.out, settings, {})
    assert not is_complete(settings.out / "elsewhere", settings, inputs)
    (inputs["episodes"] / "data.hdf5").write_text("other")
    assert not is_complete(settings.out, settings, inputs)
    (inputs["episodes"] / "data.hdf5").unlink()
    (inputs["episodes"]).rmdir()
    assert not is_complete(settings.out, settings, inputs)


@pytest.mark.parametrize("left", [None, "weig"])
def test_lost_or_cut_output_is_not_complete(stage: tuple[Settings, dict[str, Path]], left: str | None) -> None:
    settings, inputs = stage
    (settings.out / "model.safetensors").unlink()
    if left:
        (settings.out / "model.safetensors").write_text(left)
    assert not is_complete(settings.out, settings, inputs)


def test_manifest_needs_its_outputs(tmp_path: Path) -> None:
    with pytest.raises(RoboprefError, match=r"model\.safetensors is missing"):
        write_manifest(tmp_path, "train", {}, {}, 0, time.time(), outputs=["model.safetensors"])
    assert not (tmp_path / "manifest.json").exists()


def test_seed_everything_repeats_every_generator() -> None:
    def draw() -> list[float]:
        rng = seed_everything(5)
        return [rng.random(), random.random(), np.random.rand(), torch.rand(()).item()]

    assert draw() == draw()


def test_metrics_have_a_row_a_step_and_a_column_a_name(tmp_path: Path) -> None:
    with MetricsLogger(tmp_path) as logger:
        logger.log(1, {"losses/vlp": torch.tensor(0.5)})
        logger.log(2, {"losses/vlp": 0.25, "eval/success": 1})
        table = pd.read_csv(tmp_path / "metrics.csv")  # readable while training goes on
    assert table.columns.tolist() == ["step", "losses/vlp", "eval/success"]
    assert table["losses/vlp"].tolist() == [0.5, 0.25] and table["eval/success"].dropna().tolist() == [1.0]
    assert list(tmp_path.glob("events.out.tfevents.*"))


def test_who_watches_a_terminal_sees_the_latest_metrics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def log() -> str:
        with MetricsLogger(tmp_path) as logger:
            logger.log(1, {"losses/vlp": 0.5, "train/return": 123.456})
            logger.log(2, {"losses/vlp": 0.25})
        return capsys.readouterr().err

    assert log() == "", "a pipe gets nothing"
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert log().split("\r\x1b[K")[1:] == [
        f"{tmp_path.name}: step {step}  train/return 123.5  losses/vlp {loss}" for step, loss in ((1, 0.5), (2, "0.25\n"))
    ]
    monkeypatch.setenv("COLUMNS", "21")
    assert log().split("\r\x1b[K")[2] == f"{tmp_path.name}: step 2"[:20] + "\n"


def test_metrics_resume_after_a_kill(tmp_path: Path) -> None:
    logger = MetricsLogger(tmp_path)
    for step in range(1, 5):
        logger.log(step, {"losses/a": step / 3})
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("5,1.6")  # cut in the middle of a line
    with MetricsLogger(tmp_path, resume_step=2) as resumed:
        resumed.log(3, {"losses/a": 1.0, "losses/b": 7})
    table = pd.read_csv(tmp_path / "metrics.csv")
    assert table["step"].tolist() == [1, 2, 3]
    assert table["losses/a"].tolist() == [1 / 3, 2 / 3, 1.0]  # all digits are kept
    logger.close()
    MetricsLogger(tmp_path).close()
    assert pd.read_csv(tmp_path / "metrics.csv").empty


@pytest.mark.parametrize(
    ("edited", "told"),
    [
        (b"losses/a\n0.5\n", "line 2: no row of metrics"),
        (b"step,losses/a\n1,0.5\n2.0,0.5\n", "line 3: no row of metrics"),
        (b"step,losses/a\n1,0.5,7\n", "line 2: no row of metrics"),
        (b"step,losses/a\n1,\xff\n", "is not UTF-8 text"),
    ],
)
def test_metrics_that_were_edited_are_named_and_a_run_that_begins_anew_does_not_read_them(edited, told, tmp_path):
    (tmp_path / "metrics.csv").write_bytes(edited)
    with pytest.raises(RoboprefError, match=told) as error:
        MetricsLogger(tmp_path, resume_step=5)
    assert str(error.value).startswith(str(tmp_path / "metrics.csv")) and "restore it, or delete it" in str(error.value)
    assert (tmp_path / "metrics.csv").read_bytes() == edited
    with MetricsLogger(tmp_path) as logger:
        logger.log(1, {"losses/a": 0.25})
    assert (tmp_path / "metrics.csv").read_text() == "step,losses/a\n1,0.25\n"
