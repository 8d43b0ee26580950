"""Centre and spread: by hand, properties, and how often an interval holds what it is about, by simulation."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import expit
from scipy.stats import trim_mean

from robopref.configs.errors import RoboprefError
from robopref.embodied import statistics
from robopref.embodied.statistics import (
    FEW,
    INTERVAL,
    NOT_APART,
    RANGE,
    Spread,
    difference,
    grid,
    hangs_on,
    iqm,
    iqm_along,
    over_goals,
    over_seeds,
    over_what,
    ratio,
    summarise,
    verdict,
)

TRIALS = 300  # a share of .95 then has a standard error of .013


@pytest.fixture(autouse=True, scope="module")
def fewer_resamples() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "RESAMPLES", 1000)
        yield


def ends(spread: Spread) -> tuple[float, float, float]:
    return spread.centre, spread.low, spread.high


def covered(trial: Callable[[], tuple[Spread, float]]) -> float:
    """The share of trials whose spread holds the number that it is about."""
    found = [trial() for _ in range(TRIALS)]
    return float(np.mean([spread.low <= truth <= spread.high for spread, truth in found]))


def test_iqm_leaves_out_the_outer_quarters() -> None:
    assert iqm(np.array([100.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -100.0])) == pytest.approx(3.5)
    assert iqm(np.array([0.2, 0.4, 0.9])) == pytest.approx(0.5)  # with three members nothing is cut
    assert iqm_along(np.array([[0, 1, 1, 4], [5, 6, 7, 90]]), axis=1) == pytest.approx([1, 6.5])
    x = np.random.default_rng(0).normal(size=(4, 11))
    for axis in (None, 0, 1):
        np.testing.assert_allclose(iqm_along(x, axis), trim_mean(x, 0.25, axis=axis))


def test_few_seeds_have_a_range_and_no_interval() -> None:
    found = over_seeds(np.array([1.0, 2.0, 6.0]))
    assert ends(found) == (3, 1, 6) and (found.kind, found.units) == (RANGE, 3)
    assert over_seeds(np.arange(float(FEW))).kind == INTERVAL
    assert found.text(0) == "3 [1, 6]" and found.said(0) == "range [1, 6]"
    assert over_seeds(np.array([1234.0])).said(0) == "one, no spread"


def test_the_range_over_tasks_is_from_every_tasks_lowest_to_every_tasks_highest() -> None:
    returns = np.array([[10.0, 100.0], [20.0, 400.0], [30.0, 100.0]])
    assert ends(over_seeds(returns, np.mean)) == pytest.approx((110, 55, 215))
    assert ends(over_seeds(returns)) == pytest.approx((62.5, 55, 215))  # 20 30 100 100: of six, one is cut at each end
    few = np.array([[2.0, 1.0, 1.0], [2.0, 1.0, 1.0]])
    assert ends(over_seeds(few)) == (1.25, 1.25, 1.25)  # 1 1 1 2: seeds that agree leave no range


def test_tasks_are_not_drawn() -> None:
    assert ends(over_seeds(np.tile([[10.0, 30.0]], (5, 1)))) == (20, 20, 20)


def test_differences_by_hand() -> None:
    theirs, own = np.array([5.0, 7.0, 9.0]), np.array([1.0, 2.0, 6.0])
    assert ends(difference(theirs, own)) == (4, -1, 8)
    assert ends(difference(theirs, own, paired=True)) == (4, 3, 5)
    assert verdict(difference(theirs, own)) == NOT_APART
    assert verdict(difference(theirs, own, paired=True)) == "above on all seeds"
    assert verdict(difference(own, theirs, paired=True)) == "below on all seeds"
    with pytest.raises(ValueError, match="same seeds"):
        difference(theirs, own[:2], paired=True)
    with pytest.raises(ValueError, match="same tasks"):
        difference(np.ones((3, 2)), np.ones((3, 1)))


def test_a_paired_difference_sees_what_both_sides_share() -> None:
    shared = np.arange(10.0) ** 2
    paired, apart = (difference(shared + 1, shared, np.mean, paired=paired) for paired in (True, False))
    assert ends(paired) == pytest.approx((1, 1, 1))
    assert apart.centre == pytest.approx(1) and verdict(paired) == "above" and verdict(apart) == NOT_APART


def test_ratios_by_hand() -> None:
    values, base = np.array([[2.0, 9.0], [4.0, 9.0]]), np.array([[1.0, 3.0], [3.0, 3.0]])
    assert ends(ratio(values, base, np.mean)) == pytest.approx((2.25, (2 / 3 + 3) / 2, (4 + 3) / 2))
    odd = np.array([1.0, 1.0, 1.0, 5.0])  # IQM 1, mean 2
    assert ratio(np.array([2.0, 3.0, 3.0, 3.0]), odd).centre == 3 and ratio(odd, odd).centre == 1, "IQM over IQM"
    assert ratio(np.array([2.0, 3.0, 3.0, 3.0]), odd, np.mean).centre == 2.75 / 2
    assert ends(ratio(np.full(5, 6.0), np.full(7, 3.0))) == (2, 2, 2)
    with pytest.raises(RoboprefError, match="compare by differences"):
        ratio(values, base - 1)


def test_the_verdict_of_an_interval() -> None:
    assert [verdict(Spread(1.5, low, 2, INTERVAL, 5), 1) for low in (1.1, 1.0, 0.9)] == ["above", NOT_APART, NOT_APART]
    assert verdict(Spread(-1, -2, -0.1, INTERVAL, 5)) == "below"


def test_the_verdict_of_a_range_names_its_unit() -> None:
    assert verdict(Spread(2, 1, 3, RANGE, 3), unit="sets") == "above on all sets"
    assert verdict(Spread(0.5, 0.4, 0.6, RANGE, 3), 1) == "below on all seeds"
    assert verdict(Spread(2, 1, 3, INTERVAL, 5), unit="sets") == "above"


def test_what_a_verdict_hangs_on() -> None:
    theirs, own = np.array([[1.0, 50.0, 3.0]] * 5), np.array([[2.0, 10.0, 4.0]] * 5)
    assert hangs_on(theirs, own, np.mean) == [1]
    assert hangs_on(theirs + 5, own, np.mean) == []
    assert hangs_on(theirs[:, :1], own[:, :1], np.mean) == []


def test_a_table_becomes_seeds_by_tasks() -> None:
    rows = pd.DataFrame({"seed": [1, 0, 0, 1], "env": ["b", "a", "b", "a"], "return": [4.0, 1.0, 2.0, 3.0]})
    np.testing.assert_array_equal(grid(rows, "return"), [[1, 2], [3, 4]])
    assert grid(rows[:3], "return") is None and grid(rows[:0], "return") is None


def test_outcomes_that_all_agree_still_leave_something_open() -> None:
    low, high = ends(over_goals(np.ones((3, 20))))[1:]
    assert high == 1 and low**20 == pytest.approx(0.025)  # 20 of 20 has this chance at that rate
    low, high = ends(over_goals(np.zeros((1, 20))))[1:]
    assert low == 0 and (1 - high) ** 20 == pytest.approx(0.025)
    assert ends(over_goals(np.full((3, 20), 7.0), share=False)) == (7, 7, 7)


def test_goals_are_drawn_once_for_all_members() -> None:
    alike = np.tile((np.arange(20) < 10).astype(float), (3, 1))
    found, single = over_goals(alike), over_goals(alike[:1])
    assert ends(found) == ends(single), "three members that agree on every goal know no more than one of them"


def test_members_are_drawn_from_few_on() -> None:
    apart = np.repeat([[0.0], [0.25], [0.5], [0.75], [1.0]], 20, 1)  # no goal differs from another
    assert ends(over_goals(apart[:4], share=False)) == (0.375, 0.375, 0.375)
    low, high = ends(over_goals(apart, share=False))[1:]
    assert low < 0.2 and high > 0.8
    assert over_what(4, 20) == "95 % interval over goals; 20 goals x 4 seeds"
    assert over_what(5, 20) == "95 % interval over goals and seeds; 20 goals x 5 seeds"
    assert over_what(1, 3) == "range over goals; 3 goals x 1 seed"
    assert over_what(1, 1) == "range over goals; 1 goal x 1 seed"


def test_a_summary_keeps_policies_and_counts() -> None:
    rows = [("a", m, g, float(g < 5)) for m in range(2) for g in range(10)] + [("b", 0, g, 1.0) for g in range(10)]
    found = summarise(pd.DataFrame(rows, columns=["policy", "member", "goal", "success"]))
    assert list(found) == ["a", "b"]
    assert (found["a"]["iqm"], found["a"]["mean"]) == (0.5, 0.5) and found["a"]["low"] < 0.5 < found["a"]["high"]
    assert {key: found["b"][key] for key in ("iqm", "high", "mean", "n", "members", "goals")} == {
        "iqm": 1, "high": 1, "mean": 1, "n": 10, "members": 1, "goals": 10,
    }  # fmt: skip


def test_percentiles_make_up_for_few_seeds() -> None:
    found = statistics.between(0.5, np.linspace(0, 1, 100_001), 5, 4)
    tail = 0.00096  # a normal quantile of -3.104, which is -2.776 (t, 4 degrees of freedom) times sqrt(5 / 4)
    assert ends(found) == pytest.approx((0.5, tail, 1 - tail), abs=1e-5) and (found.kind, found.units) == (INTERVAL, 5)
    many = statistics.between(0.5, np.linspace(0, 1, 100_001), 100_000, 100_000)
    assert ends(many) == pytest.approx((0.5, 0.025, 0.975), abs=1e-4)


def test_how_many_degrees_of_freedom_a_spread_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "between", lambda centre, drawn, units, freedom: (units, round(freedom, 6)))
    runs = np.array([4.0, 5.0, 6.0, 7.0, 8.0])
    alike, one = np.stack([runs, runs + 3], 1), np.stack([runs, np.full(5, 6.0)], 1)
    assert over_seeds(runs) == over_seeds(one) == (5, 4) and over_seeds(alike) == (5, 8)
    assert over_seeds(np.stack([runs, 20 * runs], 1)) == (5, round(4 * 401**2 / (1 + 400**2), 6))  # variances 1 and 400
    assert difference(alike, alike) == (5, 16) and difference(one, one) == (5, 8) and difference(one, np.ones((5, 2))) == (5, 4)
    assert difference(alike, alike[:, ::-1] - 4, paired=True) == (5, 8), "there is no scatter: as many as there could be"
    shaken = np.array([0.0, 3.0, 0.0, 3.0, 0.0])
    assert difference(runs + shaken, runs, paired=True) == (5, 4)
    seven = np.r_[runs, 5.0, 7.0]  # their mean's variance is 12 / 6 / 7
    assert difference(seven, runs) == (5, round((2 / 7 + 0.5) ** 2 / ((2 / 7) ** 2 / 6 + 0.5**2 / 4), 6))
    assert ratio(alike, alike * 2) == ratio(alike * 2, alike) == ratio(alike, alike)
    assert ratio(runs, runs) == (5, 8) and ratio(1000 * runs, np.full(5, 2.0)) == (5, 4)
    assert over_goals(np.eye(4, 20)) == (20, 19)


def test_both_sides_are_drawn_each_for_itself() -> None:
    x = np.random.default_rng(0).uniform(1, 2, (6, 2))
    less, over = difference(x, x, np.mean), ratio(x, x, np.mean)
    assert less.low < -0.1 and less.high > 0.1 and over.low < 0.95 and over.high > 1.05


numbers = st.floats(1, 1000).map(lambda value: round(value, 3))
tables = st.tuples(st.integers(1, 7), st.integers(1, 3)).flatmap(lambda shape: arrays(np.float64, shape, elements=numbers))


@settings(max_examples=25, deadline=None)
@given(tables)
@pytest.mark.parametrize("statistic", [iqm_along, np.mean])
def test_a_spread_holds_its_centre_and_moves_with_the_numbers(statistic, x: np.ndarray) -> None:
    found = over_seeds(x, statistic)
    assert found.low - 1e-9 <= found.centre <= found.high + 1e-9
    if len(x) < FEW and x.shape[1] == 1:
        assert (found.low, found.high) == pytest.approx((x.min(), x.max()))
    moved = over_seeds(3 * x + 7, statistic)
    np.testing.assert_allclose(ends(moved), 3 * np.array(ends(found)) + 7)
    other = x[::-1, ::-1]
    assert ends(over_seeds(other, statistic)) == pytest.approx(ends(found)), "the order of seeds and tasks says nothing"
    assert ends(difference(other + 5, other[:1], statistic)) == pytest.approx(ends(difference(x + 5, x[-1:], statistic)))
    np.testing.assert_allclose(ends(difference(x + 5, x, statistic, paired=True)), (5, 5, 5))
    np.testing.assert_allclose(ends(ratio(4 * x, 2 * x, statistic)), 2 * np.array(ends(ratio(x, x, statistic))))


@settings(max_examples=25, deadline=None)
@given(tables)
def test_what_is_compared_with_itself_is_not_told_apart(x: np.ndarray) -> None:
    assert verdict(difference(x, x)) == NOT_APART
    assert verdict(ratio(x, x, np.mean), 1) == verdict(ratio(x, x), 1) == NOT_APART
    assert ratio(x, x).centre == ratio(x, x, np.mean).centre == 1


def lognormal(rng: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
    return np.exp(rng.normal(0, 0.5, size))


def normal(rng: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
    return rng.normal(3, 1, size)


@pytest.mark.parametrize("seeds", [5, 10])
@pytest.mark.parametrize("kind", [normal, lognormal])
@pytest.mark.parametrize("statistic", [iqm_along, np.mean])
def test_the_interval_over_seeds_covers(seeds: int, kind, statistic) -> None:
    rng = np.random.default_rng(0)
    truth = float(statistic(kind(rng, (200_000,))))
    assert 0.88 <= covered(lambda: (over_seeds(kind(rng, (seeds,)), statistic), truth)) <= 0.99


def test_the_range_of_three_is_no_interval() -> None:
    rng = np.random.default_rng(1)
    assert covered(lambda: (over_seeds(normal(rng, (3,))), 3.0)) == pytest.approx(0.75, abs=0.06)  # 1 - 2 (1/2)^3


def test_the_interval_over_members_is_of_their_iqm() -> None:
    """One member of sixteen that is far off moves the mean by six and the interquartile mean by nothing, in every replicate."""
    members = np.r_[np.linspace(0.4, 0.6, 15), 100.0]
    found = over_goals(np.repeat(members[:, None], 20, 1), share=False)
    assert 0.4 < found.low < found.centre < found.high < 0.6 and members.mean() > 6


@pytest.mark.parametrize(("seeds", "tasks"), [(5, 1), (5, 3), (10, 3)])
def test_a_ratio_covers_only_when_its_denominator_is_drawn(seeds: int, tasks: int) -> None:
    rng = np.random.default_rng(2)

    def of_middles() -> tuple[Spread, float]:
        return ratio(lognormal(rng, (seeds, tasks)), lognormal(rng, (seeds, tasks))), 1.0

    def drawn() -> tuple[Spread, float]:
        return ratio(lognormal(rng, (seeds, tasks)), lognormal(rng, (seeds, tasks)), np.mean), 1.0

    def fixed() -> tuple[Spread, float]:
        return over_seeds(lognormal(rng, (seeds, tasks)) / lognormal(rng, (seeds, tasks)).mean(0), np.mean), 1.0

    assert 0.9 <= covered(drawn) <= 0.99
    assert 0.9 <= covered(of_middles) <= 1
    assert covered(fixed) <= 0.87


UNEVEN = np.array([1.0, 20.0, 1.0, 1.0])  # deviations of four tasks


def tasks_alike(*sides: tuple[np.ndarray, int]) -> float:
    """Degrees of freedom as if all tasks scattered alike."""
    return float(sum(len(variances) * (seeds - 1) for variances, seeds in sides))


@pytest.mark.parametrize("statistic", [iqm_along, np.mean])
def test_intervals_cover_where_one_task_scatters_most(statistic) -> None:
    rng = np.random.default_rng(7)

    def runs() -> np.ndarray:
        return rng.normal(0, UNEVEN, (5, 4))

    assert 0.89 <= covered(lambda: (over_seeds(runs(), statistic), 0.0)) <= 1
    assert 0.9 <= covered(lambda: (difference(runs(), runs(), statistic), 0.0)) <= 1
    assert 0.9 <= covered(lambda: (ratio(np.exp(runs() / 40), np.exp(runs() / 40), statistic), 1.0)) <= 1


def test_degrees_of_freedom_that_take_tasks_for_alike_cover_too_little(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(8)
    monkeypatch.setattr(statistics, "welch", tasks_alike)
    assert covered(lambda: (over_seeds(rng.normal(0, UNEVEN, (5, 4)), np.mean), 0.0)) <= 0.89


def test_how_often_three_runs_and_three_are_told_apart_by_chance() -> None:
    rng = np.random.default_rng(9)

    def apart(tasks: int, paired: bool = False) -> float:
        found = [difference(rng.normal(size=(3, tasks)), rng.normal(size=(3, tasks)), paired=paired) for _ in range(2000)]
        return float(np.mean([verdict(spread) != NOT_APART for spread in found]))

    assert apart(1) == pytest.approx(0.1, abs=0.02) and apart(2) == pytest.approx(0.02, abs=0.01)
    assert apart(1, paired=True) == pytest.approx(0.25, abs=0.03)


def test_a_difference_covers_when_one_side_varies_more() -> None:
    rng = np.random.default_rng(3)
    assert 0.9 <= covered(lambda: (difference(normal(rng, (5, 2)), 5 * normal(rng, (5, 2)), np.mean), 3.0 - 15.0)) <= 0.99


def meets(rng: np.random.Generator, members: int, goals: int, apart: float) -> tuple[np.ndarray, float]:
    """Outcomes (S, G) of members that differ a little on goals that differ by `apart`, in logits; their success on all goals."""
    skill, hard = rng.normal(1, 0.3, (members, 1)), rng.normal(0, apart, goals)
    outcomes = (rng.random((members, goals)) < expit(skill + hard)).astype(float)
    return outcomes, float(expit(skill + rng.normal(0, apart, 5000)).mean())


def goals_of_its_own_for_every_member(x: np.ndarray, rng: np.random.Generator) -> Spread:
    """What was done before: S members, and of each its own draw of goals."""
    members, goals = x.shape
    rows = rng.integers(members, size=(statistics.RESAMPLES, members, 1))
    means = x[rows, rng.integers(goals, size=(statistics.RESAMPLES, members, goals))].mean(-1)
    low, high = np.quantile(iqm_along(means, axis=1), [0.025, 0.975])
    return Spread(iqm(x.mean(1)), float(low), float(high), INTERVAL, members)


def test_success_covers_only_when_goals_are_drawn_for_all_members_together() -> None:
    rng = np.random.default_rng(4)

    def together() -> tuple[Spread, float]:
        outcomes, truth = meets(rng, 3, 20, 3.0)
        return over_goals(outcomes), truth

    def apart() -> tuple[Spread, float]:
        outcomes, truth = meets(rng, 3, 20, 3.0)
        return goals_of_its_own_for_every_member(outcomes, rng), truth

    assert 0.9 <= covered(together) <= 0.99
    assert covered(apart) <= 0.87


@pytest.mark.parametrize("apart", [0.0, 2.0])
def test_success_covers_all_training_seeds_where_members_are_drawn(apart: float) -> None:
    rng = np.random.default_rng(6)
    truth = np.mean([meets(rng, 500, 1, apart)[1] for _ in range(3)])
    assert 0.9 <= covered(lambda: (over_goals(meets(rng, 5, 20, apart)[0]), float(truth))) <= 1


@pytest.mark.parametrize("success", [0.5, 0.9, 0.97])
def test_success_of_one_policy_covers(success: float) -> None:
    rng = np.random.default_rng(5)
    assert covered(lambda: (over_goals((rng.random((1, 20)) < success).astype(float)), success)) >= 0.9


def test_rounding_tells_nothing_apart() -> None:
    same = np.full(5, 102.812)
    assert ratio(same * (1 + 1e-13), same).low > 1 and difference(same, same + 1e-13).high < 0
    assert verdict(ratio(same * (1 + 1e-13), same), 1) == verdict(difference(same, same + 1e-13)) == NOT_APART
