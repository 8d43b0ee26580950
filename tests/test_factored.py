"""The factored VLP: what each part may see, its losses by hand, its orders, and that it trains like the other one."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_vlp import TASKS, bank_index

from robopref.configs.vlp import ModelConfig, OrdersConfig
from robopref.embodied.tasks import instructions, task
from robopref.preference.factored import FactoredVLP, match_loss, mishear, misread, motion, progress_loss
from robopref.preference.orders import OrderSampler
from robopref.preference.words import HashedWords


def tiny(**settings):
    torch.manual_seed(0)
    config = ModelConfig(architecture="factored", dim=16, heads=2, dropout=0.0, **settings)
    return FactoredVLP(config, 8, 1, 12, 64, scene_dim=5).eval()


def scores(model, clips, said):
    words, mask = HashedWords().encode(said)
    rows = torch.arange(len(clips))
    return model.score(model.encode_video(clips), model.encode_text(words, mask), mask, rows, rows)


@torch.no_grad()
def test_match_sees_the_opening_alone_and_progress_no_words():
    model = tiny()
    torch.nn.init.normal_(model.state_weight)
    clip = torch.randn(1, 9, 1, 12)
    later = torch.cat([clip[:, :1], torch.randn(1, 8, 1, 12)], dim=1)
    one, two = model.encode_video(torch.cat([clip, later]))[:, 0]
    torch.testing.assert_close(one[:-1], two[:-1])
    assert abs(one[-1] - two[-1]) > 1e-4
    assert one[:-1].norm().item() == pytest.approx(1.0, abs=1e-5)
    asked = [scores(model, clip, [said]) / scores(model, later, [said]) for said in ("close the drawer", "turn the dial")]
    torch.testing.assert_close(asked[0], asked[1], msg="words change the gate, not who has got further")


@torch.no_grad()
def test_match_sees_what_there_is_and_not_where():
    model, opening = tiny(), torch.randn(1, 12)
    elsewhere, other = opening.clone(), opening.clone()
    elsewhere[:, :7] += 1.0
    other[:, 7:] += 1.0
    torch.testing.assert_close(model.embed_opening(elsewhere), model.embed_opening(opening))
    assert (model.embed_opening(other) - model.embed_opening(opening)).abs().max() > 1e-3


@torch.no_grad()
def test_words_are_misheard_in_training_alone():
    torch.manual_seed(0)
    words, mask = HashedWords().encode(["close the drawer", "press the button on the front of the box"] * 50)
    heard = mishear(words, mask, 0.3)
    changed = (heard != words).any(2)
    assert changed[mask].float().mean().item() == pytest.approx(0.3, abs=0.05)
    assert heard[changed & mask].std().item() == pytest.approx(words[mask].std().item(), rel=0.1)
    assert (mishear(words, mask, 0.0) == words).all()
    model = tiny(word_error=0.5)
    torch.testing.assert_close(model.encode_text(words, mask), model.encode_text(words, mask))
    model.train()
    assert (model.encode_text(words, mask) != model.encode_text(words, mask)).any()


@torch.no_grad()
def test_the_score_is_scale_times_gate_times_floor_and_progress():
    model = tiny(scale=3.0)
    sharpness, threshold, floor = model.config.gate
    video, text = torch.zeros(2, 1, 65), torch.zeros(1, 1, 64)
    video[0, 0, 0], video[1, 0, 0], text[0, 0, 0] = 0.5, threshold, 1.0  # cosines .5 and b
    video[0, 0, -1], video[1, 0, -1] = 0.0, 50.0
    found = model.score(video, text, torch.ones(1, 1, dtype=torch.bool), torch.tensor([0, 1]), torch.tensor([0, 0]))
    open_gate = 1 / (1 + math.exp(-sharpness * (0.5 - threshold)))
    torch.testing.assert_close(found, torch.tensor([3 * open_gate * (floor + 0.5), 3 * 0.5 * (floor + 1.0)]))


@torch.no_grad()
def test_members_are_averaged_and_each_is_alone():
    model, clips = tiny(members=3), torch.randn(4, 9, 1, 12)
    torch.nn.init.normal_(model.state_weight)
    said = ["close the drawer", "turn the dial", "open the door", "press the button"]
    together, alone = scores(model, clips, said), []
    members = list(model.members)
    for member in members:
        model.members = torch.nn.ModuleList([member])
        alone.append(scores(model, clips, said))
    torch.testing.assert_close(together, torch.stack(alone).mean(0))
    assert (alone[0] - alone[1]).abs().min() > 1e-4


def test_motion_by_hand():
    state = torch.zeros(1, 3, 18)
    state[0, 1, :3] = torch.tensor([0.3, 0.0, 0.4])  # the hand moves half a metre,
    state[0, 2, :3] = torch.tensor([0.3, 0.0, 0.4])  # and stays
    state[0, 2, 4] = 0.1  # while the first object follows ten centimetres
    found = motion(state)
    assert found.shape == (1, 2, 36)
    first, second = found[0].tolist()
    assert first[:6] == pytest.approx([3, 0, 4, 3, 0, 4]) and second[:6] == pytest.approx([2, 0, 4, 3, 0, 4])  # reaches
    assert first[6:9] == second[6:9] == pytest.approx([3, 0, 4])  # the hand since the opening
    assert first[9:12] == [0, 0, 0] and second[9:12] == pytest.approx([2, 0, 0])  # the first object
    assert first[24:27] == [0, 0, 0] and second[24:27] == [0, 0, 0]  # steps between frames after the opening
    assert first[27:30] == pytest.approx([5, 5, 5]) and second[27] == pytest.approx(10 * math.hypot(0.2, 0.4))  # lengths


@given(st.lists(st.floats(-1, 1), min_size=3, max_size=3))
def test_motion_does_not_know_where_in_the_room_it_is(shift):
    state = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 9, 18)))
    moved = state.clone()
    for first in (0, 4, 11):
        moved[..., first : first + 3] += torch.tensor(shift, dtype=torch.float64)
    torch.testing.assert_close(motion(moved), motion(state))


def test_objects_are_misread_in_training_alone_and_the_hand_never():
    torch.manual_seed(0)
    state = torch.randn(2000, 9, 18)
    error = misread(state, 0.05, 0.0) - state
    objects = [*range(4, 7), *range(11, 14)]
    others = [column for column in range(18) if column not in objects]
    assert (error[..., others] == 0).all()
    torch.testing.assert_close(error[:, 1:], error[:, :1].expand(-1, 8, -1), atol=1e-6, rtol=0, msg="one error a clip")
    assert error[:, 0, objects].std(0).numpy() == pytest.approx(0.05, rel=0.1)
    wandering = (misread(state, 0.0, 0.02) - state)[..., objects]
    assert wandering.std(1).mean().item() == pytest.approx(0.02, rel=0.1)
    assert (misread(state, 0.0, 0.0) == state).all()

    model, clip = tiny(object_error=(0.5, 0.5)), torch.randn(1, 9, 12)
    torch.nn.init.normal_(model.state_weight)
    assert model.progress(clip) == model.progress(clip)
    model.train()
    assert model.progress(clip) != model.progress(clip)


def test_the_state_is_read_off_features_that_hold_it():
    model = tiny()
    rng = np.random.default_rng(0)
    features = rng.normal(size=(400, 1, 12))
    states = np.pad(features[:, 0, :7] @ rng.normal(size=(7, 18)) + rng.normal(size=18), ((0, 0), (0, 21)))
    model.fit_state(features, states)
    seen = torch.from_numpy(features[:5, 0, :7]).float() @ model.state_weight + model.state_bias
    np.testing.assert_allclose(seen, states[:5, :18], atol=0.05)


def test_match_loss_by_hand():
    openings = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    sentences = torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]]])
    temperature = torch.tensor([2.0])  # logits [[2, 2], [0, 0]]
    own = torch.eye(2, dtype=torch.bool)
    which_opening, which_sentence = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(2))) / 2, math.log(2)
    assert match_loss(openings, sentences, own, temperature, (1.0, 0.0)).item() == pytest.approx(which_opening)
    assert match_loss(openings, sentences, own, temperature, (0.0, 3.0)).item() == pytest.approx(3 * which_sentence)
    all_alike = match_loss(openings, openings, torch.ones(2, 2, dtype=torch.bool), torch.tensor([0.0]), (1.0, 1.0))
    assert all_alike.item() == pytest.approx(2 * math.log(2)), "several positives share the probability"
    two = (torch.cat([x, x], dim=1) for x in (openings, sentences))
    undecided = torch.tensor([2.0, 0.0])  # the second member's logits are all 0
    assert match_loss(*two, own, undecided, (1.0, 0.0)).item() == pytest.approx((which_opening + math.log(2)) / 2)


def test_progress_loss_by_hand():
    worse, better = torch.tensor([[0.0], [50.0]]), torch.tensor([[0.0], [-50.0]])
    assert progress_loss(worse, better, torch.ones(2)).item() == pytest.approx((math.log(2) + math.log(1 + math.exp(8))) / 2)
    assert progress_loss(worse, better, torch.tensor([0.5, 0.0])).item() == pytest.approx(math.log(2) / 4)


@torch.no_grad()
def test_one_frame_is_the_last():
    model, clip = tiny(frames=1), torch.randn(1, 9, 1, 12)
    torch.nn.init.normal_(model.state_weight)
    others, last = clip.clone(), clip.clone()
    others[:, 1:8] += 1.0
    last[:, 8] += 1.0
    one, same, differs = (model.encode_video(x)[0, 0, -1] for x in (clip, others, last))
    assert one == same and abs(one - differs) > 1e-4


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_beginnings_and_later_segments_come_from_one_task_and_may_run_backwards(share):
    index = bank_index()
    sampler = OrderSampler(index, TASKS, OrdersConfig(reversed_share=share))
    assert all(task(name).truly_reversible for name in sampler.reversible) and sampler.reversible
    for draw in (sampler.draw_prefixes, sampler.draw_later):
        for worse, better in zip(*draw(50, np.random.default_rng(0)), strict=True):
            low, high = index.iloc[worse], index.iloc[better]
            assert low["task"].nunique() == high["task"].nunique() == 1
            assert low["task"].iloc[0] == high["task"].iloc[0] and set(high["level"]) == {"expert"}
            last = index[index["episode"] == high["episode"].iloc[0]].query("task == @high.task.iloc[0]")["step"].max()
            begins = last if share and high["task"].iloc[0] in sampler.reversible else 0
            assert high["step"].iloc[0] == begins
            gone = [abs(clip["step"] - clip["step"].iloc[0]).iloc[-1] for clip in (low, high)]
            assert (np.diff(abs(high["step"] - begins)) >= 0).all()
            if set(low["level"]) == {"expert"}:
                assert gone[1] > gone[0] and low["episode"].iloc[0] == high["episode"].iloc[0]
            else:
                assert set(low["level"]) == {"random"} and draw == sampler.draw_prefixes
    one, two = (sampler.draw_later(8, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(one, two)


def test_scenes_are_told_by_sentences_of_their_own_task():
    index = bank_index()
    sampler = OrderSampler(index, TASKS, OrdersConfig())
    rows, said, numbers = sampler.draw_scenes(60, np.random.default_rng(0))
    assert rows.shape == numbers.shape == (60,)
    for row, sentence, number in zip(rows, said, numbers, strict=True):
        assert index["task"].iloc[row] == TASKS[number] and sentence in instructions(TASKS[number])
    assert index["step"].iloc[rows].nunique() > 5, "from anywhere in the episode"
