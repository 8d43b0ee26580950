"""Pre-training and VLP training: they learn, repeat, and an interrupted run ends where an uninterrupted one does."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file
from toy_bank import make_banks

from robopref.configs.checkpoint import load_model, save_model, save_tensors
from robopref.configs.errors import RoboprefError
from robopref.configs.files import read_json
from robopref.configs.vlp import ModelConfig, OrdersConfig, PretrainConfig, TrainVLPConfig
from robopref.datasets.clips import FrameBank
from robopref.preference import pretrain, small, train
from robopref.preference import vlp as vlp_module
from robopref.preference.generalisation import generalisation
from robopref.preference.pretrain import PartLesson
from robopref.preference.ranks import Ranks
from robopref.preference.small import SmallBackbone
from robopref.preference.vlp import VLPScorer

TASKS = ("drawer-open", "door-open", "window-close")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return make_banks(tmp_path_factory.mktemp("clips"), TASKS)


@pytest.fixture(scope="module")
def pretraining(clips, tmp_path_factory):
    out = tmp_path_factory.mktemp("backbone")
    return PretrainConfig(
        clips=clips,
        out=out,
        tasks=TASKS,
        steps=150,
        batch=32,
        lr=3e-3,
        width=8,
        features=32,
        keypoints=8,
        threads=1,
        log_every=10,
    )


@pytest.fixture(scope="module")
def backbone(pretraining):
    return pretrain.run(pretraining)


@pytest.fixture(scope="module")
def training(clips, backbone, tmp_path_factory):
    return TrainVLPConfig(
        clips=clips,
        out=tmp_path_factory.mktemp("vlp"),
        backbone=f"small:{backbone}",
        tasks=TASKS,
        model=ModelConfig(dim=32, heads=2, layers=1, hidden=(32, 16)),
        steps=80,
        warmup=10,
        batch=16,
        lr=2e-3,
        threads=1,
        log_every=10,
    )


@pytest.fixture(scope="module")
def vlp(training):
    return train.run(training)


@pytest.fixture(scope="module")
def factoring(clips, pretraining, training, tmp_path_factory):
    backbone = pretrain.run(replace(pretraining, out=tmp_path_factory.mktemp("scene"), scene=True))
    return replace(
        training,
        out=tmp_path_factory.mktemp("factored"),
        backbone=f"small:{backbone}",
        model=ModelConfig(architecture="factored", dim=32, heads=2, layers=1),
        orders=OrdersConfig(prefix_share=0.5, later_share=0.25, reversed_share=0.5),
        lr=5e-3,
    )


@pytest.fixture(scope="module")
def factored(factoring):
    return train.run(factoring)


def weights(folder):
    return load_file(folder / "model.safetensors")


def assert_same(one, two):
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        np.testing.assert_array_equal(tensor, two[name], err_msg=name)


class Killed(Exception):
    """Stands for a kill: raised between two steps."""


def kill_after(monkeypatch, module, steps):
    """Let `module`'s learning-rate schedule, called once a step, raise at a step."""
    schedule = module.schedule

    def counted(step, *args):
        if step > steps:
            raise Killed
        return schedule(step, *args)

    monkeypatch.setattr(module, "schedule", counted)


def test_pretraining_learns_to_see_the_state(backbone):
    metrics = pd.read_csv(backbone / "metrics.csv")
    assert metrics["losses/state"].iloc[-1] < 0.5 * metrics["losses/state"].iloc[0]
    error = metrics["eval/state_error_sd"].dropna()
    assert error.iloc[-1] < 0.4  # of a standard deviation, on episodes kept aside; the mean alone would score about 0.8


@pytest.mark.parametrize("stage", ["pretrain", "train-vlp", "train-vlp factored"])
def test_resumed_equals_uninterrupted(stage, request, tmp_path, monkeypatch):
    settings, done = {
        "pretrain": ("pretraining", "backbone"),
        "train-vlp": ("training", "vlp"),
        "train-vlp factored": ("factoring", "factored"),
    }[stage]
    module, whole = pretrain if stage == "pretrain" else train, request.getfixturevalue(done)
    config = replace(request.getfixturevalue(settings), out=tmp_path / "again", checkpoint_every=20)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, module, 33)
        module.run(config)
    assert not (config.out / "model.safetensors").exists() and (config.out / "checkpoint.safetensors").exists()
    module.run(config)
    assert_same(weights(whole), weights(config.out))
    timeless = [name for name in pd.read_csv(whole / "metrics.csv") if not name.startswith("charts/")]
    pd.testing.assert_frame_equal(pd.read_csv(whole / "metrics.csv")[timeless], pd.read_csv(config.out / "metrics.csv")[timeless])


