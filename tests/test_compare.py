"""The table of generalisation: what its numbers are, that it resumes and repeats itself, and what its summary says."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from toy_bank import make_banks

from robopref.configs.compare import CompareConfig
from robopref.configs.errors import RoboprefError, UsageError
from robopref.configs.run import write_manifest
from robopref.datasets.clips import FrameBank
from robopref.datasets.episodes import EpisodeStore, write_episodes
from robopref.embodied.envs import make_env
from robopref.embodied.experts import uniform
from robopref.embodied.rollout import rollout
from robopref.embodied.tasks import KINDS, SPLITS, task
from robopref.policies.benchmarks.annotate import untrained_vlp
from robopref.preference import compare
from robopref.preference.generalisation import order_measures
from robopref.preference.judges import Data
from robopref.preference.orders import LEVELS
from robopref.preference.scoring import returns_so_far
from robopref.preference.small import SmallBackbone, SmallConfig, SmallEncoder
from robopref.preference.targets import PUBLISHED, summarise

UNSEEN, TRAINED = "drawer-close", ("drawer-open", "door-open", "window-close")
TASKS = (UNSEEN, *TRAINED)


@pytest.fixture(scope="module")
def banks(tmp_path_factory):
    return make_banks(tmp_path_factory.mktemp("clips"), TASKS)


@pytest.fixture(scope="module")
def episodes(tmp_path_factory):
    """Twelve real episodes of 70 random steps, by the levels of the toy banks; the same ones under the name of every task."""
    folder = tmp_path_factory.mktemp("episodes")
    rng = np.random.default_rng(0)
    env = make_env(f"metaworld/{UNSEEN}")
    made = [  # linger: even if it succeeds by chance
        rollout(env, uniform(rng), seed=number, level=LEVELS[number // 4], policy="uniform", max_steps=70, linger=70)
        for number in range(12)
    ]
    env.close()
    write_episodes(folder / UNSEEN, env.env_id, made, {})
    for name in TRAINED:
        shutil.copytree(folder / UNSEEN, folder / name)
    return folder


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("backbone")
    torch.manual_seed(0)
    SmallBackbone.save(folder, SmallEncoder(SmallConfig(width=8, features=32, keypoints=8)))
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two untrained VLPs of seeds 0 and 3; they are alike, for the weights do not matter here."""
    folder = tmp_path_factory.mktemp("vlp")
    for seed in (0, 3):
        write_manifest(untrained_vlp(folder / str(seed)), "train-vlp", {}, {}, seed, 0.0)
    return folder


@pytest.fixture
def config(banks, episodes, backbone, runs, tmp_path):
    return CompareConfig(
        tmp_path / "table.csv",
        model=(f"vlp={runs / '0'}", f"vlp={runs / '3'}"),
        baseline=("nothing=constant", "truth=scripted", f"goal=goal-image:small:{backbone}"),
        clips=banks,
        tasks=(UNSEEN,),
        others=TASKS,
        episodes=episodes,
        offline=episodes,
        tuples=24,
        pairs=6,
        work=tmp_path / "work",
        threads=1,
        device="cpu",
    )


def test_orders_by_hand(banks):
    """Scores that know the level, the task, or nothing; and one that is far from a logit."""
    index = FrameBank([banks / name for name in TASKS]).index
    rank = index["level"].map(LEVELS.index).to_numpy()
    owner = {sentence: name for name in TASKS for kind in KINDS for sentence in task(name).wordings[kind]}

    def by_level(rows, said):
        return 2.0 * rank[rows[:, -1]]

    def by_task(rows, said):
        return np.array([index["task"].iloc[row] == owner[sentence] for row, sentence in zip(rows[:, -1], said, strict=True)])

    found = order_measures(by_level, index, UNSEEN, TRAINED, tuples=300)
    assert found["itp_accuracy"] == found["expert_over_medium"] == found["medium_over_random"] == 1.0
    apart = {1: math.log1p(math.exp(-2)) + 1, 2: math.log1p(math.exp(-4)) + 2}  # ln 2 cosh(d / 2) for d = 2 and 4
    assert apart[1] < found["ilp_loss"] < apart[2]
    assert 0.4 < found["ivp_accuracy"] < 0.6  # levels of either side are as likely
    found = order_measures(lambda rows, said: 1.0 * by_task(rows, said), index, UNSEEN, TRAINED, tuples=50)
    assert found["itp_accuracy"] == 0.5 and found["ivp_accuracy"] == 1.0 and found["ilp_loss"] == pytest.approx(math.log(2))
    wild = order_measures(lambda rows, said: 1e6 * by_level(rows, said), index, UNSEEN, TRAINED, tuples=50)
    assert 1e6 <= wild["ilp_loss"] <= 2e6 and wild["itp_accuracy"] == 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_each_wording_is_asked_in_its_own_sentences(banks, kind):
    index = FrameBank([banks / name for name in TASKS]).index
    asked: list[str] = []

    def noting(rows, said):
        asked.extend(said)
        return np.zeros(len(rows))

    order_measures(noting, index, UNSEEN, TRAINED, part=kind, tuples=400)
    assert set(task(UNSEEN).wordings[kind]) <= set(asked) <= {said for name in TASKS for said in task(name).wordings[kind]}


