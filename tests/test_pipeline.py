"""The main job, with a few steps of everything, on real Meta-World and real pixels."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from robopref.configs import cli
from robopref.configs.hydra import compose, to_dataclass
from robopref.configs.pipeline import PipelineConfig
from robopref.datasets.episodes import EpisodeStore
from robopref.embodied.tasks import SPLITS
from robopref.embodied.video import read_video

TINY = (
    "train_tasks=[drawer-open,reach]", "task=drawer-close", "policy_seeds=[0,1]", "processes=1", "goals=2", "max_steps=60",
    "film_goals=2", "collect.episodes=2", "collect.max_steps=200", "offline.episodes=3", "offline.max_steps=80",
    "pretrain.steps=4", "pretrain.batch=8", "pretrain.threads=1", "vlp.steps=3", "vlp.threads=1", "annotate.pairs=10",
    "bc.steps=5", "piql.steps=5", "piql.reward_steps=5", "cpl.steps=5", "cpl.clone_steps=5",
)  # fmt: skip
POLICIES = {"random", "bc", "piql-vlp", "piql-scripted", "cpl-vlp", "cpl-scripted", "expert"}


@pytest.mark.timeout(400)
def test_pipeline_from_nothing_to_a_report_and_again(tmp_path, capsys):
    run = tmp_path / "run"
    assert cli.main(["pipeline", f"out={run}", *TINY]) == 0
    said = capsys.readouterr().out
    assert said.strip().endswith(f"report: {(run / 'report.html').resolve()}")
    for measure in ("accuracy", "balanced", "tau", "constant"):
        assert measure in said  # always together

    assert set(pd.read_csv(run / "evaluation" / "success.csv")["policy"]) == POLICIES
    assert set(json.loads((run / "evaluation" / "summary.json").read_text())) == POLICIES
    vlp, scripted = (pd.read_parquet(run / "labels" / f"{name}.parquet") for name in ("vlp", "scripted"))
    same = ["episode_a", "start_a", "stop_a", "episode_b", "start_b", "stop_b"]
    pd.testing.assert_frame_equal(vlp[same], scripted[same])
    assert not vlp["score_a"].equals(scripted["score_a"])
    assert len(list(read_video(run / "videos" / "grid.mp4"))) > 10
    page = (run / "report.html").read_text()
    assert "data:video/mp4;base64," in page and "drawer-close" in page

    # Neither backbone nor VLP has read the held-out task, and its labelled data share no episode with the measured orders.
    for stage in ("backbone", "vlp"):
        read = set(json.loads((run / stage / "manifest.json").read_text())["inputs"])
        assert {name for name in read if not name.startswith("backbone")} == {"drawer-open", "reach"}
    measured, labelled = (EpisodeStore(run / part / "drawer-close") for part in ("episodes", "offline"))
    assert len(measured) and len(labelled) and not set(measured.index["seed"]) & set(labelled.index["seed"])
    goals = set(pd.read_csv(run / "evaluation" / "success.csv")["goal"])
    assert len(goals) == 2 and not goals & {*measured.index["seed"], *labelled.index["seed"]}, "nor a start with the evaluation"

    # Killed after training: what is finished is kept, the rest is made again.
    before = {path: path.stat().st_mtime_ns for path in run.rglob("model.safetensors")}
    (run / "evaluation" / "manifest.json").unlink()
    (run / "report.html").unlink()
    assert cli.main(["pipeline", f"out={run}", *TINY]) == 0
    assert before == {path: path.stat().st_mtime_ns for path in run.rglob("model.safetensors")}
    assert (run / "report.html").exists()


def test_the_papers_scale_has_the_papers_sizes():
    paper = to_dataclass(PipelineConfig, compose("pipeline", ["scale=paper"]))
    assert (paper.collect.episodes, paper.offline.episodes, paper.annotate.pairs) == (32, 100, 100)
    assert (paper.piql.reward_steps, paper.piql.steps, paper.cpl.clone_steps, paper.cpl.alpha) == (50_000, 450_000, 200_000, 0.1)
    assert len(paper.policy_seeds) == 5 and paper.out.name == "paper"
    assert paper.task in SPLITS["paper"].test
    assert compose("pipeline", ["scale=paper", "task=window-open"])["task"] == "window-open"  # what is typed rules


def test_a_held_out_task_cannot_be_trained_on(tmp_path, capsys):
    assert cli.main(["pipeline", f"out={tmp_path}", "task=reach", "train_tasks=[reach,push]"]) == 1
    assert "leaves 1 task" in capsys.readouterr().err


def test_a_mistyped_setting_names_the_nearest(capsys):
    assert cli.main(["pipeline", "scale=quikc"]) == 2
    assert "quick" in capsys.readouterr().err
    assert cli.main(["pipeline", "piql.expctile=0.8"]) == 2
    assert "expectile" in capsys.readouterr().err