def test_two_processes_follow_the_loss_curve_of_one(training, tmp_path):
    """Lightning Fabric, gloo: every process takes half of each batch.  Noise and dropout are off: their draws differ."""
    settings = [
        f"clips={training.clips}", f"backbone={training.backbone}", f"tasks=[{','.join(TASKS)}]", "steps=8", "warmup=2",
        "batch=16", "lr=2e-3", "model.dim=32", "model.heads=2", "model.layers=1", "model.hidden=[32,16]", "model.dropout=0",
        "feature_noise=0", "threads=1", "log_every=1", "checkpoint_every=5", "device=cpu",
    ]  # fmt: skip
    script = tmp_path / "robopref"  # Fabric starts the second process by this process's own command line
    script.write_text("import sys\nfrom robopref.configs.cli import main\nsys.exit(main())\n")
    command = [sys.executable, str(script), "train-vlp", *settings]
    for devices in (1, 2):
        done = subprocess.run(
            [*command, f"devices={devices}", f"out={tmp_path / str(devices)}"], capture_output=True, text=True, timeout=200
        )
        assert done.returncode == 0, done.stderr
    one, two = (pd.read_csv(tmp_path / str(devices) / "metrics.csv") for devices in (1, 2))
    losses = [name for name in one if name.startswith("losses/")]
    assert two["step"].tolist() == list(range(1, 9))
    # Not the weights: where a gradient is all but zero, Adam makes a full step of the sign that rounding gave it.
    np.testing.assert_allclose(one[losses], two[losses], atol=1e-4)


def test_settings_of_several_processes_are_checked():
    with pytest.raises(RoboprefError, match="devices=0 num_nodes=1: both must be at least 1"):
        Ranks("cpu", devices=0)
    if not torch.cuda.is_available():
        with pytest.raises(RoboprefError, match="device=cuda is not there: use auto or one of this machine's, cpu"):
            Ranks("cuda", devices=2)
    alone = Ranks("cpu")
    grads = [torch.ones(3)]
    alone.average(grads), alone.wait()
    assert alone.first and [1, 2, 3][alone.share] == [1, 2, 3] and grads[0].tolist() == [1, 1, 1]


@pytest.mark.parametrize("stage", ["pretraining", "training", "factoring"])
def test_a_training_that_diverges_ends_with_an_error_and_leaves_no_model(stage, request, tmp_path):
    config = replace(request.getfixturevalue(stage), out=tmp_path / "out", lr=1e30, steps=12)
    with pytest.raises(RoboprefError, match=r"out: (losses/)?[a-z]+ became (nan|inf); train again with a lower learning rate"):
        (pretrain if stage == "pretraining" else train).run(config)
    assert not {"model.safetensors", "config.json", "manifest.json"} & {path.name for path in config.out.glob("*")}


def test_weights_that_are_not_finite_are_refused_by_name(training, pretraining, vlp, backbone, tmp_path):
    for module, folder in ((small, backbone), (vlp_module, vlp)):
        broken = tmp_path / module.KIND
        shutil.copytree(folder, broken)
        tensors, settings = load_model(folder, module.KIND)
        name = next(name for name, tensor in tensors.items() if tensor.is_floating_point())
        tensors[name].flatten()[0] = float("inf")
        save_tensors(broken / "model.safetensors", tensors, {"kind": module.KIND, "config": settings})
        with pytest.raises(RoboprefError, match=rf"{module.KIND}: its weights hold NaN or infinity \({name}\)"):
            (SmallBackbone if module is small else VLPScorer).load(broken)
    with pytest.raises(RoboprefError, match="small-backbone: its weights hold NaN"):
        train.run(replace(training, out=tmp_path / "out", backbone=f"small:{tmp_path / small.KIND}"))


