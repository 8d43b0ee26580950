from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.spatial import cKDTree
from scipy.special import logsumexp

from robopref.configs.errors import RoboprefError
from robopref.configs.imitation import OTRConfig, SEABOConfig, UDSConfig
from robopref.datasets.offline import OfflineData
from robopref.preference.imitation.experts import antmaze_worth, best_episodes, matches, with_experts
from robopref.preference.imitation.otr import otr_rewards, sinkhorn
from robopref.preference.imitation.scaling import scale_rewards
from robopref.preference.imitation.seabo import expert_distances, seabo_rewards
from robopref.preference.imitation.threads import in_threads
from robopref.preference.imitation.uds import uds_rewards


def offline(
    observations: list[object], actions: list[object], rewards: list[object] | None = None, name: str = "data"
) -> OfflineData:
    """One entry an episode: (T + 1, do), (T, da), (T,)."""
    obs = [np.asarray(part, np.float32) for part in observations]
    act = [np.asarray(part, np.float32) for part in actions]
    lengths = [len(part) for part in act]
    return OfflineData(
        observations=np.concatenate(obs),
        actions=np.concatenate(act),
        rewards=np.concatenate([np.zeros(sum(lengths))] if rewards is None else [np.asarray(part) for part in rewards]).astype(
            np.float32
        ),
        first=np.concatenate([[0], np.cumsum(lengths)]),
        terminated=np.zeros(len(obs), bool),
        name=name,
    )


def wander(rng: np.random.Generator, lengths: list[int], dims: tuple[int, int] = (5, 2), name: str = "data") -> OfflineData:
    return offline(
        [rng.normal(size=dims[0]) + 0.3 * rng.normal(size=(steps + 1, dims[0])).cumsum(0) for steps in lengths],
        [rng.uniform(-1, 1, (steps, dims[1])) for steps in lengths],
        [rng.normal(size=steps) for steps in lengths],
        name,
    )


def transitions(data: OfflineData) -> np.ndarray:
    return np.concatenate([data.obs, data.actions, data.next_obs], 1)


def numbers(obs: list[list[float]], action_dim: int = 1) -> OfflineData:
    """Episodes of one number, with actions of zero."""
    return offline([np.array(part)[:, None] for part in obs], [np.zeros((len(part) - 1, action_dim)) for part in obs])


# experts


def test_the_best_episodes_come_first_and_the_earlier_of_equals() -> None:
    data = offline(
        [[[0.0], [1]], [[2.0], [3], [4]], [[5.0], [6]], [[7.0], [8]]], [[[0]], [[0], [0]], [[0]], [[0]]], [[3], [2, 2], [4], [1]]
    )
    assert best_episodes(data, 3).observations[:, 0].tolist() == [2, 3, 4, 5, 6, 0, 1]
    assert best_episodes(data, 1, worth=np.array([0.0, 1, 5, 5])).observations[:, 0].tolist() == [5, 6]
    with pytest.raises(RoboprefError, match="data holds 4 episodes, so 5 experts"):
        best_episodes(data, 5)
    with pytest.raises(RoboprefError, match="so 0 experts"):
        best_episodes(data, 0)
    with pytest.raises(RoboprefError, match="worth is given as"):
        best_episodes(data, 1, worth=np.zeros(3))


def test_a_last_reward_without_a_transition_counts_when_episodes_are_ranked() -> None:
    data = offline([[[0.0], [1]], [[2.0], [3]], [[4.0], [5]]], [[[0]], [[0]], [[0]]], [[0.1], [0], [0.05]])
    told = replace(data, last_rewards=np.array([0, 1, 0.5], np.float32))
    assert best_episodes(data, 1).observations[0, 0] == 0 and best_episodes(told, 3).observations[::2, 0].tolist() == [2, 4, 0]
    assert told.returns == pytest.approx([0.1, 1, 0.55]) and told.returns_of(told.rewards) == pytest.approx([0.1, 0, 0.05])
    assert best_episodes(told, 2).returns == pytest.approx([1, 0.55])  # and stays with its episode
    assert antmaze_worth(replace(told, observations=np.ones((6, 2), np.float32))).argmax() == 1
    held, _ = with_experts(data, replace(told.take([1]), observations=np.array([[7], [8]], np.float32), name="other"))
    assert held.returns == pytest.approx([0.1, 0, 0.05, 1])
    assert with_experts(told, replace(data.take([1]), observations=np.array([[7], [8]], np.float32)))[0].returns[3] == 0


