from __future__ import annotations

import dataclasses
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from robopref.configs.checkpoint import load_model
from robopref.configs.cli import main as robopref
from robopref.configs.errors import RoboprefError, UsageError
from robopref.configs.files import digest
from robopref.configs.hydra import compose, to_dataclass
from robopref.configs.policy import BCConfig, CPLConfig, IPLConfig, IQLConfig, PIQLConfig, PolicyConfig, TrainConfig
from robopref.configs.run import choose_device
from robopref.configs.stopping import Terminated
from robopref.datasets.episodes import write_episodes
from robopref.datasets.preferences import COLUMNS, Origin, write_preferences
from robopref.embodied.rollout import Episode
from robopref.policies import train
from robopref.policies.bc import BC
from robopref.policies.networks import load_policy
from robopref.preference.reward import LearnedReward

NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
STEPS = 20
SMALL = {"hidden": (8, 8), "batch": 8}
POLICIES: dict[str, PolicyConfig] = {
    "bc": BCConfig(**SMALL, steps=12),
    "iql": IQLConfig(**SMALL, steps=12, actor="gaussian"),
    "piql": PIQLConfig(**SMALL, steps=8, reward_steps=4, pairs=4),
    "piql-late": PIQLConfig(**SMALL, steps=4, reward_steps=8, pairs=4),
    "ipl": IPLConfig(**SMALL, steps=12, pairs=4, segment_steps=5, dropout=0.25, actor_cosine=True),
    "cpl": CPLConfig(**SMALL, clone_steps=4, steps=8, pairs=4, segment_steps=5),
    "cpl-kl-late": CPLConfig(**SMALL, clone_steps=6, steps=6, pairs=4, reference=True),
}


