"""The table of labellers and policies: rows with everything in them, nothing done twice, nothing mixed up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from toy_bank import make_banks

from robopref.configs.baselines import ContrastiveConfig
from robopref.configs.errors import RoboprefError
from robopref.configs.files import read_json, write_json
from robopref.configs.policy import CPLConfig
from robopref.datasets.preferences import AGREEMENT, side_folder
from robopref.embodied.tasks import SPLITS
from robopref.policies import downstream
from robopref.policies.benchmarks.annotate import untrained_vlp
from robopref.preference.baselines import train as contrastive
from robopref.preference.small import SmallBackbone, SmallConfig, SmallEncoder

TINY = (
    "offline.episodes=2", "offline.max_steps=80", "goals=2", "max_steps=30", "policy_seeds=[0,1]", "annotate.pairs=10",
    "bc.steps=4", "piql.steps=3", "piql.reward_steps=2", "ipl.steps=4", "cpl.steps=3", "cpl.clone_steps=2",
)  # fmt: skip
POLICIES = {"bc", "piql", "ipl", "cpl", "cpl_kl", "dpo"}


def command(tmp_path: Path, *more: str) -> list[str]:
    where = ["--out", str(tmp_path / "table.csv"), "--work", str(tmp_path / "work"), "--processes", "1"]
    return [*where, "--tasks", "door-close", "--set", *TINY, *more]


@pytest.mark.timeout(400)
def test_from_nothing_to_a_table_and_again(tmp_path, capsys, monkeypatch):
    vlp = untrained_vlp(tmp_path / "vlp")
    scripted, with_vlp = command(tmp_path), [*command(tmp_path), "--model", f"mine={vlp}"]

    # Killed in the middle: what is finished stands in the table.
    finished, run_cell = [], downstream.run_cell

    def killed(*job):
        if len(finished) == 3:
            raise KeyboardInterrupt
        finished.append(job[1])
        return run_cell(*job)

    monkeypatch.setattr(downstream, "run_cell", killed)
    with pytest.raises(KeyboardInterrupt):
        downstream.main(scripted)
    assert len(pd.read_csv(tmp_path / "table.csv")) == 3 * 2
    monkeypatch.setattr(downstream, "run_cell", run_cell)
    trained = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("model.safetensors")}
    downstream.main(scripted)
    downstream.main(with_vlp)
    assert trained == {path: path.stat().st_mtime_ns for path in trained}

    rows = pd.read_csv(tmp_path / "table.csv")
    assert len(rows) == (1 + 5 + 5) * 2  # bc once, five policies from either labeller; two policy seeds
    assert set(rows["policy"]) == POLICIES and set(rows["policy_seed"]) == {0, 1}
    assert set(rows.loc[rows["policy"] == "bc", "labeller"]) == {"none"}
    assert set(rows["labeller"]) == {"none", "scripted", "mine"} and rows["success"].between(0, 1).all()
    own = rows[(rows["labeller"] == "mine") & (rows["policy"] == "dpo")].iloc[0]
    labels = tmp_path / "work" / "labels-0" / "hard" / "mine" / "door-close"
    assert own["kendall_tau"] == pytest.approx(
        read_json(side_folder(labels.with_suffix(".parquet")) / AGREEMENT)["kendall_tau"], abs=1e-4
    )
    assert (own["pairs"], own["episodes"], own["updates"], own["goals"], own["hidden"]) == (10, 8, 5, 2, "128x128")
    assert rows.loc[rows["labeller"] == "scripted", "accuracy"].eq(1).all()
    same = ["episode_a", "start_a", "episode_b", "start_b"]
    ours, theirs = (pd.read_parquet(labels.parents[1] / name / "door-close.parquet")[same] for name in ("mine", "scripted"))
    pd.testing.assert_frame_equal(ours, theirs)
    assert "open: these are not the paper's test tasks" in capsys.readouterr().out

    before = (tmp_path / "table.csv").read_bytes()
    for name in ("run_cell", "label"):
        monkeypatch.setattr(downstream, name, lambda *job: pytest.fail("it was done again"))
    downstream.main(with_vlp)
    downstream.main(["--out", str(tmp_path / "table.csv"), "--summary"])
    assert (tmp_path / "table.csv").read_bytes() == before
    with pytest.raises(RoboprefError, match="piql from labels of scripted on door-close was made with other settings"):
        downstream.main([*scripted[:-1], "cpl.clone_steps=2", "piql.discount=0.5"])


def test_the_command_works_with_several_processes_and_says_what_is_wrong_in_a_line(tmp_path):
    words = [*command(tmp_path), "--processes", "2", "--policies", "bc", "cpl"]
    run = [sys.executable, "-m", "robopref.policies.downstream"]
    done = subprocess.run([*run, *words], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert len(pd.read_csv(tmp_path / "table.csv")) == 2 * 2
    failed = subprocess.run([*run, *words, "--model", "mine"], capture_output=True, text=True, timeout=60)
    assert failed.returncode == 1 and failed.stderr.startswith("error: --model mine: write NAME=RUN_FOLDER")


def test_a_baseline_labels_like_a_model(tmp_path):
    tasks, small = ("drawer-open", "door-open", "window-close"), tmp_path / "small"
    SmallBackbone.save(small, SmallEncoder(SmallConfig(width=8, features=16, keypoints=4)))
    clips = make_banks(tmp_path / "clips", tasks)
    training = ContrastiveConfig(clips, tmp_path / "space", f"small:{small}", tasks, steps=1, hidden=8, dim=4, device="cpu")
    (space,) = contrastive.run(training)
    downstream.main([*command(tmp_path), "--policies", "cpl", "--baseline", f"likeness=cosine:contrastive:{space}"])
    rows = pd.read_csv(tmp_path / "table.csv")
    assert set(rows["labeller"]) == {"scripted", "likeness"}
    labels = tmp_path / "work" / "labels-0" / "hard" / "likeness" / "door-close.parquet"
    assert set(pd.read_parquet(labels)["labeller"]) == {"cosine"}

    settings = read_json(space / "config.json")
    settings["config"]["tasks"] = ["door-close"]
    write_json(space / "config.json", settings)
    for given, complaint in (
        ("a=cosine", r"needs --baseline\.encoder"),
        ("a=goal-image:small:x", "KIND:ENCODER with cosine, vlm-rm, roboclip"),
        ("a=better-cluster:x", "NAME=KIND with better-cluster, hand-displacement, motion-share"),
        ("scripted=cosine:contrastive:x", "not scripted or none"),
        (f"a=cosine:contrastive:{space}", "it was trained on door-close"),
    ):
        with pytest.raises(RoboprefError, match=complaint):
            downstream.main([*command(tmp_path), "--baseline", given])


def test_the_better_cluster_labels_every_pair_by_one_bit(tmp_path):
    """The control for a VLP: policies from labels that know nothing but which of the two clusters has the better segments."""
    downstream.main([*command(tmp_path), "--policies", "cpl", "--baseline", "bit=better-cluster", "hand=hand-displacement"])
    rows = pd.read_csv(tmp_path / "table.csv")
    assert rows.groupby("labeller").size().to_dict() == {"scripted": 2, "bit": 2, "hand": 2}
    bit = rows[rows["labeller"] == "bit"]
    np.testing.assert_array_equal(bit["accuracy"], bit["cluster_accuracy"])
    folder = tmp_path / "work" / "labels-0" / "hard"
    table, hand = (pd.read_parquet(folder / name / "door-close.parquet") for name in ("bit", "hand"))
    assert set(table["labeller"]) == {"better-cluster"} and set(hand["labeller"]) == {"hand-displacement"}
    better = np.where(table["label"] == 1, table["episode_b"], table["episode_a"])  # no episode is in both clusters
    worse = np.where(table["label"] == 1, table["episode_a"], table["episode_b"])
    assert set(table["label"]) == {0.0, 1.0} and not set(better) & set(worse)


def test_soft_labels_are_other_rows_than_hard_ones(tmp_path):
    bare = (*command(tmp_path), "--policies", "cpl", "--model", f"mine={untrained_vlp(tmp_path / 'vlp')}")
    for soft in ((), ("--soft",)):
        downstream.main([*bare, *soft])
    rows = pd.read_csv(tmp_path / "table.csv")
    assert rows.groupby("labels").size().to_dict() == {"hard": 4, "soft": 4}
    hard, soft = (
        pd.read_parquet(tmp_path / "work" / "labels-0" / kind / "mine" / "door-close.parquet")["label"]
        for kind in ("hard", "soft")
    )
    assert set(hard) <= {0.0, 0.5, 1.0} and not set(soft) <= {0.0, 0.5, 1.0}
    np.testing.assert_array_equal(hard > 0.5, soft > 0.5)


def test_cpl_kl_and_dpo_differ_from_cpl_as_in_the_papers_files():
    paper = downstream.settings_of(downstream.DownstreamConfig(out=Path("x.csv"), set=("scale=paper",)), 0)
    assert downstream.policy_settings(paper, "cpl") == CPLConfig()
    assert downstream.policy_settings(paper, "cpl_kl") == CPLConfig(alpha=0.2, bias=0.75, reference=True)
    assert downstream.policy_settings(paper, "dpo") == CPLConfig(alpha=0.2, bias=1.0, reference=True)
    protocol = downstream.settings_of(downstream.DownstreamConfig(out=Path("x.csv")), 3)
    assert (protocol.annotate.pairs, protocol.annotate.pairing, protocol.annotate.segment_length) == (100, "clusters", 50)
    assert protocol.policy_seeds == (0, 1, 2, 3, 4) and protocol.seed == 3 and protocol.annotate.hard


def table(success: dict[tuple[str, str], float], tasks: tuple[str, ...]) -> pd.DataFrame:
    """Rows in which policy seed m is m points above or below what `success` says, so that means are as given."""
    rows = [
        {"task": task, "seed": 0, "labels": "hard", "labeller": labeller, "policy": policy, "policy_seed": m, "success": s + d}
        for (labeller, policy), s in success.items()
        for task in tasks
        for m, d in enumerate((-0.02, -0.01, 0.0, 0.01, 0.02))
    ]
    measures = {"accuracy": 0.9, "balanced_accuracy": 0.8, "kendall_tau": 0.5, "constant_accuracy": 0.7, "cluster_accuracy": 0.85}
    return pd.DataFrame(rows).assign(**measures)


def test_the_summary_says_which_targets_are_reached():
    success = {("scripted", "piql"): 0.6, ("mine", "piql"): 0.72, ("mine", "ipl"): 0.5, ("scripted", "ipl"): 0.55}
    said = downstream.summary(table(success | {("mine", "dpo"): 0.9}, SPLITS["paper"].test))
    assert "mine, piql: 72.0 of 71.0 (VLP's paper): reached" in said
    assert "mine, piql: 72.0 of 60.0 (not below scripted labels): reached" in said
    assert "mine, ipl: 50.0 of 57.5 (VLP's paper): missed" in said
    assert "mine, ipl: 50.0 of 55.0 (not below scripted labels): missed" in said
    assert "dpo: 90.0 of" not in said
    assert "hard mine 0.900 0.700 0.850 0.800 0.500 5" in " ".join(said.split())
    line = next(line for line in said.splitlines() if "mine" in line and "dpo" in line).split()
    assert line[3:5] == ["90.0", "90.0"] and line[5:] == ["one,", "no", "spread", "5", "1", "5"]
    assert "open" in downstream.summary(table(success, ("reach",)))
    assert downstream.summary(table({}, ())) == "no rows yet"


def test_the_unit_of_success_is_the_data_seed():
    test = SPLITS["paper"].test
    parts = [
        table({("scripted", "piql"): truth, ("mine", "piql"): ours}, test).assign(seed=seed)
        for seed, (truth, ours) in enumerate([(0.6, 0.5), (0.8, 0.7), (0.7, 0.75)])
    ]
    said = downstream.summary(pd.concat(parts))
    line = next(line for line in said.splitlines() if line.startswith("hard    mine") and "piql" in line).split()
    assert line[3:] == ["65.0", "65.0", "range", "[50.0,", "75.0]", "5", "3", "5"], "not the spread of 15 policies"
    (verdict,) = [line for line in said.splitlines() if "mine, piql" in line and "scripted labels" in line]
    assert verdict.endswith("missed; difference -5.0 [-10.0, +5.0], range over 3 data seeds, not told apart")
    parts[2] = table({("scripted", "piql"): 0.7, ("mine", "piql"): 0.65}, test).assign(seed=2)
    assert "-8.3 [-10.0, -5.0], range over 3 data seeds, below on all sets" in downstream.summary(pd.concat(parts))


def test_scripted_labels_are_averaged_over_the_labellers_own_seeds():
    test = SPLITS["paper"].test
    first = table({("scripted", "piql"): 0.6, ("mine", "piql"): 0.7}, test)
    second = table({("scripted", "piql"): 0.9}, test).assign(seed=1)
    assert "mine, piql: 70.0 of 60.0 (not below scripted labels): reached" in downstream.summary(pd.concat([first, second]))
    third = table({("mine", "piql"): 0.7}, test).assign(seed=2)  # of which scripted has none
    assert "scripted labels)" not in downstream.summary(pd.concat([first, second, third]))


def test_what_is_mistyped_is_named(tmp_path):
    bare = ["--out", str(tmp_path / "table.csv")]
    with pytest.raises(RoboprefError, match=r"--policies cpl-kl: one of .* Did you mean 'cpl_kl'"):
        downstream.main([*bare, "--policies", "cpl-kl"])
    for word in ("runs/vlp", "scripted=runs/vlp"):
        with pytest.raises(RoboprefError, match=f"--model {word}: write NAME=RUN_FOLDER"):
            downstream.main([*bare, "--model", word])
    with pytest.raises(RoboprefError, match="no model in nowhere"):
        downstream.main([*bare, "--model", "a=nowhere"])
    (tmp_path / "table.csv").write_text("task,seed\nreach,0\n")
    with pytest.raises(RoboprefError, match=r"table.csv: it has no column .*policy"):
        downstream.main([*bare, "--summary"])


def test_a_model_that_has_seen_the_task_is_refused(tmp_path):
    (tmp_path / "model.safetensors").touch()
    write_json(tmp_path / "config.json", {"config": {"tasks": ["paper:train", "door-close"]}})
    with pytest.raises(RoboprefError, match="it was trained on door-close"):
        downstream.main(["--out", str(tmp_path / "table.csv"), "--model", f"a={tmp_path}"])
