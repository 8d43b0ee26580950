"""Agents compared over their whole life: what a row says, and nothing done twice."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from robopref.configs.errors import RoboprefError
from robopref.configs.policy import GTRConfig, OnPolicyConfig, SwitchConfig
from robopref.policies import onpolicy, onpolicy_study, stable_baselines
from robopref.policies.onpolicy_study import by_iteration, of_phases

WORDS = [
    "--seeds", "0", "1", "--frames", "640", "--processes", "1",
    "--worlds", "hop=env=mujoco/hopper switch=friction", "see=env=mujoco/hopper switch=observation",
    "--set", "switch.every=256", "policy.steps=32", "policy.envs=2", "policy.epochs=1", "policy.hidden=[8]",
]  # fmt: skip


def test_a_study_does_what_is_missing_and_tells_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, words = tmp_path / "life.csv", ["--work", str(tmp_path / "work"), *WORDS]
    onpolicy_study.main(["--out", str(out), *words, "--variants", "gtr=policy=gtr", "ppo=policy=ppo"])
    rows, curves = pd.read_csv(out), pd.read_csv(tmp_path / "life-curves.csv")
    assert len(rows) == 2 * 2 * 2 * 3 and rows["phase"].dtype == int and rows["return"].gt(0).all()
    assert rows["recovery"][rows["phase"] == 0].isna().all() and rows["recovery"][rows["phase"] > 0].notna().all()
    assert set(curves["frame"]) == {320, 640}
    losses = pd.read_csv(tmp_path / "life-losses.csv").set_index(["world", "variant", "phase"])
    assert len(losses) == 2 * 2 * 3 and losses.loc["hop", "gtr"]["kernel"].between(0.5, 1).all()
    assert losses.loc["hop", "ppo"]["kernel"].isna().all(), "it has none"
    metrics = pd.read_csv(tmp_path / "work" / "hop" / "gtr" / "metrics.csv")
    last = metrics["losses/entropy"][metrics["step"] > 512].mean()
    assert losses.loc["hop", "gtr", 2]["entropy"] == pytest.approx(last, abs=1e-3)
    capsys.readouterr()
    figure = tmp_path / "curves.png"
    more = ["--variants", "gtr=policy=gtr", "ppo=policy=ppo", "sb3=sb3", "--figure", str(figure)]
    onpolicy_study.main(["--out", str(out), *words, *more])
    said = capsys.readouterr().out
    assert said.count(" s)") == 2, "only the new variant was run, in both worlds"
    assert re.search(r"over ppo, 2 worlds +ppo +mean +1\.000", said) and figure.read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(RoboprefError, match="gtr in hop was run with other settings"):
        onpolicy_study.main(["--out", str(out), *words, "policy.beta=0.1", "--variants", "gtr=policy=gtr"])
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(RoboprefError, match=r"other.csv: it has no column settings"):
        onpolicy_study.main(["--out", str(tmp_path / "other.csv"), "--summary"])


def test_seeds_may_be_added_later(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, words = tmp_path / "life.csv", ["--work", str(tmp_path / "work"), *WORDS, "--variants", "ppo=policy=ppo"]
    onpolicy_study.main(["--out", str(out), *words])
    before = pd.read_csv(out)
    capsys.readouterr()
    onpolicy_study.main(["--out", str(out), *words, "--seeds", "0", "1", "2"])
    after = pd.read_csv(out)
    assert capsys.readouterr().out.count(" s)") == 2 and set(after["seed"]) == {0, 1, 2}, "one seed in both worlds"
    pd.testing.assert_frame_equal(after[after["seed"] < 2].reset_index(drop=True), before)
    assert set(after["settings"]) == set(before["settings"])
    alone = tmp_path / "alone.csv"
    onpolicy_study.main(["--out", str(alone), *words, "--seeds", "2", "--work", str(tmp_path / "other")])
    columns = ["world", "phase", "return"]
    pd.testing.assert_frame_equal(after[after["seed"] == 2][columns].reset_index(drop=True), pd.read_csv(alone)[columns])


def test_the_base_of_a_quotient_has_its_seeds_drawn() -> None:
    rows = pd.DataFrame(
        [
            {"world": world, "variant": variant, "seed": seed, "phase": 0, "return": scale * value}
            for world, scale in (("hop", 1.0), ("walk", 10.0))
            for variant, values in (("gtr", [12.0] * 5), ("ppo", [6.0, 8.0, 10.0, 12.0, 14.0]), ("kl", [30.0] * 5))
            for seed, value in enumerate(values)
        ]
    ).assign(end=1.0, recovery=np.nan, seconds=1.0)
    said = [" ".join(line.split()) for line in onpolicy_study.summary(rows, "ppo").splitlines()]
    assert "hop gtr 12.0 12.0 95 % interval [12.0, 12.0] 1.0 nan 5 1" in said
    over = [line.removeprefix("over ppo, 2 worlds ") for line in said if line.startswith("over ppo")]
    assert over[4:] == ["ppo IQM 1.000", "ppo mean 1.000"], "it is what the others are divided by"
    assert over[0].startswith("gtr IQM 1.200 95 % interval [0.9") and over[0].endswith("5 not told apart")
    assert over[2].startswith("kl IQM 3.000") and over[2].endswith("5 above")
    rows["return"] -= 8
    assert onpolicy_study.summary(rows, "ppo").endswith("not divided, since ppo has a return that is not positive")


def test_the_curve_of_a_life() -> None:
    episodes = pd.DataFrame({"frame": [20, 20, 40, 20], "seed": [0, 0, 0, 7], "return": [1.0, 3.0, 5.0, 9.0]})
    curve = by_iteration(episodes, (0, 7), 10, 5)
    assert curve.T.tolist() == [[2, 2, 2, 5, 5], [9, 9, 9, 9, 9]], "the last one's where none ended, at first the first one's"


def test_what_a_phase_was_like() -> None:
    returns = np.array([*[0.0] * 4, *[10.0] * 4, 1, 1, 1, 9, 9, 9, 9, 9, *[1.0] * 8])
    first, second, third = of_phases(returns, np.repeat([0, 1, 2], 8))
    assert first == {"phase": 0, "return": 5.0, "end": 10.0, "recovery": pytest.approx(float("nan"), nan_ok=True)}
    assert (second["return"], second["end"]) == (6.0, 9.0)
    assert second["recovery"] == 3, "the mean of iterations 3 to 5 is the first above 8"
    assert third["recovery"] == 8, "never"


def test_the_peer_lives_the_same_life(tmp_path: Path) -> None:
    config = OnPolicyConfig(
        tmp_path, "mujoco/Hopper-v5", GTRConfig(hidden=(8,), envs=2, steps=32, epochs=1, penalty="none"),
        SwitchConfig("friction", every=128), seeds=(0, 1), frames=320,
    )  # fmt: skip
    theirs = stable_baselines.lives(config)
    onpolicy.run(replace(config, out=tmp_path / "run"))
    ours = pd.read_csv(tmp_path / "run" / "episodes.csv")
    assert list(theirs) == list(ours)
    for table in (theirs, ours):
        assert set(table["phase"]) == {0, 1, 2} and set(table["seed"]) == {0, 1}
        assert set(table["frame"]) <= set(range(64, 321, 64))
        assert table["decisions"].groupby(table["seed"]).sum().between(200, 320).all()
    pd.testing.assert_frame_equal(stable_baselines.lives(config), theirs)