def test_experts_in_other_units_are_refused() -> None:
    data = offline([[[0.0], [1]]], [[[0.5]]])
    wide, unit = (replace(data, box=(np.array([-bound]), np.array([bound])), name=f"to {bound:g}") for bound in (2.0, 1.0))
    with pytest.raises(RoboprefError, match=r"to 2 has actions in \[-2, 2\], its experts from to 1 in \[-1, 1\]: bring both"):
        matches(wide, unit)
    assert matches(wide, wide).tolist() == matches(data, unit).tolist() == [0]


def test_antmaze_experts_start_near_the_origin() -> None:
    data = offline([[[3.0, 4, 9], [0, 0, 0]], [[0.0, 1, 9], [0, 0, 0]]], [[[0]], [[0]]], [[1], [1]])
    assert antmaze_worth(data) == pytest.approx([1 / 5.0001, 1 / 1.0001])


def test_an_expert_transition_is_found_where_all_three_parts_are_alike() -> None:
    experts = offline([[[1.0], [2], [3]]], [[[0.5], [0.0]]])
    data = offline(
        [[[1.0], [2], [3], [3]], [[1], [2.0001]], [[1], [2]], [[2], [3]]], [[[0.5], [-0.0], [0]], [[0.5]], [[0.4]], [[0.0]]]
    )
    assert matches(data, experts).tolist() == [0, 1, -1, -1, -1, 1]
    with pytest.raises(RoboprefError, match="take experts of the same environment"):
        matches(data, wander(np.random.default_rng(0), [3]))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_matches_are_those_of_comparing_all_with_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    data, experts = (
        offline([rng.integers(2, size=(n + 1, 1)) for n in lengths], [rng.integers(2, size=(n, 1)) for n in lengths])
        for lengths in ([7, 1, 4], [2, 1])
    )
    alike = (transitions(data)[:, None] == transitions(experts)).all(2)
    assert matches(data, experts).tolist() == np.where(alike.any(1), alike.argmax(1), -1).tolist()


def test_experts_of_the_same_file_are_not_added_again() -> None:
    data = wander(np.random.default_rng(1), [4, 6, 3])
    held, known = with_experts(data, data.take([1]))
    assert held is data
    assert np.flatnonzero(known).tolist() == list(range(4, 10))


def test_experts_of_another_file_are_added_and_known() -> None:
    rng = np.random.default_rng(2)
    data, other = wander(rng, [4, 6]), wander(rng, [5, 2], name="other")
    mixed = offline(
        [other.observations[:6], data.observations[5:], other.observations[6:]],
        [other.actions[:5], data.actions[4:], other.actions[5:]],
        [other.rewards[:5], data.rewards[4:], other.rewards[5:]],
    )
    held, known = with_experts(data, mixed)
    assert held.name == "data" and held.lengths.tolist() == [4, 6, 5, 2]
    assert np.flatnonzero(known).tolist() == list(range(4, 17))
    np.testing.assert_array_equal(held.observations, np.concatenate([data.observations, other.observations]))
    np.testing.assert_array_equal(held.rewards, np.concatenate([data.rewards, other.rewards]))


# SEABO


