"""VLP: orders drawn on the fly, the loss of Eq. 4 by hand, and the model's structure."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import fuzz_models
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robopref.configs.checkpoint import load_model, save_model
from robopref.configs.errors import RoboprefError, UsageError
from robopref.configs.files import write_json
from robopref.configs.vlp import ModelConfig, OrdersConfig
from robopref.embodied.tasks import instructions
from robopref.preference.backbone import load_backbone, parse_small
from robopref.preference.features import some_frames
from robopref.preference.orders import LEVELS, OrderSampler
from robopref.preference.small import soft_argmax
from robopref.preference.vlp import VLP, VLPScorer, build, order_loss, vlp_loss
from robopref.preference.words import MAX_WORDS, HashedWords, load_words, split, unread

TASKS = ("drawer-open", "door-open", "window-close")


def bank_index(tasks=TASKS, episodes=3, frames=12):
    rows = [
        {"task": task, "level": level, "episode": 10 * number + episode, "step": 7 * frame}
        for task in tasks
        for number, level in enumerate(("expert", "medium", "random"))
        for episode in range(episodes)
        for frame in range(frames if level != "medium" else 5)
    ]
    return pd.DataFrame(rows)


def test_eq_4_by_hand():
    scores = {
        "a": torch.tensor([0.0, 1.0]),
        "b": torch.tensor([2.0, 0.0]),
        "other": torch.tensor([-1.0, 0.0]),
        "foreign_a": torch.tensor([0.0, 1.0]),
        "foreign_b": torch.tensor([0.0, 3.0]),
    }
    loss, metrics = vlp_loss(scores, torch.tensor([1.0, 0.0]), OrdersConfig(ilp_weight=0.1, ivp_weight=0.5))

    def ce(difference):  # -log sigmoid
        return math.log1p(math.exp(-difference))

    itp = (ce(2.0) + ce(1.0)) / 2
    ilp = (math.log(2) + 0.5 * (ce(2.0) + ce(-2.0))) / 2
    ivp = (ce(1.0) + ce(1.0)) / 2 + (ce(3.0) + ce(0.0)) / 2  # a over other + b over other
    assert metrics["itp"].item() == pytest.approx(itp, abs=1e-6)
    assert metrics["ilp"].item() == pytest.approx(ilp, abs=1e-6)
    assert metrics["ivp"].item() == pytest.approx(ivp, abs=1e-6)
    assert loss.item() == pytest.approx(itp + 0.1 * ilp + 0.5 * ivp, abs=1e-6)
    without, _ = vlp_loss(scores, torch.tensor([1.0, 0.0]), OrdersConfig(itp_weight=0, ilp_weight=0.1, ivp_weight=0.5))
    assert without.item() == pytest.approx(0.1 * ilp + 0.5 * ivp, abs=1e-6)
    assert metrics["itp_accuracy"].item() == 1.0
    assert metrics["ivp_accuracy"].item() == 0.75  # b of the second tuple only ties with the other task's clip


def test_progress_orders_add_their_own_term():
    zeros = {name: torch.zeros(2) for name in ("a", "b", "other", "foreign_a", "foreign_b")}
    with_progress = zeros | {"earlier": torch.zeros(2), "later": torch.full((2,), 3.0)}
    label = torch.ones(2)
    plain, _ = vlp_loss(zeros, label, OrdersConfig())
    loss, metrics = vlp_loss(with_progress, label, OrdersConfig(progress_weight=0.5))
    assert (loss - plain).item() == pytest.approx(0.5 * math.log1p(math.exp(-3)), abs=1e-6)
    assert metrics["progress_accuracy"].item() == 1.0


@given(st.floats(-20, 20), st.floats(0, 1))
def test_swapping_a_pair_and_its_label_changes_nothing(logit, target):
    one = order_loss(torch.tensor([logit], dtype=torch.float64), torch.tensor([target], dtype=torch.float64))
    other = order_loss(torch.tensor([-logit], dtype=torch.float64), torch.tensor([1 - target], dtype=torch.float64))
    assert one.item() == pytest.approx(other.item(), abs=1e-9)


def test_a_model_of_fewer_frames_sees_the_last_ones():
    clips = torch.arange(9.0)[1:].expand(2, 8)
    assert some_frames(clips, 1)[0].tolist() == [8] and some_frames(clips, 8)[0].tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert some_frames(clips, 2)[1].tolist() == [1, 8] and some_frames(clips, 4)[1].tolist() == [1, 3, 6, 8]
    shape = {"frames": 8, "tokens_per_frame": 1, "image_dim": 12, "text_dim": 64, "scene_dim": 5}
    torch.manual_seed(0)
    model, features = build(ModelConfig(dim=16, heads=2, frames=1), shape).eval(), torch.randn(1, 9, 1, 12)
    changed = features.clone()
    changed[:, :8] += 1.0
    assert (model.encode_video(features) == model.encode_video(changed)).all() and model.encode_video(features).shape[1] == 1
    with pytest.raises(RoboprefError, match=r"model\.frames=9: a clip has 8"):
        build(ModelConfig(frames=9), shape)


def test_orders_can_be_drawn_from_fewer_episodes():
    index = bank_index(episodes=8)
    for share, kept in ((1.0, 8), (0.5, 4), (0.01, 1)):
        tuples = OrderSampler(index, TASKS, OrdersConfig(episode_share=share)).draw(200, np.random.default_rng(0))
        seen = index.iloc[np.concatenate([tuples.a, tuples.b, tuples.other]).ravel()]
        assert (seen.groupby(["task", "level"])["episode"].nunique() == kept).all()


def test_indifference_costs_ln_2():
    assert order_loss(torch.zeros(1), torch.tensor([0.5])).item() == pytest.approx(math.log(2))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_every_tuple_is_what_its_table_row_says(seed):
    index = bank_index()
    sampler = OrderSampler(index, TASKS, OrdersConfig(segment_share=0.5))
    tuples = sampler.draw(8, np.random.default_rng(seed))
    sentences = {sentence: task for task in TASKS for sentence in instructions(task, "train")}
    for i in range(8):
        first, second, third = (index.iloc[rows[i]] for rows in (tuples.a, tuples.b, tuples.other))
        for clip in (first, second, third):
            assert clip["episode"].nunique() == 1 and clip["task"].nunique() == 1 and len(clip) == 1 + 8
            assert clip["step"].iloc[0] == 0 and (np.diff(clip["step"]) >= 0).all()
        own = sentences[tuples.own[i]]
        assert first["task"].iloc[0] == second["task"].iloc[0] == own
        assert third["task"].iloc[0] != own and sentences[tuples.foreign[i]] != own
        ranks = [LEVELS.index(clip["level"].iloc[0]) for clip in (first, second)]
        assert (ranks[1] > ranks[0]) == bool(tuples.label[i]) and ranks[0] != ranks[1]
        assert tuples.levels[i] == (LEVELS[min(ranks)], LEVELS[max(ranks)])


def test_a_share_of_the_worst_clips_shows_another_tasks_expert():
    plain = bank_index()
    long = plain[plain["level"] == "random"].assign(level="foreign")
    long = pd.concat([long.assign(step=long["step"] + 84 * lap, episode=long["episode"] + 30) for lap in range(2)])
    index = pd.concat([plain, long.sort_values(["task", "episode", "step"])], ignore_index=True)
    sampler = OrderSampler(index, TASKS, OrdersConfig(foreign_share=0.5, segment_share=0.0))
    tuples = sampler.draw(400, np.random.default_rng(0))
    worse = [a if label else b for a, b, label in zip(tuples.a, tuples.b, tuples.label, strict=True)]
    shown = [index.iloc[rows] for rows, (low, _) in zip(worse, tuples.levels, strict=True) if low == "random"]
    levels = [clip["level"].iloc[0] for clip in shown]
    assert set(levels) == {"random", "foreign"} and 0.4 < levels.count("foreign") / len(levels) < 0.6
    # Twelve frames as the experts have, not 24: a clip at double speed would give the level away.
    assert max(clip["step"].iloc[-1] for clip in shown) == 7 * 11
    with pytest.raises(RoboprefError, match="no foreign episode"):
        OrderSampler(plain, TASKS, OrdersConfig(foreign_share=0.5))


def test_a_share_of_the_worst_clips_wanders():
    plain = bank_index()
    extra = plain[plain["level"] == "random"].assign(level="wandering", episode=lambda rows: rows["episode"] + 30)
    index = pd.concat([plain, extra], ignore_index=True)
    sampler = OrderSampler(index, TASKS, OrdersConfig(wandering_share=0.25))
    tuples = sampler.draw(800, np.random.default_rng(0))
    worse = [a if label else b for a, b, label in zip(tuples.a, tuples.b, tuples.label, strict=True)]
    beginnings = sampler.draw_prefixes(800, np.random.default_rng(0))[0]
    for clips in (worse, beginnings):
        levels = [index["level"].iloc[rows[1]] for rows in clips]
        share = levels.count("wandering") / (levels.count("wandering") + levels.count("random"))
        assert 0.2 < share < 0.3
    with pytest.raises(RoboprefError, match="no wandering episode"):
        OrderSampler(plain, TASKS, OrdersConfig(wandering_share=0.25))


def test_positions_say_nothing_and_draws_repeat():
    sampler = OrderSampler(bank_index(), TASKS, OrdersConfig())
    label = sampler.draw(600, np.random.default_rng(0)).label
    assert 0.4 < label.mean() < 0.6
    one, two = (sampler.draw(16, np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(one.a, two.a)
    assert one.own == two.own and one.foreign == two.foreign


@pytest.mark.parametrize("wordings", ["train", "varied", "shared"])
def test_instructions_are_of_the_wordings_asked_for(wordings):
    drawn = OrderSampler(bank_index(), TASKS, OrdersConfig(wordings=wordings)).draw(1500, np.random.default_rng(0))
    known = {sentence for name in TASKS for sentence in instructions(name, wordings)}
    assert set(drawn.own) <= known and len(set(drawn.own)) > 0.9 * len(known)
    with pytest.raises(UsageError, match=r"orders.wordings=vary: one of train, varied, shared. Did you mean 'varied'"):
        OrderSampler(bank_index(), TASKS, OrdersConfig(wordings="vary"))
    judged = OrderSampler(bank_index(), TASKS, OrdersConfig(wordings=wordings), "phrase").draw(8, np.random.default_rng(0))
    assert set(judged.own) <= {sentence for name in TASKS for sentence in instructions(name, "phrase")}


def test_progress_pairs_end_later_in_one_expert_episode():
    index = bank_index()
    earlier, later, _ = OrderSampler(index, TASKS, OrdersConfig()).draw_progress(50, np.random.default_rng(0))
    for first, second in zip(earlier, later, strict=True):
        a, b = index.iloc[first], index.iloc[second]
        assert (a["episode"].iloc[0], a["task"].iloc[0]) == (b["episode"].iloc[0], b["task"].iloc[0])
        assert a["level"].iloc[0] == "expert" and a["step"].iloc[-1] < b["step"].iloc[-1]


def test_a_missing_level_or_a_single_task_is_an_error():
    index = bank_index()
    with pytest.raises(RoboprefError, match="medium"):
        OrderSampler(index[index["level"] != "medium"].reset_index(drop=True), TASKS, OrdersConfig())
    with pytest.raises(RoboprefError, match="two tasks"):
        OrderSampler(index, TASKS[:1], OrdersConfig())


def tiny_vlp():
    torch.manual_seed(0)
    return VLP(ModelConfig(dim=16, heads=2, hidden=(32, 16), dropout=0.0), 8, 5, 12, 64).eval()


def paired(*rows):
    return tuple(torch.tensor(row) for row in rows)


def test_padding_and_batch_mates_do_not_change_a_score():
    model = tiny_vlp()
    video = model.encode_video(torch.randn(2, 9, 5, 12))
    alone_words, alone_mask = HashedWords().encode(["close the drawer"])
    words, mask = HashedWords().encode(["close the drawer", "please push the long wooden stick against the box now"])
    alone = model.score(video[:1], model.encode_text(alone_words, alone_mask), alone_mask, *paired([0], [0]))
    together = model.score(video, model.encode_text(words, mask), mask, *paired([0, 1], [0, 1]))
    assert together[0].item() == pytest.approx(alone[0].item(), abs=1e-5)


def test_pairs_say_which_clip_is_asked_about_which_sentence():
    model = tiny_vlp()
    video = model.encode_video(torch.randn(3, 9, 5, 12))
    words, mask = HashedWords().encode(["close the drawer", "push the long wooden stick"])
    text = model.encode_text(words, mask)
    clips, sentences = [2, 0, 0, 1], [1, 1, 0, 0]
    scores = model.score(video, text, mask, *paired(clips, sentences))
    for score, clip, said in zip(scores, clips, sentences, strict=True):
        alone = model.score(video[clip : clip + 1], text[said : said + 1], mask[said : said + 1], *paired([0], [0]))
        assert score.item() == pytest.approx(alone.item(), abs=1e-5)


def test_the_score_depends_on_frame_order_and_on_the_words():
    model = tiny_vlp()
    clip = torch.randn(1, 9, 5, 12)
    words, mask = HashedWords().encode(["close the drawer", "open the drawer"])
    text = model.encode_text(words, mask)
    both = torch.cat([model.encode_video(clip), model.encode_video(clip.flip(1))])
    score, backwards, other_words = model.score(both, text, mask, *paired([0, 1, 0], [0, 0, 1]))
    assert abs(score - backwards).item() > 1e-6
    assert abs(score - other_words).item() > 1e-6


def test_soft_argmax_finds_a_peak_to_the_pixel():
    heat = torch.full((1, 1, 16, 16), -50.0)
    heat[0, 0, 3, 12] = 50.0  # row 3, column 12
    x, y = soft_argmax(heat)[0].tolist()
    assert x == pytest.approx(-1 + 2 * 12 / 15, abs=1e-4) and y == pytest.approx(-1 + 2 * 3 / 15, abs=1e-4)


def test_words_are_hashed_alike_everywhere_and_relatives_are_near():
    words, mask = HashedWords().encode(["close the drawer", "closing it"])
    assert words.shape == (2, 3, 64) and mask.tolist() == [[True, True, True], [True, True, False]]

    def alike(one, two):
        (a,), (b,) = HashedWords().encode([one])[0][0], HashedWords().encode([two])[0][0]
        return torch.cosine_similarity(a, b, dim=0).item()

    assert alike("close", "closing") > 0.3 > abs(alike("close", "window"))
    assert HashedWords().encode(["CLOSE, the drawer!"])[0].equal(words[:1])


def test_an_empty_instruction_is_refused_and_a_very_long_one_cut():
    with pytest.raises(RoboprefError, match="empty"):
        HashedWords().encode(["  ... "])
    assert HashedWords().encode(["word " * MAX_WORDS])[0].shape[1] == MAX_WORDS
    with pytest.raises(RoboprefError, match=f"{MAX_WORDS + 1} words .word word word word"):
        HashedWords().encode(["close it", "word " * (MAX_WORDS + 1)])


@pytest.mark.parametrize(
    ("text", "read", "left_out"),
    [
        ("Close the door!", ["close", "the", "door"], []),
        ("sweep thé puck", ["sweep", "puck"], ["thé"]),
        ("sweep the\u0301 puck", ["sweep", "puck"], ["thé"]),
        ("закрой дверь door", ["door"], ["закрой", "дверь"]),
        ("关上抽屉 drawer 2", ["drawer", "2"], ["关上抽屉"]),
        ("ｃｌｏｓｅ the drawer", ["close", "the", "drawer"], []),
        ("push_the_puck", ["push", "the", "puck"], []),
    ],
)
def test_words_in_other_letters_are_left_out_whole_and_named(text, read, left_out):
    assert split([text]) == [read] and unread(text) == left_out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        (" ?! ", "is empty"),
        ("2", r"no word in letters a to z, and only those are read \('2'\)"),
        ("关上抽屉", r"no word in letters a to z, and only those are read \('关上抽屉'\)"),
        ("关上抽屉 2", r"only those are read \('关上抽屉', '2'\)"),
        ("закрой дверь", r"only those are read \('закрой', 'дверь'\)"),
    ],
)
def test_an_instruction_of_which_nothing_is_read_is_refused(text, message):
    with pytest.raises(RoboprefError, match=message):
        split(["close the drawer", text])


def test_learnt_words_know_synonyms_without_a_network(monkeypatch):
    """wordllama carries its weights, but looks for its tokeniser in a folder that is not there: we tell it where."""
    wordllama = pytest.importorskip("wordllama", reason="the extra robopref[words] is not installed")
    monkeypatch.setattr("requests.get", lambda *args, **kwargs: pytest.fail("it went to the internet"))
    words = load_words("wordllama")
    vectors, mask = words.encode(["turn off the faucet", "close the tap at once"])
    assert vectors.shape == (2, 5, words.size) and mask.sum(1).tolist() == [4, 5]
    assert vectors[mask].std().item() == pytest.approx(1.0, abs=0.1) and (vectors[~mask] == 0).all()

    def alike(one, two):
        return torch.cosine_similarity(*words.encode([one, two])[0][:, 0], dim=0).item()

    assert alike("faucet", "tap") > 0.3 > alike("faucet", "window")
    torch.testing.assert_close(words.encode(["close the tap"])[0][0, 2], vectors[1, 2])
    assert wordllama.__file__


def test_words_are_named_with_the_backbone(tmp_path):
    assert parse_small("runs/backbone") == ("runs/backbone", "")
    assert parse_small("runs/backbone@wordllama") == ("runs/backbone", "wordllama")
    assert parse_small("runs@home/backbone") == ("runs@home/backbone", "")
    with pytest.raises(RoboprefError, match=r"Words 'wordlama': there are hashed and wordllama. Did you mean"):
        load_backbone(f"small:{tmp_path}@wordlama")


def test_segments_of_a_level_end_near_its_end_and_random_ones_anywhere():
    """What tells an expert's segment from a medium one is its end; clips have one opening and eight frames in a row."""
    index = bank_index(episodes=1)
    tuples = OrderSampler(index, TASKS, OrdersConfig(segment_share=1.0)).draw(500, np.random.default_rng(0))
    frame, level = (index["step"] // 7).to_numpy(), index["level"].to_numpy()
    ends: dict[str, set[int]] = {}
    for rows in np.concatenate([tuples.a, tuples.b, tuples.other]):
        ends.setdefault(level[rows[0]], set()).add(frame[rows[-1]])
        shown = frame[rows[1:]]
        assert frame[rows[0]] == 0 and shown[0] == max(0, shown[-1] - 7)
        assert (np.diff(shown) == 1).all() or shown[-1] < 7, "fewer are spread"
    assert ends == {"expert": {9, 10, 11}, "medium": {2, 3, 4}, "random": set(range(1, 12))}


def test_whole_episodes_reach_from_the_opening_to_the_last_frame():
    index = bank_index()
    tuples = OrderSampler(index, TASKS, OrdersConfig(segment_share=0.0)).draw(100, np.random.default_rng(0))
    frame, level = (index["step"] // 7).to_numpy(), index["level"].to_numpy()
    for rows in np.concatenate([tuples.a, tuples.b, tuples.other]):
        assert frame[rows[:2]].tolist() == [0, 0] and frame[rows[-1]] == (4 if level[rows[0]] == "medium" else 11)


def test_later_segments_are_later_and_longer_beginnings_longer():
    index = bank_index()
    sampler = OrderSampler(index, TASKS, OrdersConfig())
    frame, level, episode = (index[name].to_numpy() for name in ("step", "level", "episode"))
    for earlier, later in (
        sampler.draw_later(400, np.random.default_rng(0)),
        sampler.draw_progress(400, np.random.default_rng(0))[:2],
    ):
        assert (frame[later[:, -1]] > frame[earlier[:, -1]]).all() and (episode[later[:, 0]] == episode[earlier[:, 0]]).all()
        assert set(frame[earlier[:, -1]] // 7) == set(range(1, 11)) and set(frame[later[:, -1]] // 7) == set(range(2, 12))
    worse, better = sampler.draw_prefixes(2000, np.random.default_rng(0))
    same = level[worse[:, 0]] == "expert"
    assert 0.2 < same.mean() < 0.3 and (level[better[:, 0]] == "expert").all() and set(level[worse[~same, 0]]) == {"random"}
    short, long = (frame[rows[:, -1]] / 77 for rows in (worse, better))
    assert (long[same] > short[same]).mean() > 0.95 and short[same].min() < 0.2 and long[same].max() == 1
    assert 0.45 <= short[~same].min() < 0.55 and 0.18 <= long[~same].min() < 0.35, (
        "half of a random one, a quarter of an expert's"
    )


def test_an_order_is_right_by_its_sign_however_small():
    a, b = torch.tensor([0.0, 0.4, 0.0, 0.0]), torch.tensor([0.4, 0.0, 0.4, 0.4])
    scores = {"a": a, "b": b, "other": torch.tensor([-0.1, 0.3, 0.5, -0.1]), "foreign_a": a, "foreign_b": a}
    scores |= {"earlier": torch.tensor([0.0, 0.0, 0.3, 0.0]), "later": torch.tensor([0.2, 0.2, 0.2, 0.2])}
    _, metrics = vlp_loss(scores, torch.tensor([1.0, 0.0, 1.0, 0.0]), OrdersConfig(progress_weight=1.0))
    assert metrics["itp_accuracy"].item() == 0.75 and metrics["progress_accuracy"].item() == 0.75
    assert metrics["ivp_accuracy"].item() == (3 + 2) / 8  # a over other, b over other
    _, metrics = vlp_loss({name: torch.zeros(1) for name in scores}, torch.ones(1), OrdersConfig(progress_weight=1.0))
    right = {name: value.item() for name, value in metrics.items() if name.endswith("accuracy")}
    assert set(right.values()) == {0.0} and len(right) == 3, "who cannot tell them apart did not find the better one"


@pytest.mark.parametrize("lies", ["../outside", "{outside}", "inside/../../outside", "linked"])
def test_a_shared_model_looks_through_no_backbone_out_of_its_folder(tmp_path: Path, lies: str) -> None:
    model, outside = tmp_path / "model", tmp_path / "outside"
    fuzz_models.vlp(model)
    VLPScorer.load(model)
    (model / "backbone").rename(outside)
    (model / "linked").symlink_to(outside)
    (model / "inside").mkdir()
    state, config = load_model(model, "vlp")
    save_model(model, "vlp", state, config | {"backbone": "small:" + lies.format(outside=outside)})
    with pytest.raises(
        RoboprefError, match=r"a shared model names a backbone out of its folder|leads out of the folder of a shared"
    ):
        VLPScorer.load(model)
    write_json(model / "run.json", {"stage": "train-vlp", "config": {}})
    assert VLPScorer.load(model).frames == fuzz_models.FRAMES, "a run of one's own may look anywhere"
    (model / "README.md").write_text("---\nlibrary_name: robopref\n---\n")  # what a push leaves
    with pytest.raises(RoboprefError, match="shared model"):
        VLPScorer.load(model)


def test_a_shared_model_names_no_weights_of_this_machine(tmp_path: Path) -> None:
    fuzz_models.vlp(tmp_path / "model")
    (tmp_path / "weights.pt").write_bytes(b"")
    state, config = load_model(tmp_path / "model", "vlp")
    for backbone in (f"open_clip:ViT-B-16:{tmp_path / 'weights.pt'}", f"open_clip:local-dir:{tmp_path}"):
        save_model(tmp_path / "model", "vlp", state, config | {"backbone": backbone})
        with pytest.raises(RoboprefError, match=r"model: a shared model names weights of this machine, 'open_clip:"):
            VLPScorer.load(tmp_path / "model")


WRONG = {
    "dim": ["8", 0, -8, 1.5, 2**40, None, [8]],
    "layers": [2**30, "1"],
    "heads": [0, 3, 2**40],
    "hidden": [3, [], [8], [8, 2**40], ["8", 4]],
    "architecture": ["other", 3, None],
    "frames": [2**40, "2", 3],
    "dropout": ["x", 2.0],
    "gate": [[], [1.0], "x", [None, 0.0, 0.0]],
    "scale": ["x", None, 0.0],
    "strange": [1],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in WRONG.items() for value in values])
def test_settings_that_are_not_of_these_weights_are_one_line_and_take_no_memory(tmp_path: Path, key: str, value: object) -> None:
    fuzz_models.vlp(tmp_path)
    state, config = load_model(tmp_path, "vlp")
    save_model(tmp_path, "vlp", state, config | {"model": config["model"] | {key: value}})
    with pytest.raises(RoboprefError) as caught:
        VLPScorer.load(tmp_path)
    assert str(caught.value).startswith(str(tmp_path)) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": None},
        {"shape": {}},
        {"camera": 3},
        {"camera": "a b"},
        {"frame_size": 2**40},
        {"frame_size": "x"},
        {"backbone": 3},
    ],
)
def test_other_settings_of_another_kind_are_one_line(tmp_path: Path, changes: dict[str, Any]) -> None:
    fuzz_models.vlp(tmp_path)
    state, config = load_model(tmp_path, "vlp")
    save_model(tmp_path, "vlp", state, config | changes)
    with pytest.raises(RoboprefError) as caught:
        VLPScorer.load(tmp_path)
    assert str(caught.value).startswith(str(tmp_path)) and "\n" not in str(caught.value)
