"""Agreement of labels with true returns, with numbers worked out by hand; scores into labels; who labels."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robopref.configs.errors import RoboprefError
from robopref.preference.agreement import agreement, format_table
from robopref.preference.labellers import Constant, HumanFile, ScriptedReturn, labels_from_scores

NO_PIXELS = np.empty((3, 0, 0, 0, 3), np.uint8)


def test_five_pairs_by_hand():
    truth = np.array([4.0, 2.0, 1.0, -3.0, -1.0])  # b is better three times, a twice
    preference = np.array([2.0, -1.0, 0.0, -2.0, 1.0])  # right, wrong, undecided, right, wrong
    found = agreement(preference, truth)
    assert found["accuracy"] == pytest.approx((1 + 0 + 0.5 + 1 + 0) / 5)
    assert found["balanced_accuracy"] == pytest.approx((1.5 / 3 + 1 / 2) / 2)
    # AUC over 3 x 2 (b better, a better) pairs of pairs: 2 > -2, 2 > 1, -1 > -2, 0 > -2 right; -1 > 1, 0 > 1 wrong.
    assert found["auc"] == pytest.approx(4 / 6)
    # Kendall: of 10 pairs of pairs 7 are in the same order, 3 are not (1 with -1, 0 and the truth 2 with 0).
    assert found["kendall_tau"] == pytest.approx((7 - 3) / 10)
    assert found["constant_accuracy"] == pytest.approx(3 / 5)
    assert (found["n"], found["ties"], found["near_ties"]) == (5, 0, 0)


def test_the_trap_of_the_papers_protocol():
    """One label covers 95 % of the pairs: a constant guess is 95 % accurate and knows nothing."""
    truth = np.array([1.0] * 95 + [-1.0] * 5)
    found = agreement(np.ones(100), truth)
    assert found["accuracy"] == pytest.approx(0.95)
    assert found["constant_accuracy"] == pytest.approx(0.95)
    assert found["balanced_accuracy"] == pytest.approx(0.5)
    assert found["auc"] == pytest.approx(0.5)
    assert found["kendall_tau"] == 0.0
    assert "one answer fits most pairs" in format_table({"constant": found})


def test_when_the_same_side_always_wins_balanced_accuracy_is_undefined():
    found = agreement(np.ones(4), np.array([1.0, 2.0, 3.0, 4.0]))
    assert found["accuracy"] == found["constant_accuracy"] == 1.0
    assert math.isnan(found["balanced_accuracy"]) and math.isnan(found["auc"])


def test_true_ties_have_no_right_answer():
    found = agreement(np.array([1.0, 1.0, -1.0]), np.array([0.0, 10.0, -0.4]))
    assert (found["n"], found["ties"], found["near_ties"]) == (2, 1, 2)
    assert found["accuracy"] == 1.0
    everything_tied = agreement(np.array([1.0, -1.0]), np.zeros(2))
    assert everything_tied["n"] == 0 and everything_tied["near_ties"] == 2
    assert math.isnan(everything_tied["accuracy"])


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=1, max_size=30))
def test_swapping_a_and_b_everywhere_changes_nothing(pairs):
    preference, truth = np.array(pairs).T
    one, other = agreement(preference, truth), agreement(-preference, -truth)
    for name, value in one.items():
        assert value == pytest.approx(other[name], nan_ok=True)


# Hundredths: tanh rounds floats that are neighbours, such as -5 and -4.999999999999999, to one number, and a tie it then is.
@given(st.lists(st.integers(-500, 500).filter(bool).map(lambda n: n / 100), min_size=2, max_size=30, unique=True))
def test_the_truth_agrees_with_itself(truth):
    found = agreement(np.tanh(np.array(truth)), np.array(truth))
    assert found["accuracy"] == 1.0 and found["kendall_tau"] == pytest.approx(1.0)


def test_the_table_holds_every_measure_and_marks_the_undefined():
    row = agreement(np.array([1.0, -1.0]), np.array([2.0, 3.0]))
    text = format_table({"vlp": row, "from json": row | {"auc": None}})
    for word in ("accuracy", "constant label", "balanced accuracy", "AUC", "Kendall tau", "near-ties"):
        assert word in text.splitlines()[0]
    assert text.splitlines()[1].split() == ["vlp", "0.500", "1.000", "-", "-", "-1.000", "2", "0"]


def test_nan_is_an_error():
    with pytest.raises(RoboprefError, match="NaN"):
        agreement(np.array([np.nan]), np.array([1.0]))


def test_labels_are_the_sigmoid_of_the_score_difference():
    a, b = np.array([0.0, 1.0, 1000.0, 0.3]), np.array([math.log(3), 1.0, -1000.0, 0.2])
    np.testing.assert_allclose(labels_from_scores(a, b), [0.75, 0.5, 0.0, 1 / (1 + math.exp(0.1))], atol=1e-12)
    np.testing.assert_array_equal(labels_from_scores(a, b, hard=True), [1.0, 0.5, 0.0, 0.0])
    np.testing.assert_array_equal(labels_from_scores(a, b, hard=True, tie_margin=0.2), [1.0, 0.5, 0.0, 0.5])
    with pytest.raises(RoboprefError, match="1 pairs have a score that is not finite"):
        labels_from_scores(np.array([0.0, np.inf]), np.zeros(2))


def test_reference_scorers():
    np.testing.assert_array_equal(Constant().score(NO_PIXELS, ["x"] * 3), np.zeros(3))
    np.testing.assert_array_equal(ScriptedReturn(np.arange(3)).score(NO_PIXELS, ["x"] * 3), [0.0, 1.0, 2.0])
    with pytest.raises(ValueError, match="3 clips, but 2 returns"):
        ScriptedReturn(np.arange(2)).score(NO_PIXELS, ["x"] * 3)
    with pytest.raises(RoboprefError, match="NaN"):
        ScriptedReturn(np.array([np.nan]))


def test_human_labels_are_found_whichever_way_round(tmp_path):
    listed = "episode_a,start_a,stop_a,episode_b,start_b,stop_b,label\n0,0,50,1,5,55,1\n2,0,50,0,0,50,0.25\n"
    (tmp_path / "people.csv").write_text(listed)
    people = HumanFile(tmp_path / "people.csv")
    names = ["episode_a", "start_a", "stop_a", "episode_b", "start_b", "stop_b"]
    asked = pd.DataFrame([[1, 5, 55, 0, 0, 50], [2, 0, 50, 0, 0, 50]], columns=names)
    np.testing.assert_array_equal(people.label(asked), [0.0, 0.25])
    with pytest.raises(RoboprefError, match="1 pairs have no label"):
        people.label(asked.assign(start_a=[1, 0]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("video_a,video_b\nx.mp4,y.mp4\n", "no column `label`"),
        ("video_a,video_b,label\nx.mp4,y.mp4,2\n", "label .* in row 1 is not in"),
        ("video_a,video_b,label\nx.mp4,y.mp4,better\n", "label .* in row 1 is not in"),
        ("video_a,video_b,label\nx.mp4,y.mp4,\n", "label .* in row 1 is not in"),
    ],
)
def test_a_wrong_human_file_is_named(tmp_path, text, message):
    (tmp_path / "people.csv").write_text(text)
    with pytest.raises(RoboprefError, match=rf"people\.csv: .*{message}"):
        HumanFile(tmp_path / "people.csv")