def test_seabo_by_hand() -> None:
    experts = numbers([[0, 0, 10]], action_dim=2)  # (s, s') = (0, 0) and (0, 10)
    data = numbers([[3, 4], [0, 0], [0, 7]], action_dim=2)  # 5 from the first, 0, and 3 from the second
    assert seabo_rewards(data, experts) == pytest.approx(np.exp([-1.25, 0, -0.75]))
    assert seabo_rewards(data, experts, SEABOConfig(alpha=2, beta=5)) == pytest.approx(2 * np.exp([-12.5, 0, -7.5]))
    assert seabo_rewards(data, experts, SEABOConfig(per_action=False)) == pytest.approx(np.exp([-2.5, 0, -1.5]))
    assert seabo_rewards(data, experts, SEABOConfig(neighbours=2))[1:] == pytest.approx(np.exp([-2.5, -1.75]))


def test_seabo_compares_what_it_is_told_to() -> None:
    experts = offline([[[0.0], [0.0]]], [[[0.0]]])
    data = offline([[[2.0], [6.0]]], [[[3.0]]])
    assert [expert_distances(data, experts, SEABOConfig(compare=c)).item() for c in ("sas", "sa", "ss")] == pytest.approx(
        [7, np.sqrt(13), np.sqrt(40)]
    )


@pytest.mark.parametrize("neighbours", [1, 3])
def test_seabo_measures_as_a_k_d_tree_does(neighbours: int) -> None:
    rng = np.random.default_rng(3)
    experts, data = wander(rng, [90, 37], (17, 6)), wander(rng, [300, 1, 412], (17, 6))
    wanted = cKDTree(transitions(experts)).query(transitions(data), k=[neighbours])[0][:, 0]
    found = expert_distances(data, experts, SEABOConfig(neighbours=neighbours))
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_seabo_does_not_lose_small_distances_between_large_numbers() -> None:
    rng = np.random.default_rng(4)
    experts = wander(rng, [200])
    far = replace(experts, observations=experts.observations * 0.01 + 4096)
    near = replace(far, observations=far.observations + rng.choice(np.float32([0, 2**-11]), size=far.observations.shape))
    wanted = cKDTree(transitions(far)).query(transitions(near))[0]
    assert (wanted > 0).any()
    np.testing.assert_allclose(expert_distances(near, far, SEABOConfig()), wanted, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.1, 10), st.floats(0.1, 10), st.floats(1e-3, 1e3))
def test_seabo_is_alpha_for_experts_and_less_for_all_others(seed: int, alpha: float, beta: float, size: float) -> None:
    rng = np.random.default_rng(seed)
    data = wander(rng, [9, 12])
    data = replace(data, observations=data.observations * np.float32(size))
    config = SEABOConfig(alpha=alpha, beta=beta)
    rewards = seabo_rewards(data, data.take([1]), config)
    assert (rewards[9:] == np.float32(alpha)).all()
    assert (rewards >= 0).all() and (rewards[:9] <= np.float32(alpha)).all()
    distance = expert_distances(data, data.take([1]), config)
    assert (np.diff(rewards[np.argsort(distance)]) <= 0).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_seabo_does_not_depend_on_order_or_origin(seed: int) -> None:
    rng = np.random.default_rng(seed)
    data, experts = wander(rng, [30, 7, 12]), wander(rng, [5, 6, 4])
    rewards = seabo_rewards(data, experts)
    columns = rng.permutation(5)
    moved = rng.normal(size=5).astype(np.float32)
    again = [
        replace(part, observations=part.observations[:, columns] + moved) for part in (data, experts.take(rng.permutation(3)))
    ]
    np.testing.assert_allclose(seabo_rewards(*again), rewards, rtol=1e-5)
    np.testing.assert_allclose(seabo_rewards(data.take([2, 0]), experts), np.concatenate([rewards[37:], rewards[:30]]), rtol=1e-6)


def test_seabo_says_what_is_wrong() -> None:
    data = wander(np.random.default_rng(5), [3])
    for config, message in [
        (SEABOConfig(neighbours=4), "gives 3 expert transitions"),
        (SEABOConfig(alpha=0), "must be above 0"),
        (SEABOConfig(workers=0), "workers=0"),
        (SEABOConfig(compare="aa"), "compares sas, sa or ss"),  # type: ignore[arg-type]
    ]:
        with pytest.raises(RoboprefError, match=message):
            seabo_rewards(data, data, config)