@pytest.mark.parametrize("content", [b"", b"x" * 1000, "shape"])
def test_a_damaged_feature_cache_is_named(content, training, tmp_path):
    config = replace(training, out=tmp_path / "one", features=tmp_path / "features", steps=1)
    train.run(config)
    cache = sorted(config.features.iterdir())[0]
    if content == "shape":
        np.save(cache, np.load(cache)[..., :-1])
    else:
        cache.write_bytes(content)
    with pytest.raises(RoboprefError, match=rf"{cache.name}: the feature cache is damaged .* delete this file"):
        train.run(replace(config, out=tmp_path / "two"))


BANKS = {
    "nothing in frames.npy": ("not a readable frame bank", lambda bank: (bank / "frames.npy").write_bytes(b"")),
    "pickled": ("not a readable frame bank", lambda bank: np.save(bank / "frames.npy", np.array([{}] * 120, object))),
    "floats": ("frames.npy holds float64", lambda bank: np.save(bank / "frames.npy", np.load(bank / "frames.npy") / 255)),
    "wide": ("states.npy holds float32 .120, 38.", lambda bank: np.save(bank / "states.npy", np.zeros((120, 38), np.float32))),
    "nan": ("states.npy holds NaN or infinity, first in row 7", lambda bank: spoil(bank / "states.npy", 7)),
    "no task": ("index.parquet has no column task", lambda bank: indexed(bank, lambda index: index.drop(columns="task"))),
    "no level": ("index.parquet has no column level", lambda bank: indexed(bank, lambda index: index.drop(columns="level"))),
    "other": (
        "index.parquet says that it is the bank of door-lock",
        lambda bank: indexed(bank, lambda index: index.assign(task="door-lock")),
    ),
}


def spoil(path, row):
    states = np.load(path)
    states[row] = np.nan
    np.save(path, states)


def indexed(bank, change):
    change(pd.read_parquet(bank / "index.parquet")).to_parquet(bank / "index.parquet")