def made_up_episode(rng: np.random.Generator) -> Episode:
    return Episode(
        observations=rng.normal(size=(STEPS + 1, 39)),
        actions=rng.uniform(-1, 1, (STEPS, 4)).astype(np.float32),
        rewards=rng.normal(size=STEPS),
        success=np.zeros(STEPS, bool),
        near_object=np.zeros(STEPS),
        sim_dynamic=np.zeros((STEPS + 1, 2)),
        sim_static=np.zeros(1),
        env_id="metaworld/drawer-close",
        level="random",
        seed=0,
        policy="made up",
    )


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An episode dataset and labels of its segments."""
    folder, rng = tmp_path_factory.mktemp("inputs"), np.random.default_rng(0)
    write_episodes(folder / "data", "metaworld/drawer-close", [made_up_episode(rng) for _ in range(4)], {})
    write_preferences(folder / "labels.parquet", labels(rng))
    return folder / "data", folder / "labels.parquet"


def labels(rng: np.random.Generator, **changes: object) -> pd.DataFrame:
    rows = []
    for number in range(6):
        a, b = rng.permutation(4)[:2]
        clips = {"episode_a": a, "start_a": 2, "stop_a": 12, "episode_b": b, "start_b": 5, "stop_b": 15}
        row = dict.fromkeys(COLUMNS) | clips | {"label": float(rng.random()), "pair_id": number} | changes
        rows.append(
            row | {"kind": "segment", "task": "drawer-close", "instruction": "close it", "labeller": "test", "split": "train"}
        )
    return pd.DataFrame(rows)


def settings(inputs: tuple[Path, Path], out: Path, name: str, **changes: object) -> TrainConfig:
    labels = None if name in ("bc", "iql") else inputs[1]
    config = TrainConfig(out, inputs[0], POLICIES[name], labels, seeds=(0, 1), log_every=3, checkpoint_every=5, device="cpu")
    return dataclasses.replace(config, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "device"), [*((name, "cpu") for name in POLICIES), pytest.param("cpl", "cuda", marks=[pytest.mark.gpu, NEEDS_GPU])]
)
def test_killed_and_continued_is_the_same_as_uninterrupted(
    inputs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, device: str
) -> None:
    whole = train.run(settings(inputs, tmp_path / "whole", name, device=device))

    def killed(*args: object) -> None:
        save_checkpoint(*args)
        raise KeyboardInterrupt

    config, save_checkpoint = settings(inputs, tmp_path / "parts", name, device=device), train.save_checkpoint
    for _ in range(2):  # at step 5 and, continued from there, at step 10
        monkeypatch.setattr(train, "save_checkpoint", killed)
        with pytest.raises(KeyboardInterrupt):
            train.run(config)
        torch.manual_seed(99)  # nothing may hang on global state
    monkeypatch.setattr(train, "save_checkpoint", save_checkpoint)
    parts = train.run(config)

    models = [load_model(folder, "policy")[0] for folder in (whole, parts)]
    assert models[0].keys() == models[1].keys()
    for key, tensor in models[0].items():
        assert torch.equal(tensor, models[1][key]), key
    logs = [pd.read_csv(folder / "metrics.csv").drop(columns="charts/updates_per_second") for folder in (whole, parts)]
    pd.testing.assert_frame_equal(*logs)
    assert logs[0]["step"].tolist() == [3, 6, 9, 12]
    assert not (parts / "checkpoint.safetensors").exists()


def test_a_terminated_run_keeps_the_step_it_was_in(
    inputs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, update = settings(inputs, tmp_path / "stopped", "bc", checkpoint_every=1000), BC.update

    def stopped(self: BC, step: int, *rest: object) -> object:
        if step == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        return update(self, step, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(BC, "update", stopped)
    with pytest.raises(Terminated, match=r"step 7 of 12 is kept in .*stopped/checkpoint\.safetensors"):
        train.run(config)
    monkeypatch.setattr(BC, "update", update)
    whole = train.run(settings(inputs, tmp_path / "whole", "bc"))
    assert (train.run(config) / "model.safetensors").read_bytes()[-1000:] == (whole / "model.safetensors").read_bytes()[-1000:]


@pytest.mark.parametrize("name", ["piql", "cpl"])
def test_pairs_without_a_label_teach_nothing(inputs: tuple[Path, Path], tmp_path: Path, name: str) -> None:
    """Trained from a file with abstentions, a policy is the one trained from a file without those pairs, to the bit."""
    table = labels(np.random.default_rng(0))
    abstained = np.array([False, True, False, False, True, False])
    write_preferences(tmp_path / "few.parquet", table[~abstained])
    marked = table.assign(abstained=abstained, label=table["label"].mask(abstained, 0.5))
    write_preferences(tmp_path / "marked.parquet", marked)
    write_preferences(tmp_path / "ties.parquet", marked.drop(columns="abstained"))
    few, marked, ties = (
        load_model(train.run(settings(inputs, tmp_path / file, name, labels=tmp_path / f"{file}.parquet")), "policy")[0]
        for file in ("few", "marked", "ties")
    )
    for key, tensor in few.items():
        assert torch.equal(tensor, marked[key]), key
    assert not all(torch.equal(tensor, ties[key]) for key, tensor in few.items())


def test_a_finished_run_is_kept_and_other_settings_are_refused_or_replace_it(inputs: tuple[Path, Path], tmp_path: Path) -> None:
    config = settings(inputs, tmp_path / "out", "bc")
    model = train.run(config) / "model.safetensors"
    before = model.stat().st_mtime_ns
    train.run(config)
    assert model.stat().st_mtime_ns == before
    other = dataclasses.replace(config, seeds=(0, 1, 2))
    with pytest.raises(RoboprefError, match=r"other settings \(seeds=\[.*\] there, \[0, 1, 2\] asked for\): choose another out="):
        train.run(other)
    assert model.stat().st_mtime_ns == before and (tmp_path / "out" / "manifest.json").exists()
    train.run(dataclasses.replace(other, overwrite=True))
    assert load_model(tmp_path / "out", "policy")[1]["seeds"] == [0, 1, 2]


def test_a_checkpoint_of_other_settings_is_not_continued(
    inputs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise RoboprefError("disk full")

    config = settings(inputs, tmp_path / "out", "bc")
    monkeypatch.setattr(train, "save", full)
    with pytest.raises(RoboprefError, match="disk full"):
        train.run(config)
    assert not (tmp_path / "out" / "manifest.json").exists()
    other = dataclasses.replace(config, policy=dataclasses.replace(POLICIES["bc"], learning_rate=0.5))
    with pytest.raises(RoboprefError, match=r"learning_rate=.* there, 0.5 asked for.*choose another out="):
        train.run(other)


def test_members_can_be_loaded_and_p_iql_leaves_its_reward(inputs: tuple[Path, Path], tmp_path: Path) -> None:
    out = train.run(settings(inputs, tmp_path / "out", "piql"))
    obs = np.random.default_rng(0).normal(size=(3, 39))
    actions = [load_policy(out, member).act(obs) for member in range(2)]
    assert actions[0].shape == (3, 4)
    assert not np.allclose(*actions)
    assert LearnedReward(out / "reward", 1)(obs, actions[1], obs).shape == (3,)


def test_seeds_are_members_wherever_they_stand(inputs: tuple[Path, Path], tmp_path: Path) -> None:
    obs = np.random.default_rng(0).normal(size=(3, 39))
    together = train.run(settings(inputs, tmp_path / "together", "cpl", seeds=(4, 7)))
    alone = train.run(settings(inputs, tmp_path / "alone", "cpl", seeds=(7,)))
    np.testing.assert_allclose(load_policy(together, 1).act(obs), load_policy(alone, 0).act(obs), atol=1e-5)


def test_preferences_are_asked_for(inputs: tuple[Path, Path], tmp_path: Path) -> None:
    for name in ("piql", "ipl", "cpl"):
        with pytest.raises(RoboprefError, match="give labels=FILE"):
            train.run(settings(inputs, tmp_path / "out", name, labels=None))


@pytest.mark.parametrize("name", ["bc", "iql"])
def test_labels_that_a_policy_does_not_read_are_refused(name: str, inputs: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=rf"policy={name} .* labels=.*labels.parquet would change nothing: leave it out, or take"
    ):
        train.run(settings(inputs, tmp_path / "out", name, labels=inputs[1]))
    assert not (tmp_path / "out").exists()


def test_labels_of_other_episodes_are_refused(inputs: tuple[Path, Path], tmp_path: Path) -> None:
    path = tmp_path / "labels.parquet"
    write_preferences(path, labels(np.random.default_rng(0), episode_b=9))
    with pytest.raises(RoboprefError, match=rf"{path}: episode 9 is not in .*data \(0 to 3\)"):
        train.run(settings(inputs, tmp_path / "out", "cpl", labels=path))
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_a_diverged_loss_stops_the_run(inputs: tuple[Path, Path], tmp_path: Path) -> None:
    wild = dataclasses.replace(POLICIES["iql"], learning_rate=1e30)
    with pytest.raises(RoboprefError, match="lower learning rate"):
        train.run(settings(inputs, tmp_path / "out", "bc", policy=wild))
    assert not (tmp_path / "out" / "model.safetensors").exists()


@pytest.mark.gpu
@NEEDS_GPU
@pytest.mark.parametrize("name", ["iql", "piql", "ipl", "cpl-kl-late"])
def test_a_gpu_computes_what_a_processor_does(inputs: tuple[Path, Path], tmp_path: Path, name: str) -> None:
    obs = np.random.default_rng(0).normal(size=(3, 39))
    policy = dataclasses.replace(POLICIES[name], dropout=0.0)  # whose masks differ
    folders = [train.run(settings(inputs, tmp_path / device, name, policy=policy, device=device)) for device in ("cpu", "cuda")]
    np.testing.assert_allclose(*[load_policy(folder).act(obs) for folder in folders], atol=1e-3)


@pytest.mark.parametrize("seeds", [(), (0, -1)])
def test_seeds_must_be_there_and_not_negative(inputs: tuple[Path, Path], tmp_path: Path, seeds: tuple[int, ...]) -> None:
    with pytest.raises(RoboprefError, match="from 0 on"):
        train.run(settings(inputs, tmp_path / "out", "bc", seeds=seeds))


def test_a_gpu_that_is_not_there_is_an_error() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert choose_device("auto").type == "cpu"
    with pytest.raises(RoboprefError, match=r"device=cuda is not there: use auto or one of this machine's, cpu$"):
        choose_device("cuda")


def test_the_command_trains(inputs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["train", "policy=cpl", f"data={inputs[0]}", f"labels={inputs[1]}", f"out={tmp_path / 'out'}", "seeds=[3]"]
    argv += ["policy.hidden=[8]", "policy.clone_steps=2", "policy.steps=3", "policy.pairs=4", "device=cpu"]
    assert robopref(argv) == 0
    out = tmp_path / "out"
    said = f"{out}: cpl, seed 3; next: robopref evaluate --policy {out} --out {out / 'evaluation'}\n"
    assert capsys.readouterr().out == said
    assert load_policy(tmp_path / "out").obs_dim == 39


def test_a_mistyped_key_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert robopref(["train", "policy=bc", "policy.hiden=[8]"]) == 2
    assert "policy.hidden" in capsys.readouterr().err
    assert robopref(["train", "policy=ppiql"]) == 2
    assert "piql" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("bc", BCConfig()),
        ("iql", IQLConfig()),
        ("piql", PIQLConfig()),
        ("ipl", IPLConfig()),
        ("cpl", CPLConfig()),
        ("cpl_kl", CPLConfig(alpha=0.2, bias=0.75, reference=True)),
        ("dpo", CPLConfig(alpha=0.2, bias=1.0, reference=True)),
    ],
)
def test_the_files_and_the_dataclasses_have_the_same_defaults(name: str, config: PolicyConfig) -> None:
    assert to_dataclass(TrainConfig, compose("train", [f"policy={name}"])).policy == config


def test_a_policy_without_a_known_name_is_refused() -> None:
    with pytest.raises(UsageError, match=r"policy.name=piq.*Did you mean 'piql'"):
        to_dataclass(TrainConfig, compose("train", ["policy.name=piq"]))


def test_labels_teach_only_on_the_data_that_they_are_about(inputs: tuple[Path, Path], tmp_path: Path) -> None:
    data, _ = inputs
    rng = np.random.default_rng(1)
    write_episodes(tmp_path / "same-task", "metaworld/drawer-close", [made_up_episode(rng) for _ in range(4)], {})
    write_episodes(tmp_path / "door", "metaworld/door-open", [made_up_episode(rng) for _ in range(4)], {})
    rows = labels(rng)
    origin = Origin("scripted", "close the drawer", dataset=digest(data), env_id="metaworld/drawer-close")
    write_preferences(tmp_path / "told.parquet", rows, origin)
    write_preferences(tmp_path / "silent.parquet", rows.assign(task="drawer-close"))
    write_preferences(tmp_path / "nameless.parquet", rows.assign(task=""))
    for file, where, message in (
        ("told", "same-task", r"another dataset, of metaworld/drawer-close, with other episodes"),
        (
            "told",
            "door",
            r"told\.parquet: its labels are about another dataset, of metaworld/drawer-close, and .*door is of metaworld",
        ),
        ("silent", "door", r"silent\.parquet: its labels are about episodes of drawer-close"),
    ):
        config = settings((tmp_path / where, tmp_path / f"{file}.parquet"), tmp_path / "out", "cpl")
        with pytest.raises(RoboprefError, match=message):
            train.run(config)
        assert not config.out.exists()
    shutil.copytree(data, tmp_path / "moved")  # the same episodes, somewhere else
    for file, where in (("told", "moved"), ("silent", "same-task"), ("nameless", "door")):
        out = train.run(settings((tmp_path / where, tmp_path / f"{file}.parquet"), tmp_path / f"{file}-{where}", "cpl"))
        assert load_model(out, "policy")[1]["env"] == f"metaworld/{'door-open' if where == 'door' else 'drawer-close'}"
