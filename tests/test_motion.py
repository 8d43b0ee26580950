"""Labellers that see neither pixels nor words: by hand, what they do not depend on, and what they make of labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robopref.configs.annotate import AnnotateConfig
from robopref.configs.errors import UsageError
from robopref.configs.files import read_json
from robopref.datasets.clips import Segment
from robopref.datasets.episodes import EpisodeStore
from robopref.datasets.preferences import read_preferences
from robopref.policies.benchmarks.annotate import record_episodes
from robopref.preference import annotate
from robopref.preference.agreement import agreement, better_cluster
from robopref.preference.baselines.motion import MOTIONS, displacement, first_half
from robopref.preference.scoring import hand_positions, true_returns

COORDINATE = st.floats(-1, 1).map(lambda x: round(x, 3))
PLACE = st.tuples(COORDINATE, COORDINATE, COORDINATE)


def clip(hand) -> tuple[np.ndarray, np.ndarray]:
    """One clip whose hand is at these places, (1 + T, 3), the opening first."""
    return np.array(hand, float), np.arange(len(hand))[None]


def along(*x: float) -> tuple[np.ndarray, np.ndarray]:
    """One clip whose hand is at these places of the first axis, the opening first."""
    return clip([[place, 0.2, 0.1] for place in x])


def test_displacement_by_hand():
    """The opening and three frames; 3, 4 and 12 cm apart make 13."""
    assert displacement(*clip([[0, 0, 0], [1, 1, 1], [9, 9, 9], [0.03, 0.04, 0.12]])) == pytest.approx([0.13])
    assert displacement(*along(0.3, 0.3, 0.9, 0.3)) == pytest.approx([0.0])  # it came back


def test_share_of_the_motion_by_hand():
    assert first_half(*along(0, 0, 3, 4)) == pytest.approx([3 / 4])  # two lines, 3 and 1
    assert first_half(*along(0, 0, 2, 4, 5)) == pytest.approx([(2 + 2 / 2) / 5])  # three: 2, 2, 1; the middle one is halved
    assert first_half(*along(9, 0, 1, 0, -2)) == pytest.approx([1.5 / 4])  # the opening is no part of it, back and forth is
    assert first_half(*along(5, 1, 1, 1)) == pytest.approx([0.5])  # at rest
    assert first_half(*along(5, 1)) == pytest.approx([0.5])  # a clip of one frame


def test_a_clip_of_a_bank_moves_over_all_rows_between_its_own():
    """Rows 0 to 4 are one episode, 5 to 7 the next; a clip shows some of them, and its hand has been at all."""
    hand = np.zeros((8, 3), np.float32)
    hand[:, 0] = [0, 3, 4, 4, 4, 90, 90, 91]
    clips = np.array([[0, 0, 4], [5, 5, 7]])  # the opening, the first and the last
    assert first_half(hand, clips) == pytest.approx([4 / 4, 0 / 1])
    assert displacement(hand, clips) == pytest.approx([4, 1])


@given(st.lists(PLACE, min_size=4, max_size=9), st.randoms(use_true_random=False), PLACE)
def test_displacement_knows_nothing_of_the_path(places, random, shift):
    far = displacement(*clip(places))
    between = places[1:-1]
    random.shuffle(between)
    assert displacement(*clip([places[0], *between, places[-1]])) == far
    np.testing.assert_allclose(displacement(*clip(np.array(places) + np.array(shift))), far, atol=1e-9)
    np.testing.assert_allclose(displacement(*clip(places[::-1])), far, atol=1e-12)


@given(st.lists(PLACE, min_size=4, max_size=9), st.sampled_from([0.5, 2.0, 8.0]), PLACE)
def test_the_share_knows_neither_size_nor_place_and_is_mirrored_by_time(places, scale, shift):
    hand, share = np.array(places), first_half(*clip(places))
    assert -1e-9 <= share <= 1 + 1e-9
    np.testing.assert_allclose(first_half(*clip(scale * hand)), share, atol=1e-6)
    if len(set(places[1:])) > 1:
        np.testing.assert_allclose(first_half(*clip(hand + np.array(shift))), share, atol=1e-6)
        backwards = np.concatenate([hand[:1], hand[:0:-1]])
        np.testing.assert_allclose(first_half(*clip(backwards)), 1 - share, atol=1e-6)


@pytest.fixture(scope="module")
def episodes(tmp_path_factory):
    return record_episodes(tmp_path_factory.mktemp("data") / "drawer-close", count=4, steps=70)


@pytest.fixture
def config(tmp_path, episodes):
    return AnnotateConfig(out=tmp_path / "labels.parquet", episodes=episodes, pairs=12, pairing="clusters", threads=1)


def test_positions_are_those_of_the_frames_that_a_clip_shows(episodes):
    store = EpisodeStore(episodes)
    hand, clips = hand_positions(store, [Segment(0, 10, 60), Segment(2, 0, 50)])
    seen = store.episode(0).observations[:, :3]
    np.testing.assert_array_equal(hand[clips[0]], seen[[0, 10, 17, 24, 31, 38, 45, 52, 59]])
    assert hand.shape == (18, 3) and clips.shape == (2, 9)
    np.testing.assert_array_equal(hand[clips[1, 0]], hand[clips[1, 1]])  # it begins where its episode begins


@pytest.mark.parametrize("labeller", MOTIONS)
def test_labels_are_those_of_the_motion(config, labeller):
    out = annotate.run(replace(config, labeller=labeller))
    table, store = read_preferences(out), EpisodeStore(config.episodes)
    for side in "ab":
        rows = table[[f"{name}_{side}" for name in ("episode", "start", "stop")]].to_numpy(int).tolist()
        order = sorted(range(len(rows)), key=lambda number: rows[number])
        moved = MOTIONS[labeller](*hand_positions(store, [Segment(*rows[number]) for number in order]))
        np.testing.assert_allclose(table[f"score_{side}"].to_numpy()[order], moved, atol=1e-12)
    np.testing.assert_allclose(table["label"], 1 / (1 + np.exp(table["score_a"] - table["score_b"])))
    assert table["label"].nunique() > 2


def test_the_cluster_bit_is_the_better_cluster_on_every_pair(config):
    """It has the accuracy that every labeller's table quotes for it, and none of its own beyond that."""
    out = annotate.run(replace(config, labeller="better-cluster", hard=True))
    table, found = read_preferences(out), read_json(out.with_suffix(".run") / "agreement.json")
    assert set(table["label"]) <= {0.0, 1.0} and set(table["score_a"]) | set(table["score_b"]) <= {0.0, 1.0, -1.0}
    assert found["accuracy"] == found["cluster_accuracy"] >= 0.5 and found["over_cluster"] == 0.0
    constant = annotate.run(replace(config, labeller="constant", out=config.out.with_name("c.parquet")))
    other = read_json(constant.with_suffix(".run") / "agreement.json")
    assert other["cluster_accuracy"] == found["cluster_accuracy"]  # of the same pairs
    assert other["over_cluster"] == pytest.approx(0.5 - found["cluster_accuracy"])
    returns = {}
    for side in "ab":
        rows = table[[f"{name}_{side}" for name in ("episode", "start", "stop")]].to_numpy(int).tolist()
        returns[side] = np.array([true_returns(EpisodeStore(config.episodes), [Segment(*row)])[0] for row in rows])
    right = (table["label"] == 1) == (returns["b"] > returns["a"])
    assert right.mean() == pytest.approx(found["accuracy"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labeller": "hand-displacement", "episodes": None, "videos": ("a.mp4",), "pairing": "random"}, "needs --episodes"),
        ({"labeller": "better-cluster", "pairing": "random"}, "needs --pairing clusters"),
        ({"labeller": "better-cluster", "abstain": 0.2, "abstain_by": "confidence"}, "has none to be unsure of"),
    ],
)
def test_what_they_cannot_do_is_said(config, changes, message):
    with pytest.raises(UsageError, match=message):
        annotate.run(replace(config, **changes))


PAIR = st.tuples(st.integers(-5, 5), st.booleans())


@given(st.lists(PAIR, min_size=1, max_size=30))
def test_the_cluster_bit_wins_nothing_over_itself(pairs):
    """Its accuracy is the better cluster's, and balanced over which cluster wins it is a coin; so is a constant."""
    truth = np.array([difference for difference, _ in pairs], float)
    clusters = np.array([[0, 1] if first else [1, 0] for _, first in pairs])
    better = better_cluster(truth, clusters) * (clusters[:, 1] - clusters[:, 0])
    found, constant = agreement(better, truth, clusters), agreement(np.zeros(len(truth)), truth, clusters)
    if (truth != 0).any():
        assert found["accuracy"] == pytest.approx(found["cluster_accuracy"]) and found["over_cluster"] == pytest.approx(0)
        assert constant["accuracy"] == constant["clear_accuracy"] == 0.5
    for row in (found, constant):
        assert np.isnan(row["cluster_balanced_accuracy"]) or row["cluster_balanced_accuracy"] == 0.5
    assert constant["balanced_accuracy"] == 0.5 or np.isnan(constant["balanced_accuracy"])
