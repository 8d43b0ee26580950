"""Agents side by side: same starts, a table that grows, and nothing done twice."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from stable_baselines3 import SAC

from robopref.configs.errors import RoboprefError
from robopref.configs.policy import CIRConfig, FeedbackConfig, OnlineConfig
from robopref.embodied.control import make_control
from robopref.policies import online, online_study, stable_baselines
from robopref.policies.stable_baselines import SameStarts

ENV = "mujoco/InvertedPendulum-v5"
SMALL = [
    "--envs", ENV, "--seeds", "0", "1", "--frames", "60", "--processes", "1",
    "--set", "warmup=20", "eval_every=30", "eval_episodes=2", "policy.batch=8", "policy.width=8",
]  # fmt: skip


def test_a_study_does_what_is_missing_and_tells_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, words = tmp_path / "study.csv", ["--work", str(tmp_path / "work"), *SMALL]
    online_study.main(["--out", str(out), *words, "--variants", "sac=policy=sac", "sb3=sb3"])
    rows = pd.read_csv(out)
    assert len(rows) == 2 * 2 * 2 and set(rows["frame"]) == {30, 60}
    assert rows.groupby("variant")["return"].min().gt(0).all()
    capsys.readouterr()
    more = ["--variants", "sac=policy=sac", "sb3=sb3", "mean=policy=sac policy.actor_q=mean"]
    figure = tmp_path / "curves.png"
    online_study.main(["--out", str(out), *words, "checkpoint_every=7", *more, "--figure", str(figure)])
    said = capsys.readouterr().out
    assert said.count("seed 0: return") == 1, "only the new variant was run"
    assert [line.split()[1] for line in said.splitlines() if line.startswith(ENV) and ", " not in line[:60]] == [
        *["mean"] * 3, *["sac"] * 3, *["sb3"] * 3,
    ]  # fmt: skip
    assert figure.read_bytes()[:4] == b"\x89PNG"
    rows.assign(variant="true").to_csv(tmp_path / "words.csv", index=False)
    assert set(online_study.read_rows(tmp_path / "words.csv")["variant"]) == {"true"}, "no truth value"
    with pytest.raises(RoboprefError, match=r"sac in .* was run with other settings"):
        online_study.main(["--out", str(out), *words, "policy.learning_rate=1e-4", "--variants", "sac=policy=sac"])
    with pytest.raises(RoboprefError, match="write NAME=SETTINGS"):
        online_study.main(["--out", str(out), *words, "--variants", "sac"])


def test_the_peer_may_have_as_many_gradient_steps_and_as_wide_layers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made: list[dict[str, Any]] = []

    class Noted(SAC):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            made.append(kwargs)
            super().__init__(*args, **kwargs)

    monkeypatch.setattr("stable_baselines3.SAC", Noted)
    words = ["--work", str(tmp_path), *SMALL[:3], *SMALL[4:-1], "policy.width=16"]
    variants = ["--variants", "wide=sb3 policy.repeats=2", "sb3=sb3"]
    online_study.main(["--out", str(tmp_path / "study.csv"), *words, *variants])
    assert [(one["gradient_steps"], one["policy_kwargs"]["net_arch"]) for one in made] == [(2, [16, 16]), (1, [16, 16])]
    rows = pd.read_csv(tmp_path / "study.csv").set_index("variant")
    assert rows.loc["wide", "settings"].unique() != rows.loc["sb3", "settings"].unique()


def test_a_variant_may_name_the_seed() -> None:
    study = online_study.OnlineStudyConfig(Path("x.csv"), frames=500)
    name, settings = online_study.settings_of(
        study,
        "metaworld/drawer-close",
        "vlp=experiment=cir_vlp feedback.model=[vlp-{seed}] 'feedback.instruction=press the button'",
        3,
    )
    assert (name, settings.seed, settings.frames, settings.feedback.model) == ("vlp", 3, 500, (Path("vlp-3"),))
    assert settings.feedback.instruction == "press the button"
    with pytest.raises(RoboprefError, match="open='press the button: No closing quotation"):
        online_study.settings_of(study, "dmc/walker-walk", "open='press the button", 3)


def test_what_decides_a_run_is_in_its_name() -> None:
    def name(peer: bool = False, **changes: object) -> str:
        return online_study.fingerprint(replace(OnlineConfig(Path("x"), ENV, CIRConfig()), **changes), peer)

    same = [name(), name(out=Path("y"), threads=2, device="cuda", checkpoint_every=3)]
    others = [name(policy=CIRConfig(width=8)), name(feedback=FeedbackConfig(every=3)), name(hold=2.0), name(peer=True)]
    assert len({*same, *others}) == 1 + len(others)
    usual = {"env": "dmc/walker-walk", "peer": False}  # all of it that is not the dataclass's own: a new setting changes no name
    walker = hashlib.sha256(json.dumps(usual, sort_keys=True).encode()).hexdigest()[:8]
    assert name(env="dmc/walker-walk") == walker


def test_the_peer_meets_the_same_starts_and_the_same_judge(tmp_path: Path) -> None:
    config = OnlineConfig(
        tmp_path / "run", ENV, CIRConfig(width=8, batch=8, critic="mlp"), seed=3, frames=40, action_repeat=1, warmup=10,
        eval_every=40, eval_episodes=2, device="cpu",
    )  # fmt: skip
    ours = online.Run(config, torch.device("cpu"))
    theirs = SameStarts(make_control(ENV), 3)
    first = theirs.reset(seed=99)[0]
    np.testing.assert_array_equal(first, ours.obs)
    ours.episode = 1
    np.testing.assert_array_equal(theirs.reset()[0], ours.start_episode())
    table = stable_baselines.evaluations(config)
    again = stable_baselines.evaluations(config)
    assert table["frame"].tolist() == [40] and table["return"].gt(0).all()
    pd.testing.assert_frame_equal(table, again)


def test_few_seeds_have_a_range_and_five_an_interval() -> None:
    rows = pd.DataFrame({"env": "dmc/a", "variant": "x", "seed": range(5), "frame": 10, "return": [1.0, 2.0, 6.0, 3.0, 3.0]})
    rows = rows.assign(success=0.0, seconds=1.0)
    few, whole = (online_study.summary(rows[:count]).splitlines()[1] for count in (3, 5))
    assert " ".join(few.split()).startswith("dmc/a x 10 3.0 3.0 range [1.0, 6.0] 0.00 3")
    assert "95 % interval [1.0, 6.0]" in whole and " 2.7 " in whole and " 3.0 " in whole, "IQM of 2, 3, 3, and the mean"


def test_tasks_of_one_scale_are_summed_up() -> None:
    def part(env: str, variant: str, returns: list[float]) -> pd.DataFrame:
        frames = [(seed, frame, value * frame / 20) for seed, value in enumerate(returns) for frame in (10, 20)]
        table = pd.DataFrame(frames, columns=["seed", "frame", "return"])
        return table.assign(env=env, variant=variant, success=0.0, seconds=1.0)

    rows = pd.concat(
        [
            part("dmc/a", "x", [0.0, 100.0, 200.0, 900.0]),
            part("dmc/b", "x", [100.0, 200.0, 300.0, 400.0]),
            part("mujoco/c", "x", [1e6] * 4),
            part("dmc/a", "y", [1.0] * 4),  # not in dmc/b
        ]
    )
    line, whole = online_study.suite_lines(rows)
    assert line.split()[:5] == ["dmc,", "2", "tasks", "x", "20"]
    assert float(line.split()[5]) == 200  # of 0 100 | 100 200 200 300 | 400 900
    assert float(whole.split()[5]) == 150 and whole.split()[4] == "mean"  # a run has half of it after half of its frames
    assert line in online_study.summary(rows)
    assert online_study.suite_lines(rows[rows["env"] != "dmc/b"]) == []


def test_what_a_part_is_worth() -> None:
    def part(env: str, variant: str, value: float, apart: float = 0) -> pd.DataFrame:
        runs = [(seed, frame, (value + apart * (seed - 1)) * frame) for seed in range(3) for frame in (1, 3)]
        return pd.DataFrame(runs, columns=["seed", "frame", "return"]).assign(env=env, variant=variant, success=0.0, seconds=1.0)

    full, less = [part("dmc/a", "full", 30), part("dmc/b", "full", 50)], [part("dmc/a", "less", 20), part("dmc/b", "less", 40)]
    rows = pd.concat([*full, *less, part("mujoco/c", "less", 1e6), part("dmc/a", "half", 1)])  # the last is not in both tasks
    _, end, whole = (line.split() for line in online_study.worth_lines(rows, "full"))
    below = ["below", "on", "all", "seeds"]
    assert end == ["less", "3", "-30.0", "-30.0", "range", "[-30.0,", "-30.0]", *below], "three times as much at frame 3"
    assert whole == ["less", "mean", "-20.0", "-20.0", "range", "[-20.0,", "-20.0]", *below]
    apart = [part("dmc/a", "apart", 20, 5), part("dmc/b", "apart", 40, 5)]
    _, end, _ = (line.split() for line in online_study.worth_lines(pd.concat([*full, *apart]), "full"))
    assert end[4:] == ["range", "[-45.0,", "-15.0]", *below]
    with pytest.raises(RoboprefError, match=r"--against all: dmc has no such variant; there are full, less, half"):
        online_study.worth_lines(rows, "all")