# OTR


def test_a_plan_of_two_by_two_is_the_one_worked_out_by_hand() -> None:
    # one number p decides the plan [[p, 1/2 - p], [1/2 - p, p]]; the derivative of what is minimised is 0 where
    # p / (1/2 - p) = exp(-(C11 + C22 - C12 - C21) / 2 epsilon)
    for cost, odds in [([[0, 1], [1, 0]], np.exp(2)), ([[0.25, 0.5], [0, 1]], np.exp(-1.5)), ([[1, 1], [1, 1]], 1)]:
        p = 0.5 * odds / (1 + odds)
        for dtype in (np.float32, np.float64):
            plan = sinkhorn(np.array(cost, dtype), 0.25 if odds < 1 else 0.5, 100)
            assert plan.dtype == dtype
            np.testing.assert_allclose(plan, [[p, 0.5 - p], [0.5 - p, p]], rtol=1e-5)


def test_with_little_entropy_the_plan_costs_what_the_linear_program_says() -> None:
    rng = np.random.default_rng(6)
    cost = rng.uniform(0, 2, (5, 4))
    marginals = [np.kron(np.eye(5), np.ones(4)), np.kron(np.ones(5), np.eye(4))]
    best = linprog(cost.ravel(), A_eq=np.concatenate(marginals), b_eq=[0.2] * 5 + [0.25] * 4).fun
    plan = sinkhorn(cost, 0.002, 4000)
    np.testing.assert_allclose(plan.sum(0), 0.25, rtol=1e-4)
    assert (plan * cost).sum() == pytest.approx(best, rel=2e-3)
    assert (sinkhorn(cost, 0.5, 4000) * cost).sum() > best + 0.05


def log_sinkhorn(cost: np.ndarray, epsilon: float, iterations: int, row: float, column: float) -> np.ndarray:
    """As in the authors' library: potentials in the log domain, columns and then rows, marginals as given."""
    f = np.zeros(len(cost))
    for _ in range(iterations):
        g = np.log(column) - logsumexp(f[:, None] - cost / epsilon, axis=0)
        f = np.log(row) - logsumexp(g - cost / epsilon, axis=1)
    return np.exp(f[:, None] + g - cost / epsilon)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 40))
def test_the_scaled_plan_is_that_of_the_log_domain(seed: int, steps: int, others: int) -> None:
    rng = np.random.default_rng(seed)
    cost = (rng.uniform(0, 1, (steps, 1)) + rng.uniform(0, 0.5, (1, others)) + rng.choice([0, 0.5], (steps, others))).astype(
        np.float32
    )
    plan = sinkhorn(cost, 0.01, 100)  # exp(-2 / 0.01) is far below what single precision holds
    np.testing.assert_allclose(plan.sum(1), 1 / steps, rtol=1e-5)
    np.testing.assert_allclose(
        plan, log_sinkhorn(cost.astype(np.float64), 0.01, 100, 1 / steps, 1 / others), rtol=2e-3, atol=1e-9
    )


def test_potentials_that_grow_far_are_kept_in_single_precision() -> None:
    cost = np.abs(np.linspace(0, 1, 120)[:, None] - np.linspace(0, 2, 100)).astype(np.float32)
    plan, wanted = sinkhorn(cost, 0.003, 200), log_sinkhorn(cost.astype(np.float64), 0.003, 200, 1 / 120, 1 / 100)
    np.testing.assert_allclose((plan * cost).sum(1), (wanted * cost).sum(1), rtol=1e-4, atol=1e-7)


def test_a_plan_follows_its_rows_and_columns() -> None:
    rng = np.random.default_rng(7)
    cost = rng.uniform(0, 2, (30, 20))
    rows, columns = rng.permutation(30), rng.permutation(20)
    plan = sinkhorn(cost, 0.05, 50)
    np.testing.assert_allclose(sinkhorn(cost[rows][:, columns], 0.05, 50), plan[rows][:, columns], rtol=1e-9)
    np.testing.assert_allclose(sinkhorn(cost + 1.5, 0.05, 50), plan, rtol=1e-9)