def test_true_returns_of_bank_frames(banks, episodes):
    bank = FrameBank([banks / UNSEEN])
    rewards = EpisodeStore(episodes / UNSEEN).rewards(5)
    rows = np.flatnonzero(bank.index["episode"] == 5)
    so_far = returns_so_far(bank, episodes)
    np.testing.assert_allclose(so_far[rows], [rewards[: 7 * frame].sum() for frame in range(10)])
    bank.index["length"] += 1
    with pytest.raises(RoboprefError, match="not what the frame bank of drawer-close was drawn from"):
        returns_so_far(bank, episodes)


def test_a_row_a_model_seed_task_and_wording_and_nothing_twice(config, monkeypatch):
    table = compare.run(config)
    key = ["model", "seed", "task", "wording"]
    names = [("vlp", 0), ("vlp", 3), ("nothing", 0), ("truth", 0), ("goal", 0)]
    assert table[key].to_numpy().tolist() == [[name, seed, UNSEEN, kind] for name, seed in names for kind in KINDS]
    shares = ["itp_accuracy", "ivp_accuracy", "accuracy", "balanced_accuracy", "auc", "constant_accuracy"]
    assert table[shares].stack().between(0, 1).all() and (table["n"] + table["ties"] == 6).all()
    of = dict(iter(table.groupby("model", sort=False)))
    assert (of["nothing"][["itp_accuracy", "ivp_accuracy", "accuracy", "balanced_accuracy"]] == 0.5).all(axis=None)
    assert (of["nothing"]["ilp_loss"] == 0.6931).all() and (of["nothing"]["kendall_tau"] == 0).all()
    assert (of["truth"][["accuracy", "balanced_accuracy"]] == 1.0).all(axis=None) and (of["truth"]["kendall_tau"] == 1).all()
    by_level = of["goal"]["expert_over_random"]
    assert by_level.nunique() == 1 and by_level.iloc[0] == 1.0  # the square of an expert ends at the top, where the goal's is
    measures = ["itp_accuracy", "ivp_accuracy", "ilp_loss", "auc"]
    pd.testing.assert_frame_equal(of["vlp"][of["vlp"]["seed"] == 0][measures], of["vlp"][measures].iloc[:5])
    np.testing.assert_array_equal(of["vlp"][measures].iloc[:5], of["vlp"][measures].iloc[5:])  # alike, on the same orders

    before = config.table.read_bytes()
    monkeypatch.setattr(Data, "judge", lambda *_: pytest.fail("it was measured again"))
    pd.testing.assert_frame_equal(compare.run(config), table)
    assert config.table.read_bytes() == before


def test_resumed_equals_uninterrupted(config, monkeypatch, tmp_path):
    config = replace(config, tasks=(UNSEEN, TRAINED[0]), offline=None, baseline=config.baseline[:1])
    compare.run(config)
    measure, calls = compare.measure, []

    def killed(*args):
        calls.append(args)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return measure(*args)

    again = replace(config, table=tmp_path / "again.csv")
    monkeypatch.setattr(compare, "measure", killed)
    with pytest.raises(KeyboardInterrupt):
        compare.run(again)
    assert len(pd.read_csv(again.table)) == 3 * len(KINDS)
    compare.run(again)
    assert again.table.read_bytes() == config.table.read_bytes() and len(calls) == 4 + 3


def test_rows_of_other_weights_or_settings_are_not_taken_for_it(config, runs, tmp_path):
    config = replace(config, offline=None, baseline=("nothing=constant",), model=(f"vlp={runs / '0'}",))
    compare.run(config)
    with pytest.raises(RoboprefError, match=r"table\.csv: vlp, seed 0 was measured on drawer-close with other weights"):
        compare.run(replace(config, tuples=23))
    trained_again = tmp_path / "again"
    shutil.copytree(runs / "0", trained_again)
    with (trained_again / "model.safetensors").open("ab") as file:
        file.write(b" ")
    with pytest.raises(RoboprefError, match="with other weights"):
        compare.run(replace(config, model=(f"vlp={trained_again}",)))
    settings = replace(config.settings, alpha=0.1)  # which neither depends on
    assert len(compare.run(replace(config, settings=settings))) == 2 * len(KINDS)


