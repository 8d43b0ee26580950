"""Ranking of written rewards: hand-worked numbers, noise that is what it says, and rewards whose place is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from offline_toys import FIELDS, walker

from robopref.configs.errors import RoboprefError
from robopref.configs.prof import RankingConfig, SandboxConfig
from robopref.preference.prof.ranking import (
    SMOOTH,
    Comparison,
    Evidence,
    Score,
    best,
    commonest,
    copeland,
    correlation,
    judge,
    judge_all,
    margin,
    noise,
    noisy_copy,
    random_segments,
    rank,
    segments,
    shares,
)
from robopref.preference.prof.sandbox import Sandbox

CONFIG = RankingConfig(horizon=10, draws=2, levels=(1.0, 4.0), alpha_o=0.3, alpha_a=0.3)


def code(expression: str) -> str:
    return f"def reward(obs, act, next_obs):\n    return {expression}\n"


def test_margin_by_hand():
    # means 2 and 1, variances 2/3 and 0: pooled deviation sqrt(1/3)
    assert margin(np.array([1.0, 2.0, 3.0]), np.array([1.0, 1.0, 1.0])) == pytest.approx(3**0.5, rel=1e-6)


def test_a_reward_that_says_nothing_has_no_margin():
    assert margin(np.ones(5), np.ones(5)) == 0


@given(st.lists(st.floats(-10, 10), min_size=3, max_size=6), st.floats(0.5, 20), st.floats(-5, 5))
def test_scale_and_shift_of_a_reward_do_not_count(values, scale, shift):
    good, bad = np.array(values), np.array(values)[::-1] ** 2
    if np.sqrt(good.var() + bad.var()) > 1e-2:
        assert margin(scale * good + shift, scale * bad + shift) == pytest.approx(margin(good, bad), rel=1e-3, abs=1e-4)


def test_segments_do_not_overlap_and_stay_in_their_episode():
    experts = walker(lengths=(25, 30))
    starts, length = segments(experts, 10)
    assert (starts.tolist(), length) == ([0, 10, 25, 35, 45], 10)


def test_horizon_0_is_the_whole_of_the_shortest_episode():
    starts, length = segments(walker(lengths=(25, 30)), 0)
    assert (starts.tolist(), length) == ([0, 25], 25)


def test_a_horizon_beyond_the_episode_is_cut_to_it():
    assert segments(walker(lengths=(8,)), 50)[1] == 8


def test_random_segments_lie_inside_episodes():
    data = walker(lengths=(12, 9, 30))
    numbers = random_segments(data, 10, 500, np.random.default_rng(0))
    episode = np.searchsorted(data.first, numbers, side="right")
    assert (episode == episode[:, :1]).all() and numbers.shape == (500, 10)
    assert set(numbers[:, 0]) == {0, 1, 2, *range(21, 42)}  # every start that there is


def test_no_segment_where_episodes_are_too_short():
    assert random_segments(walker(lengths=(5,)), 10, 3, np.random.default_rng(0)).size == 0


def test_noise_has_deviation_one_and_smooth_noise_remembers():
    first, rng = np.array([0, 30_000, 60_000]), np.random.default_rng(0)
    white, smooth = (noise((60_000, 1), first, kind, rng)[:, 0] for kind in ("white", "smooth"))
    assert white.std() == pytest.approx(1, abs=0.02) and smooth.std() == pytest.approx(1, abs=0.1)
    assert np.corrcoef(white[:-1], white[1:])[0, 1] == pytest.approx(0, abs=0.02)
    assert np.corrcoef(smooth[:-1], smooth[1:])[0, 1] == pytest.approx(SMOOTH, abs=0.01)
    assert abs(smooth[30_000] - SMOOTH * smooth[29_999]) > 1e-9  # an episode begins anew


def test_a_noisy_copy_has_the_noise_that_was_asked_for():
    data, experts = walker(lengths=(400,) * 5, seed=1), walker(lengths=(4000,), skill=1.0)
    obs, actions, next_obs = noisy_copy(experts, data, replace(CONFIG, alpha_a=0.0), 2.0, np.random.default_rng(0))
    assert np.allclose((obs - experts.obs).std(0), 2 * 0.3 * data.observations.std(0), rtol=0.1)
    assert np.array_equal(actions, experts.actions)
    assert np.array_equal(obs[1:], next_obs[:-1])  # the same noisy sequence
    obs, actions, _ = noisy_copy(experts, data, replace(CONFIG, alpha_o=0.0), 50.0, np.random.default_rng(0))
    assert np.array_equal(obs, experts.obs)
    assert actions.min() >= min(data.actions.min(), experts.actions.min())
    assert actions.max() <= max(data.actions.max(), experts.actions.max())


def test_shares_and_copeland_by_hand():
    a, b, c = np.array([[[2.0, 2.0, 0.0]]]), np.array([[[1.0, 3.0, 0.0]]]), np.array([[[0.0, 0.0, 0.5]]])
    assert shares([[a], [b], [c]], 0.1) == [pytest.approx(2 / 3), pytest.approx(2 / 3), pytest.approx(1 / 3)]
    # a and b win one pair from each other; both win two from c, which wins one
    assert copeland([[a], [b], [c]], 0.1) == [0.5, 0.5, -1.0]


def test_kinds_of_pairs_count_alike_however_many_there_are():
    few, many = np.ones((1, 1, 2)), np.zeros((50, 4))
    assert shares([[few, many], [few], [many]], 0.1) == [0.5, 1.0, 0.0]
    assert copeland([[few, many], [few - 0.5, many]], 0.1) == [1.0, -1.0]


def test_pairs_with_the_data_know_what_noise_does_not():
    # noise around the expert's speed is no slower, on average; what the data do is
    sources = [code("obs[:, speed]"), code("-np.square(obs[:, wobble] - next_obs[:, wobble])")]
    data, experts = walker(lengths=(40,) * 8), walker(skill=1.0)
    first = {}
    for pairs in ("noise", "data", "both"):
        config = replace(CONFIG, pairs=pairs)
        with Comparison(data, experts, config, 0) as comparison:
            scores = rank(judge_all(comparison, Sandbox(SandboxConfig()), sources, FIELDS, 2), config)
        first[pairs] = scores[0].dominance
    assert first["data"] == 1.0 and first["noise"] < 0.7
    assert first["both"] == pytest.approx((first["data"] + first["noise"]) / 2)


def test_pairs_with_data_of_short_episodes_are_an_error():
    config = replace(CONFIG, pairs="data")
    with Comparison(walker(lengths=(4, 5)), walker(skill=1.0), config, 0) as comparison:
        score = judge(comparison, Sandbox(SandboxConfig()), code("obs[:, speed]"), FIELDS)
    with pytest.raises(RoboprefError, match="lower horizon"):
        rank([score], config)


@given(st.integers(2, 5), st.integers(0, 1000))
def test_copeland_is_a_game_of_sum_zero(count, seed):
    margins = np.random.default_rng(seed).normal(size=(count, 2, 2, 2, 3))
    assert sum(copeland([list(kinds) for kinds in margins], 0.1)) == pytest.approx(0)


def test_ties_go_to_the_larger_margin_then_to_the_shorter_code():
    with Comparison(walker(), walker(skill=1.0), CONFIG, 0) as comparison:
        judged = [
            judge(comparison, Sandbox(SandboxConfig()), code(e), FIELDS)
            for e in ("obs[:, speed]", "(obs[:, speed])", "np.zeros(len(obs))", "obs[:, nothing]")
        ]
    scores = rank(judged, CONFIG)
    assert [score.dominance for score in scores][:2] == [scores[0].dominance] * 2
    assert best(scores) == 0 and scores[2].dominance == 0
    assert scores[3].evidence is None and "nothing is not defined" in scores[3].problem


def test_commonest_and_correlation():
    assert commonest(np.array([1.0, 2.0, 1.0, 3.0])) == 0.5
    assert commonest(np.zeros(7)) == 1.0
    assert correlation(np.array([0, 1, 2.0]), np.array([3, 2, 1.0])) == -1
    assert correlation(np.array([0, 1, 2.0]), np.zeros(3)) == 0


@pytest.mark.parametrize("dominance", ["share", "copeland"])
def test_what_suits_the_expert_is_ranked_first_and_its_opposite_last(dominance):
    config = replace(CONFIG, dominance=dominance)
    sources = [
        code("-obs[:, wobble]**2"),
        code("obs[:, wobble]**2"),
        code("np.ones(len(obs))"),
    ]
    with Comparison(walker(), walker(skill=1.0), config, 0) as comparison:
        scores = rank(judge_all(comparison, Sandbox(SandboxConfig()), sources, FIELDS, 2), config)
    dominances = [score.dominance for score in scores]
    assert best(scores) == 0 and dominances[0] > dominances[2] >= dominances[1]
    found = scores[0].evidence
    assert found is not None and found.order < -0.5 and found.gap > 0
    other = scores[1].evidence
    assert other is not None and other.order > 0.5


def test_the_data_s_transitions_get_what_the_code_says_of_them():
    data = walker()
    with Comparison(data, walker(skill=1.0), CONFIG, 0) as comparison:
        score = judge(comparison, Sandbox(SandboxConfig()), code("2 * next_obs[:, speed] + act[:, push]"), FIELDS)
    assert score.evidence is not None
    assert np.allclose(score.evidence.values, 2 * data.next_obs[:, 0] + data.actions[:, 0], atol=1e-5)
    assert {"syntax", "process", "limits"} <= set(score.layers)


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("np.log(obs[:, speed] - 1e9)", "it is not finite on 100.00% of the transitions"),
        ("obs[:, speed] - obs[:, speed].mean()", "depends on other rows"),
        ("obs[:, speed][:3]", "shape (3,)"),
    ],
)
def test_what_is_wrong_with_a_reward_is_said(expression, problem):
    with Comparison(walker(), walker(skill=1.0), CONFIG, 0) as comparison:
        score = judge(comparison, Sandbox(SandboxConfig()), code(expression), FIELDS)
    assert score.evidence is None and problem in score.problem and score.dominance == -np.inf


def test_the_same_seed_compares_the_same_and_another_does_not():
    margins = []
    for seed in (0, 0, 1):
        with Comparison(walker(), walker(skill=1.0), CONFIG, seed) as comparison:
            score = judge(comparison, Sandbox(SandboxConfig()), code("-obs[:, wobble]**2"), FIELDS)
        assert score.evidence is not None
        margins.append(score.evidence.margins)
    assert np.array_equal(margins[0], margins[1]) and not np.array_equal(margins[0], margins[2])


@pytest.mark.parametrize(
    "changes", [{"levels": ()}, {"levels": (0.0, 1.0)}, {"draws": 0}, {"horizon": -1}, {"alpha_o": 0.0, "alpha_a": 0.0}]
)
def test_settings_that_leave_nothing_to_compare_are_errors(changes):
    with pytest.raises(RoboprefError, match="ranking: "):
        Comparison(walker(), walker(), replace(CONFIG, **changes), 0)


def test_an_expert_of_another_robot_is_an_error():
    other = replace(walker(), actions=np.zeros((len(walker()), 3), np.float32))
    with pytest.raises(RoboprefError, match="observations and actions of"):
        Comparison(walker(), other, CONFIG, 0)


def test_no_candidate_that_runs_is_an_error():
    with pytest.raises(RoboprefError, match="no candidate could be run; the first: it is nonsense"):
        best([Score("x", None, "it is nonsense")])


def test_a_margin_of_exactly_delta_does_not_win():
    edge = np.array([0.5, 0.25, 0.5 + 1e-9])
    assert shares([[edge]], 0.5) == [pytest.approx(1 / 3)] and shares([[edge]], 0.25) == [pytest.approx(2 / 3)]
    at, below, above = (np.array([value]) for value in (0.5, 0.25, 0.5 + 1e-9))
    assert copeland([[at], [below]], 0.5) == [0.0, 0.0], "neither wins its pair, so neither beats the other"
    assert copeland([[above], [at]], 0.5) == [1.0, -1.0]


def test_a_reward_that_does_not_vary_may_still_prefer_the_expert():
    """Nothing to divide by: the margin is as large as it gets, and of the right sign."""
    assert margin(np.full(5, 2.0), np.full(5, 1.0)) > 1e7 and margin(np.full(5, 1.0), np.full(5, 2.0)) < -1e7


def test_order_is_undecided_only_where_nothing_varies():
    assert correlation(np.full(4, 3.0), np.arange(4.0)) == correlation(np.arange(4.0), np.full(4, 3.0)) == 0
    steps = np.array([0.0, 1.0, 0.0, 1.0])
    assert correlation(steps, steps) == pytest.approx(1) and correlation(steps, -steps) == pytest.approx(-1)


def test_the_rule_of_dominance_is_the_one_asked_for():
    few, many = (
        Evidence(np.array([[[x, y]]]), np.zeros((0, 1)), 0.0, 0.0, 0.0, np.zeros(1)) for x, y in ((0.5, 0.0), (1.0, 1.0))
    )
    scores = [Score("a", few), Score("broken", None, "why"), Score("b", many)]
    share, game = (rank(scores, replace(CONFIG, dominance=rule, pairs="noise")) for rule in ("share", "copeland"))
    assert [score.dominance for score in share] == [0.5, -np.inf, 1.0]
    assert [score.dominance for score in game] == [-1.0, -np.inf, 1.0]
    assert best(share) == best(game) == 2 and share[1].problem == "why"


def test_what_may_be_rounding_is_no_margin():
    good, bad = np.full(50, 1.0), 1.0 + 1e-6 * np.arange(50) / 50
    assert margin(good, bad) == 0 and margin(bad, good) == 0
    assert margin(good, good - 0.5) > 1e6  # constant in either, and not the same
    assert margin(good + 1e-3, bad) > 1e3


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("1e5 + obs[:, speed]", "its values differ by less than 0.0001 of their size: leave the constant out"),
        ("np.where(obs[:, speed] > 1, 1.7e308, -1.7e308)", "it says 1.7e+308 of a transition; at most 1e+100"),
    ],
)
def test_hidden_constants_and_huge_values_are_refused(expression, says):
    with Comparison(walker(), walker(skill=1.0), CONFIG, 0) as comparison:
        sandbox = Sandbox(SandboxConfig())
        score = judge(comparison, sandbox, code(expression), FIELDS)
        assert score.evidence is None and score.problem == says
        assert judge(comparison, sandbox, code("10 + obs[:, speed]"), FIELDS).evidence is not None