def test_otr_by_hand() -> None:
    experts = offline([[[2.0, 0], [9, 9]]], [[[0.0]]])
    data = offline([[[5.0, 0], [9, 9]], [[0.0, 3], [9, 9]], [[-1.0, 0], [9, 9]], [[0.0, 0], [9, 9]]], [[[0.0]]] * 4)
    # nothing to choose: costs 0, 1, 2, and 1 for a zero, times 5 / 2 observation numbers
    assert otr_rewards(data, experts) == pytest.approx(5 * np.exp([0, -2.5, -5, -2.5]))
    config = OTRConfig(squash_scale=2, squash_rate=1, per_observation=False)
    assert otr_rewards(data, experts, config) == pytest.approx(2 * np.exp([0, -1, -2, -1]))


def test_otr_keeps_the_expert_that_an_episode_is_nearest_to() -> None:
    rng = np.random.default_rng(8)
    data, experts = wander(rng, [20, 31, 3]), wander(rng, [15, 40, 22])
    each = np.stack([otr_rewards(data, experts.take([e])) for e in range(3)])
    sums = np.add.reduceat(each, data.first[:-1], axis=1)
    wanted = np.concatenate([each[best, a:b] for best, a, b in zip(sums.argmax(0), data.first, data.first[1:], strict=False)])
    assert len(set(sums.argmax(0))) > 1
    np.testing.assert_array_equal(otr_rewards(data, experts), wanted)


def test_otr_is_what_the_authors_padded_episodes_give() -> None:
    rng = np.random.default_rng(9)
    data, experts = wander(rng, [60]), wander(rng, [35])
    own, other = (part.obs.astype(np.float64) for part in (data, experts))
    cost = 1 - (own @ other.T) / (np.linalg.norm(own, axis=1)[:, None] * np.linalg.norm(other, axis=1) + 1e-8)
    plan = log_sinkhorn(cost, 0.01, 100, 1 / 1000, 1 / 1000)  # every step weighs 1/1000, in both
    wanted = 5 * np.exp(5 * 1000 / 5 * -(plan * cost).sum(1))  # 5 observation numbers
    np.testing.assert_allclose(otr_rewards(data, experts), wanted, rtol=1e-4)


def test_otr_prefers_the_expert_and_ignores_actions_and_lengths_of_vectors() -> None:
    rng = np.random.default_rng(10)
    data = wander(rng, [40, 40, 40])
    rewards = otr_rewards(data, data.take([2]))
    assert ((rewards > 0) & (rewards <= 5)).all()
    assert np.add.reduceat(rewards, data.first[:-1]).argmax() == 2
    other = replace(data, actions=-data.actions, rewards=data.rewards * 0, observations=data.observations * 3)
    np.testing.assert_allclose(otr_rewards(other, data.take([2])), rewards, rtol=1e-4)


def test_otr_says_what_is_wrong() -> None:
    data = wander(np.random.default_rng(11), [3])
    for config in (OTRConfig(epsilon=0), OTRConfig(iterations=0), OTRConfig(squash_rate=-1)):
        with pytest.raises(RoboprefError, match="must be above 0"):
            otr_rewards(data, data, config)


def test_the_number_of_threads_changes_no_reward() -> None:
    rng = np.random.default_rng(12)
    data, experts = wander(rng, [300, 500, 20]), wander(rng, [70, 50])
    for label, config in [(seabo_rewards, SEABOConfig()), (otr_rewards, OTRConfig(iterations=5))]:
        rewards = label(data, experts, config)  # type: ignore[operator]
        assert rewards.dtype == np.float32 and rewards.shape == (820,)
        np.testing.assert_array_equal(label(data, experts, replace(config, workers=1)), rewards)  # type: ignore[operator, type-var]


def test_an_interrupt_waits_for_the_jobs_that_have_begun_alone() -> None:
    def interrupted() -> Iterator[int]:
        yield from range(20)
        raise KeyboardInterrupt

    done: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        list(in_threads(lambda number: time.sleep(0.2) or done.append(number), interrupted(), 1))
    assert len(done) < 5


