"""The tables of offline learners and of rankings: real rollouts of a pendulum, tiny networks, and summaries by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from robopref.configs import cli
from robopref.configs.errors import RoboprefError
from robopref.datasets.d4rl import write_d4rl
from robopref.datasets.offline import OfflineData, ReferenceScore
from robopref.embodied.control import make_control
from robopref.policies import offline_study, prof_study
from robopref.policies.prof_study import judged
from robopref.preference.prof.ranking import Evidence, Score

FIELDS = """
mujoco/InvertedPendulum-v5:
  task: Keep the pole upright.
  step: 0.04
  observations: [[place, of the cart, m], [angle, how far the pole leans, rad], [speed, of the cart, m/s], [rate, its own, rad/s]]
  actions: [[force, on the cart, of the largest]]
"""
TINY = ["policy.steps=20", "policy.hidden=[8]", "policy.batch=8", "log_every=10"]


def rollouts(gain: float, episodes: int = 6) -> OfflineData:
    """A pendulum that is pushed against its angle, more or less well."""
    env, rng = make_control("mujoco/InvertedPendulum-v5"), np.random.default_rng(0)
    observations, actions, rewards, first, ended = [], [], [], [0], []
    for number in range(episodes):
        obs, _ = env.reset(seed=number)
        observations.append(obs)
        for step in range(40):
            action = np.clip(gain * (obs[1] + 0.3 * obs[3]) + 0.1 * rng.normal(size=1), -1, 1).astype(np.float32)
            obs, reward, terminated, _, _ = env.step(action)
            observations.append(obs)
            actions.append(env.forces(action.astype(np.float64)))  # as the world takes them, in [-3, 3]
            rewards.append(reward)
            if terminated or step == 39:
                break
        first.append(len(actions))
        ended.append(terminated)
    return OfflineData(
        np.array(observations, np.float32),
        np.array(actions, np.float32),
        np.array(rewards, np.float32),
        np.array(first),
        np.array(ended),
        "pendulum",
        "mujoco/InvertedPendulum-v5",
        ReferenceScore(0.0, 40.0),
    )


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_d4rl("mixed.hdf5", rollouts(gain=-0.2))
    write_d4rl("expert.hdf5", rollouts(gain=8.0))
    Path("fields.yaml").write_text(FIELDS)
    return tmp_path


def study(*words: str) -> list[str]:
    return ["--out", "table.csv", "--data", "pendulum=data=mixed.hdf5 expert_data=expert.hdf5", "--seeds", "0", "1",
            "--episodes", "2", "--processes", "1", "--set", *TINY, "--variants", *words]  # fmt: skip


def test_a_table_has_a_row_a_seed_goes_on_and_refuses_other_settings(files, capsys):
    words = ["bc=policy=bc_d4rl", "iql=policy=iql_d4rl", "seabo=policy=iql_d4rl reward=seabo", "td3bc=policy=td3bc reward=otr"]
    offline_study.main(study(*words))
    told = capsys.readouterr().out
    table = pd.read_csv("table.csv")
    assert len(table) == 8 and set(table["variant"]) == {"bc", "iql", "seabo", "td3bc"}
    assert np.allclose(table["score"], 100 * table["return"] / 40, atol=0.01) and (table["steps"] == 20).all()
    assert "less seabo" in told and "pendulum" in told
    before = Path("table.csv").read_bytes()
    offline_study.main(study(*words))
    assert Path("table.csv").read_bytes() == before
    other_starts = [*study("iql=policy=iql_d4rl"), "--first-goal", "5"]
    longer = ["3" if word == "2" else word for word in study("iql=policy=iql_d4rl")]
    for changed in (study("iql=policy=iql_d4rl policy.expectile=0.9"), longer, other_starts):
        with pytest.raises(RoboprefError, match="iql on pendulum was run with other settings"):
            offline_study.main(changed)
    assert Path("table.csv").read_bytes() == before


def test_variants_that_learn_together_make_the_same_table(files):
    words = ["bc=policy=bc_d4rl", "iql=policy=iql_d4rl", "seabo=policy=iql_d4rl reward=seabo", "otr=policy=iql_d4rl reward=otr"]
    offline_study.main(study(*words))
    alone = Path("table.csv").rename("alone.csv")
    Path("runs").rename("before")
    offline_study.main([*study(*words), "--together"])
    assert Path("runs/offline/pendulum/iql-and-2-more").is_dir()
    together, alone = (pd.read_csv(name).drop(columns="seconds") for name in ("table.csv", "alone.csv"))
    pd.testing.assert_frame_equal(together, alone)


def test_data_without_a_scale_or_an_environment_is_an_error(files):
    data = rollouts(gain=0.0)
    write_d4rl("bare.hdf5", OfflineData(data.observations, data.actions, data.rewards, data.first, data.terminated, "bare"))
    words = study("bc=policy=bc_d4rl")
    words[words.index("pendulum=data=mixed.hdf5 expert_data=expert.hdf5")] = "bare=data=bare.hdf5"
    with pytest.raises(RoboprefError, match=r"bare\.hdf5 does not say which environment"):
        offline_study.main(words)


def test_rows_keep_their_name_but_those_of_adroit_that_were_cut_at_success(root):
    words = ("policy.steps=10000", "seabo.per_action=false", "log_every=1000", "checkpoint_every=1000000")
    data = f"door-human=data={root / 'tests/data/door-human-v0.hdf5'}"
    config = offline_study.OfflineStudyConfig(Path("x.csv"), (data,), set=words)
    *_, settings = offline_study.settings_of(config, data, "td3bc=policy=td3bc")
    marks = [offline_study.made_with(settings, config, env) for env in ("mujoco/hopper", "adroit/door")]
    assert marks[0] == "cdbcbf28" != marks[1]  # as docs/results/prof/scores.csv had it before episodes went on after success


def test_the_summary_by_hand():
    rows = pd.DataFrame(
        [
            {"data": data, "variant": variant, "seed": seed, "score": score + seed, "settings": "x"}
            for data, variant, score in (("a", "prof", 10.0), ("b", "prof", 30.0), ("a", "otr", 10.0), ("b", "otr", 20.0))
            for seed in (0, 1, 2)
        ]
    )
    lines = offline_study.summary(rows, ("otr",)).splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("prof"))
    middle, less_middle, mean, less = (" ".join(line.split()) for line in lines[at : at + 4])
    assert mean == "prof mean 21.0 range [20.0, 22.0] over seeds; 2 data sets, 3 seeds"
    assert less == "less otr +5.0, range [+3.0, +7.0]: above on all seeds"
    assert middle.startswith("prof IQM 21.0 range [20.0, 22.0]")
    assert less_middle.startswith("less otr +5.0")


def test_the_summary_says_when_one_data_set_carries_a_verdict():
    means = {"prof": (10.0, 90.0, 12.0), "otr": (11.0, 50.0, 13.0)}
    rows = pd.DataFrame(
        [
            {"data": data, "variant": variant, "seed": seed, "score": score + seed / 10, "settings": "x"}
            for variant, scores in means.items()
            for data, score in zip("abc", scores, strict=True)
            for seed in range(5)
        ]
    )
    said = offline_study.summary(rows, ("otr",))
    middle, mean = (line.strip() for line in said.splitlines() if "less otr" in line)
    assert mean.startswith("less otr +12.7, 95 % interval") and mean.endswith("above; leaving out b turns its sign")
    assert middle.startswith("less otr +8.1") and middle.endswith("leaving out b turns its sign"), "of 15 runs 3 are cut"


def test_a_method_that_lacks_a_data_set_has_no_aggregate():
    rows = pd.DataFrame(
        [{"data": d, "variant": v, "seed": 0, "score": 1.0, "settings": "x"} for d, v in (("a", "bc"), ("b", "bc"), ("a", "iql"))]
    )
    lines = offline_study.summary(rows).splitlines()
    assert any(line.startswith("bc ") for line in lines) and not any(line.startswith("iql ") for line in lines)


def test_candidates_are_tried_and_ranked_again(files, capsys):
    words = ["env=mujoco/InvertedPendulum-v5", "data=mixed.hdf5", "expert_data=expert.hdf5", "fields=fields.yaml"]
    assert cli.main(["prof", *words, "candidates=3", "rounds=0", "ranking.horizon=5", "ranking.draws=1", "out=run"]) == 0
    command = ["--run", "run", "--out", "worth.csv", "--seeds", "0", "--episodes", "1", "--processes", "1"]
    command += ["--learner", " ".join(["policy=iql_d4rl", *TINY])]
    prof_study.main([*command, "--variants", "default=", "delta=ranking.delta=0.5", "two=experts=2"])
    worth, table = pd.read_csv("worth.csv"), pd.read_csv("worth-rankings.csv").set_index("variant")
    assert len(worth) == 3 and worth["agreement"].between(-1, 1).all()
    assert set(table.index) == {"default", "delta", "two", "K_1", "K_2", "T_0"}
    assert (table.loc[["default", "delta", "two"], "candidates"] == 3).all()
    ranking = pd.read_csv("run/ranking.csv").set_index("candidate")
    chosen = ranking.index[ranking["chosen"]][0]
    scores = worth.set_index("candidate")["score"]
    assert table.loc["default", "first_score"] == pytest.approx(scores[chosen], abs=1e-3)
    assert table.loc["default", "random_score"] == pytest.approx(scores.mean(), abs=1e-3)
    assert table.loc["K_1", "first_score"] == pytest.approx(table.loc["default", "random_score"], abs=1e-3)
    assert table.loc["T_0", "first_agreement"] == pytest.approx(table.loc["default", "first_agreement"], abs=1e-3)
    prof_study.main([*command, "--together", "--out", "one.csv", "--work", "one", "--variants", "default="])
    pd.testing.assert_frame_equal(pd.read_csv("one.csv").drop(columns="seconds"), worth.drop(columns="seconds"))
    prof_study.main(["--run", "run", "--out", "alone.csv", "--seeds", "--processes", "1", "--variants", "default="])
    alone = pd.read_csv("alone.csv")
    assert np.allclose(alone["agreement"], worth["agreement"]) and alone["score"].isna().all()
    with pytest.raises(RoboprefError, match=r"only ranking\.NAME and experts"):
        prof_study.main([*command, "--variants", "k=candidates=2"])
    before = Path("worth.csv").read_bytes()
    for other in (["--episodes", "2"], ["--learner", " ".join(["policy=iql_d4rl", *TINY, "policy.expectile=0.9"])]):
        with pytest.raises(RoboprefError, match=r"worth\.csv: the rows of candidate .*, seed 0 were made with other settings or"):
            prof_study.main([*command, *other])
    (first, *_) = Path("run/candidates").glob("*.py")
    code = first.read_text()
    first.write_text(code + "\n")  # edited
    with pytest.raises(
        RoboprefError, match=f"the rows of candidate {first.stem}, seed 0 were made with other settings or inputs"
    ):
        prof_study.main(command)
    first.write_text(code)
    assert Path("worth.csv").read_bytes() == before
    pd.read_csv("worth.csv").drop(columns="settings").to_csv("older.csv", index=False)
    older = [word if word != "worth.csv" else "older.csv" for word in command]
    with pytest.raises(
        RoboprefError, match=r"older\.csv: an older table without the column `settings`.*--summary.*another --out"
    ):
        prof_study.main(older)
    capsys.readouterr()
    prof_study.main([*older, "--summary"])
    assert "agreement" in capsys.readouterr().out


def test_candidates_are_judged_on_actions_as_the_run_saw_them_clipped(files):
    data = rollouts(gain=-0.2, episodes=12)
    wild = replace(data, actions=np.random.default_rng(0).normal(0, 3, data.actions.shape).astype(np.float32))
    write_d4rl("wild.hdf5", wild)
    code = "def reward(obs, act, next_obs):\n    return act[:, 0]\n"
    Path("reader.py").write_text(code)
    words = ["env=mujoco/InvertedPendulum-v5", "data=wild.hdf5", "fields=fields.yaml", "candidates=0", "rounds=0"]
    assert cli.main(["prof", *words, "files=[reader.py]", "ranking.horizon=5", "ranking.draws=1", "out=run"]) == 0
    prof_study.main(["--run", "run", "--out", "worth.csv", "--seeds", "--processes", "1", "--variants", "default="])
    ends = np.split(np.arange(len(wild)), wild.first[1:-1])

    def agreement(actions: np.ndarray) -> float:
        returns = [float(actions[part].sum()) for part in ends]
        return spearmanr(returns, [float(wild.rewards[part].sum()) for part in ends]).statistic

    (told,) = pd.read_csv("worth.csv")["agreement"]
    assert told == pytest.approx(agreement(np.clip(wild.actions / 3, -1, 1)), abs=1e-4)  # as written
    assert told != pytest.approx(agreement(wild.actions), abs=1e-3)


def test_returns_and_what_a_ranking_is_worth_by_hand():
    data = rollouts(gain=0.0, episodes=2)
    values = np.ones(len(data))
    assert data.returns_of(values).tolist() == data.lengths.tolist()
    evidence = Evidence(np.zeros((1, 1, 1)), np.zeros((1, 1)), 0, 0, 0, values)
    scores = [Score("a", evidence, dominance=0.2), Score("b", evidence, dominance=0.9), Score("c", evidence, dominance=0.5)]
    worth = pd.DataFrame({"agreement": [0.1, 0.3, 0.2], "score": [30.0, 10.0, 20.0]})
    found = judged(scores, worth)
    assert (found["with_agreement"], found["with_score"]) == (pytest.approx(1), pytest.approx(-1))
    assert (found["first_score"], found["random_score"], found["most_score"]) == (10, 20, 30)


def test_what_less_would_have_chosen_by_hand():
    columns = ["candidate", "round", "parent", "problem"]
    ranking = pd.DataFrame(
        [
            ("rewrite-2-0", 2, "rewrite-1-0", ""),
            ("rewrite-1-1", 1, "write-9", ""),  # of another parent: it has no part in this
            ("rewrite-1-0", 1, "write-1", ""),
            ("write-1", 0, "", ""),
            ("write-0", 0, "", ""),
            ("write-2", 0, "", ""),
            ("write-3", 0, "", "does not run"),
        ],
        columns=columns,
    )
    scores = {"write-0": 10.0, "write-1": 40.0, "write-2": 70.0, "rewrite-1-0": 50.0, "rewrite-1-1": 99.0, "rewrite-2-0": 60.0}
    worth = pd.DataFrame({"agreement": 0.5, "score": pd.Series(scores)})
    found = {row["variant"]: row["first_score"] for row in prof_study.chosen_from_less(ranking, worth)}
    assert found == pytest.approx({"K_1": 40.0, "K_2": (2 * 40 + 10) / 3, "T_0": 40.0, "T_1": 50.0, "T_2": 60.0})


def test_a_folder_that_is_no_run_is_an_error(tmp_path):
    with pytest.raises(RoboprefError, match=r"holds no ranking\.csv"):
        prof_study.main(["--run", str(tmp_path), "--out", str(tmp_path / "x.csv")])