def test_names_and_digests_that_look_like_numbers_stay_what_they_are(config, monkeypatch):
    monkeypatch.setattr("robopref.preference.judges._key", lambda parts: "12e4567890123456")
    config = replace(config, offline=None, baseline=("007=constant",), model=())
    assert compare.run(config)["model"].unique().tolist() == ["007"]
    assert len(compare.run(config)) == len(KINDS)


def test_a_foreign_file_is_not_written_over(config):
    config.table.write_text("a,b\n1,2\n")
    with pytest.raises(RoboprefError, match=r"table\.csv: no column kind, made_from, model, seed, task, wording"):
        compare.run(config)
    config.table.write_bytes(b"")
    with pytest.raises(RoboprefError, match=r"table\.csv: not a readable table"):
        compare.run(config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": ("runs/vlp",)}, "--model runs/vlp: write NAME=RUN_FOLDER"),
        ({"baseline": ("constant",)}, "--baseline constant: write NAME=KIND:ENCODER"),
        ({"baseline": ("c=cosin:contrastive:x",)}, "Did you mean 'cosine'"),
        ({"baseline": ("c=cosine",)}, "write NAME=KIND:ENCODER with constant, scripted"),
        ({"baseline": ("c=better-cluster",), "offline": None}, "needs --offline FOLDER"),
        ({"baseline": ("c=motion-shar",)}, "Did you mean 'motion-share'"),
        ({"baseline": ("c=constant:x",)}, "write NAME=KIND:ENCODER"),
        ({"baseline": ("s=scripted",), "episodes": None}, "--baseline s=scripted needs --episodes"),
        ({"baseline": ("a=constant", "a=constant")}, "a comes twice with seed 0"),
        ({"model": (), "baseline": ()}, "neither --model NAME=RUN nor --baseline"),
    ],
)
def test_what_is_mistyped_is_said(config, changes, message):
    with pytest.raises(UsageError, match=message):
        compare.run(replace(config, **changes))


def test_a_model_of_another_view_is_refused(config, banks, tmp_path):
    for name in TASKS:
        shutil.copytree(banks / name, tmp_path / "clips" / name)
        index = pd.read_parquet(tmp_path / "clips" / name / "index.parquet")
        index.assign(camera="topview").to_parquet(tmp_path / "clips" / name / "index.parquet")
    with pytest.raises(RoboprefError, match=r"vlp wants 8 frames a clip from corner2-zoom; .* from topview"):
        compare.run(replace(config, clips=tmp_path / "clips"))


def rows_of(model, kind, values, tasks=SPLITS["paper"].test):
    """Rows of seed 0, 1, ... with (ITP, IVP, ILP) of each seed, the same on every task but for a shift that averages out."""
    shifts = np.linspace(-0.01, 0.01, len(tasks))
    return [
        {"model": model, "kind": kind, "seed": seed, "task": name, "wording": wording, "itp_accuracy": itp + shift,
         "ivp_accuracy": ivp - shift, "ilp_loss": ilp + shift, "accuracy": math.nan}
        for seed, (itp, ivp, ilp) in enumerate(values)
        for name, shift in zip(tasks, shifts, strict=True)
        for wording in KINDS
    ]  # fmt: skip


def test_the_summary_says_what_was_reached():
    table = pd.DataFrame(
        rows_of("vlp", "vlp", [(0.96, 0.92, 0.70), (0.99, 0.92, 0.71)]) + rows_of("truth", "scripted", [(0.9, 0.4, 60.0)])
    )
    lines = summarise(table).splitlines()
    seen = next(line for line in lines if "vlp" in line and "seen" in line)
    assert "0.975 +- 0.021" in seen and "0.705 +- 0.007" in seen  # of .96 and .99: .03 / sqrt 2
    assert "accuracy" not in lines[0]  # nothing was labelled
    assert "vlp, seen: IVP >= 0.917 reached (0.920), ITP >= 0.974 reached (0.975), ILP loss 0.705 (paper 0.705)" in lines
    assert "vlp, phrase: IVP >= 0.905 reached (0.920), ITP >= 0.958 reached (0.975), ILP loss 0.705 (paper 0.704)" in lines
    assert "truth, seen: IVP >= 0.917 missed (0.400), ITP >= 0.974 missed (0.900)" in lines  # a return is no logit
    like = next(number for number, line in enumerate(lines) if "not like with like" in line)
    assert like < lines.index("truth, seen: IVP >= 0.917 missed (0.400), ITP >= 0.974 missed (0.900)")
    assert any("ILP loss has no verdict" in line for line in lines)
    assert any(line.startswith("truth: scores are the true reward a step and no logits") for line in lines)
    assert not any("not the five tasks" in line or "not measured" in line for line in lines)
    assert set(PUBLISHED) == set(KINDS)