def test_threads_keep_the_order_and_pass_errors_on() -> None:
    assert list(in_threads(lambda x: x * x, range(20), 3)) == [x * x for x in range(20)]
    with pytest.raises(ZeroDivisionError):
        list(in_threads(lambda x: 1 // x, [1, 0], 2))


# UDS


def test_uds_keeps_the_experts_rewards_from_zero_on_and_gives_others_none() -> None:
    data = numbers([[1, 2, 3], [4, 5, 6, 7]])
    experts = replace(data.take([1]), rewards=np.float32([-2, 1, -1]))
    assert uds_rewards(data, experts).tolist() == [0, 0, 0, 3, 1]
    assert uds_rewards(data, experts, UDSConfig(minimum=-2.5)).tolist() == [0, 0, 0.5, 3.5, 1.5]
    with pytest.raises(RoboprefError, match=r"minimum=0.0, but data's experts have a reward of -2"):
        uds_rewards(data, experts, UDSConfig(minimum=0.0))


def test_uds_never_looks_at_what_has_no_label() -> None:
    rng = np.random.default_rng(13)
    data = wander(rng, [12, 30])
    experts = data.take([0])
    rewards = uds_rewards(data, experts)
    hidden = replace(data, rewards=rng.normal(size=42).astype(np.float32))
    for label in (uds_rewards, seabo_rewards, otr_rewards):
        np.testing.assert_array_equal(label(hidden, experts), label(data, experts))
    np.testing.assert_allclose(rewards[:12], experts.rewards - experts.rewards.min(), rtol=1e-6)


def test_uds_asks_for_experts_that_are_in_the_data() -> None:
    rng = np.random.default_rng(14)
    data, other = wander(rng, [12, 30]), wander(rng, [5], name="other")
    with pytest.raises(RoboprefError, match=r"5 of the 5 expert transitions from other are not in data.*with_experts"):
        uds_rewards(data, other)
    held, known = with_experts(data, other)
    rewards = uds_rewards(held, other)
    assert (rewards[~known] == 0).all() and (rewards[known] > 0).sum() == 4


# scaling


def test_scales_by_hand() -> None:
    data = numbers([[0, 0, 0], [0, 0]])
    rewards = np.float32([1, 2, 8])  # returns 3 and 8
    assert scale_rewards(rewards, data, "none").tolist() == [1, 2, 8]
    assert scale_rewards(rewards, data, "antmaze").tolist() == [0, 1, 7]
    assert scale_rewards(rewards, data, "return_range").tolist() == [200, 400, 1600]
    assert scale_rewards(rewards, data, "otr_antmaze").tolist() == [198, 398, 1598]
    assert rewards.tolist() == [1, 2, 8]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 1e3))
def test_scaled_by_range_returns_span_a_thousand_whatever_the_unit(seed: int, unit: float) -> None:
    rng = np.random.default_rng(seed)
    data = wander(rng, [3, 8, 5])
    scaled = scale_rewards(data.rewards * np.float32(unit), data, "return_range")
    returns = np.add.reduceat(scaled.astype(np.float64), data.first[:-1])
    assert np.ptp(returns) == pytest.approx(1000, rel=1e-5)
    np.testing.assert_allclose(scaled, scale_rewards(data.rewards, data, "return_range"), rtol=1e-4)


def test_scaling_says_what_is_wrong() -> None:
    data = numbers([[0, 0, 0], [0, 0]])
    with pytest.raises(RoboprefError, match="return of 2 under these rewards: scale by none"):
        scale_rewards(np.float32([1, 1, 2]), data, "return_range")
    with pytest.raises(RoboprefError, match="Did you mean 'return_range'"):
        scale_rewards(np.ones(3), data, "returnrange")  # type: ignore[arg-type]
    with pytest.raises(RoboprefError, match="rewards for the 3 transitions of data"):
        scale_rewards(np.ones(2), data, "none")