@pytest.mark.parametrize("problem", BANKS)
def test_a_bank_of_another_form_is_refused_by_name(problem, pretraining, clips, tmp_path):
    message, change = BANKS[problem]
    shutil.copytree(clips, tmp_path / "clips")
    change(tmp_path / "clips" / TASKS[1])
    with pytest.raises(RoboprefError, match=f"{TASKS[1]}: {message}.*Run `robopref collect` again"):
        pretrain.run(replace(pretraining, clips=tmp_path / "clips", out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_task_without_a_bank_is_told_with_those_that_are_there(pretraining, clips, tmp_path):
    config = replace(pretraining, tasks=(*TASKS, "reach", "push"), out=tmp_path / "out")
    there = ",".join(sorted(TASKS))
    message = (
        f"{clips}/reach does not exist (nor 1 more): give those that are there, tasks=[{there}], or collect what is missing, "
    )
    with pytest.raises(RoboprefError, match=re.escape(f"{message}`robopref collect --tasks reach --clips {clips}`")):
        pretrain.run(config)
    with pytest.raises(RoboprefError, match="reach does not exist, nor any frame bank beside it: draw it with"):
        pretrain.run(replace(config, clips=tmp_path, tasks=("reach",)))
    assert not config.out.exists()


def test_a_finished_stage_is_kept(vlp, training, monkeypatch):
    monkeypatch.setattr(train, "OrderSampler", lambda *_: pytest.fail("it trained again"))
    assert train.run(training) == vlp


def test_vlp_orders_what_it_has_learnt(clips, vlp, tmp_path):
    bank = FrameBank([clips / task for task in TASKS])
    result = generalisation(VLPScorer.load(vlp), bank, TASKS[0], TASKS[1:], tmp_path)
    assert result["itp_accuracy"] > 0.9 and result["ivp_accuracy"] > 0.8
    assert result["ilp_loss"] >= np.log(2)


def test_the_factored_vlp_orders_what_it_has_learnt(clips, factored, tmp_path):
    bank = FrameBank([clips / task for task in TASKS])
    scorer = VLPScorer.load(factored)
    result = generalisation(scorer, bank, TASKS[0], TASKS[1:], tmp_path)
    assert result["itp_accuracy"] > 0.9 and result["ivp_accuracy"] > 0.8
    assert scorer.model.shape["scene_dim"] == len(scorer.backbone.encoder.config.parts) == 5, "three squares, table and robot"
    assert scorer.backbone.image_dim == 32 + 5, "where things are, and what there is"


def test_pretraining_learns_what_is_where(clips, factoring):
    backbone = SmallBackbone.load(factoring.backbone.removeprefix("small:"))
    losses = pd.read_csv(factoring.backbone.removeprefix("small:") + "/metrics.csv")["losses/parts"]
    assert losses.iloc[-1] < 0.3 * losses.iloc[0]
    names = backbone.encoder.config.parts
    assert names[:2] == ("background", "robot")
    for column, task in enumerate(TASKS):
        bank = FrameBank([clips / task])
        present = backbone.encode_frames(bank.frames(np.arange(0, len(bank), 7)))[:, 0, 32:].mean(0)
        assert names[int(present[2:].argmax()) + 2] == f"square-{column}"


def test_a_backbone_that_names_parts_needs_banks_that_do(pretraining, clips, tmp_path):
    copied = tmp_path / "clips"
    shutil.copytree(clips, copied)
    (copied / TASKS[1] / "parts.npy").write_bytes(b"torn")
    config = replace(pretraining, clips=copied, out=tmp_path / "out", scene=True)
    with pytest.raises(RoboprefError, match=f"{TASKS[1]}/parts.npy: damaged"):
        pretrain.run(config)
    (copied / TASKS[1] / "parts.json").unlink()
    with pytest.raises(RoboprefError, match=rf"{TASKS[1]} does not say .* with --parts"):
        pretrain.run(config)
    assert not config.out.exists()


def test_parts_are_moved_with_their_picture(clips):
    """Where a drawn square says "square", its picture is bright."""
    bank = FrameBank([clips / TASKS[0]])
    lesson = PartLesson(bank.parts(), np.zeros(len(bank), bool))
    images, parts = lesson.draw(bank, 64, np.random.default_rng(0), torch.device("cpu"))
    assert images.shape == (64, 3, 64, 64) and parts.shape == (64, 16, 16)
    assert lesson.names == ("background", "robot", "square-0") and set(parts.unique().tolist()) == {0, 2}
    middles = torch.nn.functional.avg_pool2d(images.mean(1), 4)
    assert (middles[parts == 2] > 0.5).float().mean() > 0.95 and (middles[parts == 0] < 0.5).float().mean() > 0.97
    columns = (parts == 2).float().sum((0, 1))
    assert (columns > 0).sum() > 9, "moved and mirrored: it stood in three of sixteen"


def test_the_model_folder_scores_alone_and_encoding_apart_changes_nothing(clips, vlp, tmp_path):
    moved = tmp_path / "moved"
    vlp.rename(moved)  # the backbone travels inside
    try:
        scorer = VLPScorer.load(moved)
        frames = FrameBank([clips / TASKS[0]]).frames(np.arange(18).reshape(2, 9))
        said = ["open the drawer", "open the door"]
        np.testing.assert_allclose(scorer.score(frames, said), scorer.score_features(scorer.encode(frames), said))
    finally:
        moved.rename(vlp)


def test_exchanged_or_damaged_weights_are_refused(vlp, training, pretraining, tmp_path):
    other = pretrain.run(replace(pretraining, out=tmp_path / "other", steps=1, width=4))
    backbone = vlp / "backbone"
    kept = {name: (backbone / name).read_bytes() for name in ("model.safetensors", "config.json")}
    try:
        for name in kept:
            (backbone / name).write_bytes((other / name).read_bytes())
        with pytest.raises(RoboprefError, match="train VLP again"):
            VLPScorer.load(vlp)
        (backbone / "model.safetensors").write_bytes(kept["model.safetensors"][:500])
        with pytest.raises(RoboprefError, match="damaged"):
            VLPScorer.load(vlp)
    finally:
        for name, content in kept.items():
            (backbone / name).write_bytes(content)
    with pytest.raises(RoboprefError, match="vlp"):
        VLPScorer.load(backbone)  # a backbone is no VLP


def test_models_of_another_version_are_refused_in_words(vlp, backbone, tmp_path):
    for folder, section, setting, again in (
        (vlp, "model", "older", "robopref train-vlp"),
        (vlp, "shape", "older", "robopref train-vlp"),
        (backbone, "encoder", "scene", "robopref pretrain"),
    ):
        copied, kind = tmp_path / section, small.KIND if folder == backbone else vlp_module.KIND
        shutil.copytree(folder, copied)
        state, settings = load_model(folder, kind)
        settings[section][setting] = False
        save_model(copied, kind, state, settings)
        load = SmallBackbone.load if folder == backbone else VLPScorer.load
        with pytest.raises(
            RoboprefError, match=rf"{section}(: of another version| holds other values than robopref writes) .*{again}. again"
        ):
            load(copied)


def test_a_frame_of_another_size_is_refused(backbone):
    with pytest.raises(RoboprefError, match="64 px"):
        SmallBackbone.load(backbone).encode_frames(np.zeros((1, 32, 32, 3), np.uint8))


def test_manifests_say_what_was_done(vlp):
    manifest = read_json(vlp / "manifest.json")
    assert manifest["stage"] == "train-vlp" and manifest["seeds"] == [0]
    assert set(manifest["inputs"]) == {*TASKS, "backbone", "backbone's settings"}


def others(path):
    """Another file of the same size: the index of a bank says nothing of its pixels, nor a path of its weights."""
    data = bytearray(path.read_bytes())
    data[-4:] = b"\0\0\0\0" if data[-4:] != b"\0\0\0\0" else b"\0\0\1\0"
    path.write_bytes(data)


@pytest.mark.parametrize("interrupted", [False, True])
@pytest.mark.parametrize(
    ("stage", "changed", "named"),
    [
        ("pretrain", "clips/door-open/frames.npy", "door-open"),
        ("pretrain", "clips/door-open/states.npy", "door-open"),
        ("train-vlp", "clips/door-open/frames.npy", "door-open"),
        ("train-vlp", "clips/door-open/states.npy", "door-open"),
        ("train-vlp", "backbone/model.safetensors", "backbone"),
    ],
)
def test_other_frames_and_another_backbone_are_noticed(
    stage, changed, named, interrupted, pretraining, training, clips, backbone, tmp_path, monkeypatch
):
    shutil.copytree(clips, tmp_path / "clips")
    shutil.copytree(backbone, tmp_path / "backbone")
    places = {"clips": tmp_path / "clips", "out": tmp_path / "out", "steps": 4, "checkpoint_every": 1}
    if stage == "train-vlp":
        places["backbone"] = f"small:{tmp_path / 'backbone'}"
    module = pretrain if stage == "pretrain" else train
    config = replace(pretraining if stage == "pretrain" else training, **places)
    if interrupted:
        with monkeypatch.context() as patch, pytest.raises(Killed):
            kill_after(patch, module, 2)
            module.run(config)
    else:
        module.run(config)
    before = {path.name: path.read_bytes() for path in config.out.iterdir() if path.suffix == ".safetensors"}
    others(tmp_path / changed)
    monkeypatch.setenv("ROBOPREF_SKIP_DIGESTS", "1")  # weights of another training are whole; here they stand for such
    said = (
        f"is from a run with another input {named}: delete"
        if interrupted
        else rf"on other inputs \({named}\): choose another out="
    )
    with pytest.raises(RoboprefError, match=said):
        module.run(config)
    assert before == {path.name: path.read_bytes() for path in config.out.iterdir() if path.suffix == ".safetensors"}


def test_overwriting_keeps_the_backbone_that_is_read_and_what_a_lost_one_was_for(vlp, training, backbone, tmp_path):
    shutil.copytree(backbone, tmp_path / "backbone")
    own = replace(training, out=tmp_path / "backbone", backbone=f"small:{tmp_path / 'backbone'}", overwrite=True)
    with pytest.raises(
        RoboprefError, match=r"overwrite=true would delete .*backbone/model\.safetensors, which this command reads"
    ):
        train.run(own)
    shutil.copytree(vlp, tmp_path / "vlp")
    with pytest.raises(RoboprefError, match=r"gone/model\.safetensors does not exist"):
        train.run(replace(training, out=tmp_path / "vlp", backbone=f"small:{tmp_path / 'gone'}", overwrite=True))
    assert (tmp_path / "vlp" / "model.safetensors").exists() and (tmp_path / "backbone" / "model.safetensors").exists()
    own = tmp_path / "vlp" / "backbone" / "manifest.json"  # a copy of what another command wrote goes with the model
    own.write_text(own.read_text().replace('"command": "', '"command": "robopref pretrain '))
    train.run(replace(training, out=tmp_path / "vlp", steps=2, overwrite=True))
    assert read_json(tmp_path / "vlp" / "manifest.json")["config"]["steps"] == 2


@pytest.mark.parametrize("scene", [False, True])
def test_a_backbone_never_learns_from_episodes_kept_aside(scene, pretraining, clips, tmp_path):
    """With other pictures in those, the weights are the same to the last bit, and only what is measured on them is not."""
    config = replace(pretraining, steps=6, batch=16, holdout=0.3, scene=scene, out=tmp_path / "before")
    bank = FrameBank([clips / name for name in TASKS])
    kept = pretrain.held_out(bank, config.holdout, config.seed)
    episodes = bank.index.groupby(["task", "level", "episode"]).ngroup().to_numpy()
    assert 0.1 < kept.mean() < 0.6 and not set(episodes[kept]) & set(episodes[~kept]), "whole episodes"
    copied = tmp_path / "clips"
    shutil.copytree(clips, copied)
    for name in TASKS:
        rows = kept[bank.index["task"] == name]
        frames = np.load(copied / name / "frames.npy")
        frames[rows] = 255 - frames[rows]
        np.save(copied / name / "frames.npy", frames)
    one, two = pretrain.run(config), pretrain.run(replace(config, clips=copied, out=tmp_path / "after"))
    assert_same(weights(one), weights(two))
    errors = [pd.read_csv(folder / "metrics.csv")["eval/state_error_sd"].iloc[-1] for folder in (one, two)]
    assert errors[0] != errors[1]


def test_the_learning_rate_warms_up_and_falls_along_a_cosine_to_two_hundredths():
    rates = [pretrain.schedule(step, 1000, 100) for step in (1, 50, 100, 500, 1000)]
    cosine = [0.02 + 0.98 * (1 + np.cos(np.pi * step / 1000)) / 2 for step in (1, 50, 100, 500, 1000)]
    assert rates == pytest.approx([0.01 * cosine[0], 0.5 * cosine[1], cosine[2], 0.51, 0.02])
    assert pretrain.schedule(25, 1000) == pytest.approx(0.5 * (0.02 + 0.98 * (1 + np.cos(np.pi * 0.025)) / 2))


@pytest.mark.parametrize("stage", ["pretrain", "train-vlp"])
def test_every_step_is_made_at_the_schedules_rate(stage, pretraining, training, tmp_path, monkeypatch):
    module, config = (pretrain, pretraining) if stage == "pretrain" else (train, training)
    rates = []
    step = torch.optim.AdamW.step

    def watched(self, *args, **how):
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args, **how)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    module.run(replace(config, steps=4, batch=8, out=tmp_path / "out"))
    warmup = () if stage == "pretrain" else (config.warmup,)
    assert rates == pytest.approx([config.lr * pretrain.schedule(number, 4, *warmup) for number in range(1, 5)])


def test_views_are_mirrored_from_side_to_side_and_never_upside_down():
    views = pretrain.random_views(200, np.random.default_rng(0)).numpy()
    assert (views[:, 1, 1] > 0).all() and 0.4 < (views[:, 0, 0] < 0).mean() < 0.6
    np.testing.assert_allclose(np.abs(views[:, 0, 0]), views[:, 1, 1])
    assert (views[:, [0, 1], [1, 0]] == 0).all() and np.abs(views[:, :, 2]).max() <= 0.24
    assert views[:, 1, 1].min() < 0.85 and views[:, 1, 1].max() > 1.15


def test_a_scorer_asks_every_clip_its_own_sentence_however_many_there_are(clips, vlp):
    """They are scored 64 at a time."""
    scorer = VLPScorer.load(vlp)
    frames = FrameBank([clips / TASKS[0]]).frames(np.arange(9 * 7).reshape(7, 9))
    features = np.repeat(scorer.encode(frames), 11, 0)  # 77 clips
    said = [("open the drawer", "open the door", "close the window")[number % 3] for number in range(77)]
    whole = scorer.score_features(features, said)
    alone = [scorer.score_features(features[number : number + 1], [said[number]])[0] for number in range(77)]
    np.testing.assert_allclose(whole, alone, rtol=1e-4, atol=1e-5)
    assert np.ptp(whole[:3]) > 1e-3, "the sentences say different things"