def test_the_summary_begins_with_segments_and_says_what_is_cheap():
    rows = rows_of("vlp", "vlp", [(0.96, 0.92, 0.70)]) + rows_of("hand-displacement", "hand-displacement", [(0.956, 0.5, 0.69)])
    table = pd.DataFrame(rows).assign(clear_balanced_accuracy=0.75, balanced_accuracy=0.7, over_cluster=-0.05)
    bit = pd.DataFrame(rows_of("better-cluster", "better-cluster", [(math.nan, math.nan, math.nan)])).assign(
        balanced_accuracy=0.8
    )
    lines = summarise(pd.concat([table, bit])).splitlines()
    heads = ["no near-ties", "balanced acc.", "over cluster bit", "IVP", "ITP", "ILP loss"]
    assert [lines[0].index(head) for head in heads] == sorted(lines[0].index(head) for head in heads)
    assert "ITP says little: without pixels, words or learning hand-displacement 0.956." in lines
    assert not any(line.startswith("better-cluster, seen") for line in lines)  # it orders no whole episode
    assert any(line.startswith("hand-displacement, seen") and "ILP" not in line for line in lines)


def test_motions_order_what_moves(config):
    """The toy banks' hand climbs with the level: displacement tells all levels apart, its path is as long in either half."""
    table = compare.run(replace(config, model=(), baseline=("far=hand-displacement", "early=motion-share", "bit=better-cluster")))
    of = dict(iter(table.groupby("model", sort=False)))
    assert (of["far"]["expert_over_medium"] == 1.0).all() and (of["far"]["itp_accuracy"] > 0.95).all()
    assert (of["bit"]["accuracy"] == of["bit"]["cluster_accuracy"]).all() and of["bit"]["itp_accuracy"].isna().all()
    assert len(of["early"]["balanced_accuracy"].unique()) == 1
    banks = {name: np.load(config.clips / name / "states.npy") for name in TASKS}
    np.save(config.clips / UNSEEN / "states.npy", banks[UNSEEN] + 1)
    try:
        with pytest.raises(RoboprefError, match="or by an older edition of this command"):
            compare.run(replace(config, model=(), baseline=("far=hand-displacement",)))
    finally:
        np.save(config.clips / UNSEEN / "states.npy", banks[UNSEEN])


def test_the_summary_warns_of_other_tasks_and_of_missing_ones():
    table = pd.DataFrame(rows_of("vlp", "vlp", [(0.9, 0.9, 0.7)] * 2, ("reach", "push", "soccer")))
    table = table[(table["seed"] == 0) | (table["task"] != "push")]
    text = summarise(table)
    assert "Measured on push, reach, soccer: not the five tasks" in text
    assert "vlp, seed 1 is not measured on push" in text


def test_the_command_prints_the_summary(config, capsys):
    argv = [str(config.table), "--clips", str(config.clips), "--tasks", UNSEEN, "--others", *TASKS, "--tuples", "8"]
    argv += ["--work", str(config.work), "--threads", "1", "--baseline", "nothing=constant", "--summary"]
    compare.main(argv)
    said = capsys.readouterr().out
    assert f"nothing, seed 0, {UNSEEN}: seen ivp_accuracy 0.500, itp_accuracy 0.500" in said
    compare.main([str(config.table), "--summary"])  # a table alone is enough
    assert "nothing, seen: IVP >= 0.917 missed (0.500), ITP >= 0.974 missed (0.500)" in capsys.readouterr().out
    assert Path(config.table).exists()


def test_a_mistake_on_the_command_line_is_one_line(tmp_path):
    command = [sys.executable, "-m", "robopref.preference.compare", str(tmp_path / "table.csv"), "--baseline", "a=cosin:small:b"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.startswith("error: --baseline a=cosin:small:b") and done.stderr.count("\n") == 1
