from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import point_reach
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robopref.configs.errors import RoboprefError
from robopref.policies.replay import MIN_STD, Pairs, stack_episodes, stack_pairs
from robopref.preference.members import member_rngs


def test_transitions_keep_episodes_apart() -> None:
    episodes = point_reach.episodes(3)
    data = stack_episodes(episodes, normalise=False)
    assert len(data) == 3 * point_reach.STEPS
    assert data.first.tolist() == [0, 30, 60, 90]
    numbers = torch.tensor([[0, 29, 30, 89]])
    batch = data.batch(numbers)
    expected = [episodes[e].observations[t] for e, t in ((0, 0), (0, 29), (1, 0), (2, 29))]
    after = [episodes[e].observations[t + 1] for e, t in ((0, 0), (0, 29), (1, 0), (2, 29))]
    np.testing.assert_allclose(batch.obs[0], np.stack(expected), atol=1e-6)
    np.testing.assert_allclose(batch.next_obs[0], np.stack(after), atol=1e-6)
    np.testing.assert_allclose(batch.actions[0, 3], episodes[2].actions[29])


def test_observations_are_normalised_and_constant_ones_stay_tame() -> None:
    episodes = point_reach.episodes(3)
    for episode in episodes:
        episode.observations[:, 2] = 7.0
    data = stack_episodes(episodes)
    torch.testing.assert_close(data.obs.mean(0), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(data.obs[:, :2].std(0, correction=0), torch.ones(2), atol=1e-4, rtol=0)
    assert data.normaliser.std[2] == MIN_STD


@pytest.mark.parametrize("name", ["observations", "actions", "rewards"])
def test_nan_names_the_episode(name: str) -> None:
    episodes = point_reach.episodes(2)
    getattr(episodes[1], name)[3] = np.nan
    with pytest.raises(RoboprefError, match=f"data/x, episode 1: {name} hold NaN"):
        stack_episodes(episodes, where="data/x")


@pytest.mark.parametrize("name", ["observations", "actions"])
def test_an_episode_of_another_width_is_named(name: str) -> None:
    episodes = point_reach.episodes(2)
    narrow = replace(episodes[1], **{name: np.repeat(getattr(episodes[1], name), 2, axis=1)})
    with pytest.raises(RoboprefError, match=r"data/x, episode 1: observations and actions of .* numbers, the others have"):
        stack_episodes([episodes[0], narrow], where="data/x")


def test_actions_outside_the_range_and_no_episode_are_errors() -> None:
    episode = point_reach.episodes(1)[0]
    with pytest.raises(RoboprefError, match=r"reach 3.*\[-1, 1\]"):
        stack_episodes([replace(episode, actions=np.full_like(episode.actions, 3.0))])
    with pytest.raises(RoboprefError, match="no episode"):
        stack_episodes([])


def preferences(**changes: object) -> pd.DataFrame:
    row = {"episode_a": 0, "start_a": 2, "stop_a": 12, "episode_b": 1, "start_b": 0, "stop_b": 10, "label": 1.0}
    return pd.DataFrame([row, row | changes])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"episode_b": 3}, "episode 3 is not in the given episodes"),
        ({"episode_b": 2}, r"episode 2 is not in the given episodes \(0 to 1\)"),
        ({"episode_a": -1}, "episode -1 is not in"),
        ({"stop_a": 31}, "steps 2 to 31 of episode 0"),
        ({"start_a": 12}, "steps 12 to 12 of episode 0"),
        ({"label": 1.5}, "label 1.5"),
        ({"label": float("nan")}, "label nan"),
        ({"episode_a": None}, "video files"),
    ],
)
def test_labels_that_do_not_fit_the_data_say_why(changes: dict[str, object], message: str) -> None:
    first = np.array([0, 30, 60])
    with pytest.raises(RoboprefError, match=message) as caught:
        stack_pairs(preferences(**changes), first, where="labels.parquet")
    assert str(caught.value).startswith("labels.parquet")


def test_no_pair_is_an_error() -> None:
    with pytest.raises(RoboprefError, match="no labelled pair"):
        stack_pairs(preferences().iloc[:0], np.array([0, 30, 60]))


def test_pairs_without_a_label_never_reach_a_batch() -> None:
    table = pd.concat([preferences(start_a=5, label=0.5), preferences(start_a=5, label=0.5)])
    table = table.assign(abstained=[False, True, False, True])
    pairs = stack_pairs(table, np.array([0, 30, 60]))
    assert len(pairs) == 2 and pairs.start[:, 0].tolist() == [2, 2]
    batch = pairs.sample(member_rngs([0, 1], "t"), 50)
    assert batch.a[..., 0].unique().tolist() == [2] and batch.label.unique().tolist() == [1.0]
    assert pairs.transitions().tolist() == [*range(2, 12), *range(30, 40)]
    with pytest.raises(RoboprefError, match="no labelled pair"):
        stack_pairs(table[table["abstained"]], np.array([0, 30, 60]))


def test_pairs_point_into_the_transitions() -> None:
    pairs = stack_pairs(preferences(label=0.25), np.array([0, 30, 60]))
    assert pairs.start.tolist() == [[2, 30], [2, 30]]
    assert pairs.label.tolist() == [1.0, 0.25]
    assert pairs.transitions().tolist() == [*range(2, 12), *range(30, 40)]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 60))
def test_drawn_steps_stay_inside_and_weigh_as_much_as_the_segment(length_a: int, length_b: int, steps: int) -> None:
    pairs = Pairs(torch.tensor([[100, 300]]), torch.tensor([[length_a, length_b]]), torch.tensor([1.0]))
    batch = pairs.sample(member_rngs([0, 1], "t"), 8, steps)
    for numbers, weight, start, length in (
        (batch.a, batch.weight_a, 100, length_a),
        (batch.b, batch.weight_b, 300, length_b),
    ):
        assert numbers.min() >= start and numbers.max() < start + length
        torch.testing.assert_close(weight.squeeze(-1) * numbers.shape[-1], torch.full((2, 8), float(length)))


def test_whole_segments_are_every_step_once() -> None:
    pairs = Pairs(torch.tensor([[5, 70]]), torch.tensor([[50, 50]]), torch.tensor([1.0]))
    batch = pairs.sample(member_rngs([0], "t"), 4)
    assert batch.a[0, 3].tolist() == list(range(5, 55))
    assert batch.weight_a.unique().tolist() == [1.0]


def test_it_is_the_wrong_label_that_is_named() -> None:
    table = pd.concat([preferences(label=0.3), preferences(label=0.5), preferences(label=-0.25)])
    with pytest.raises(RoboprefError, match=r"label -0\.25 is not in \[0, 1\]"):
        stack_pairs(table, np.array([0, 30, 60]))


def test_a_phase_that_rounds_up_stays_inside_the_segment() -> None:
    class Latest:
        def integers(self, count: int, size: int) -> np.ndarray:
            return np.zeros(size, np.int64)

        def random(self, shape: tuple[int, ...]) -> np.ndarray:
            return np.full(shape, 1 - 2.0**-53)  # 9 + this is 10

    pairs = Pairs(torch.tensor([[0, 10]]), torch.tensor([[10, 5]]), torch.ones(1))
    batch = pairs.sample([Latest()], 1, steps=10)  # type: ignore[list-item]
    assert batch.a[0, 0, -1] == 9 and batch.b[0, 0, -1] == 14
