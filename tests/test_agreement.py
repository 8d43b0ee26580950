"""Agreement of labels with true returns, with numbers worked out by hand; scores into labels; who labels."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from robopref.configs.errors import RoboprefError
from robopref.preference.agreement import agreement, better_cluster, format_table
from robopref.preference.annotate import measure
from robopref.preference.labellers import (
    Constant,
    HumanFile,
    ScriptedReturn,
    disagreement,
    labels_from_scores,
    least_sure,
    log_odds,
    probabilities,
)

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


def test_knowing_the_better_cluster_is_the_constant_label_of_unshuffled_sides():
    """Cluster 1 is better in three of four pairs that have an answer, and shuffled sides show a constant label two."""
    clusters = np.array([[0, 1], [1, 0], [1, 0], [1, 0], [0, 1]])
    returns = np.array([[1.0, 2.0], [5.0, 3.0], [6.0, 4.0], [1.0, 2.0], [7.0, 7.0]])
    table = pd.DataFrame({"label": [1.0] * 5})
    found = measure(table, np.ones(5), returns, clusters)
    assert found["cluster_accuracy"] == pytest.approx(3 / 4)
    assert found["constant_accuracy"] == pytest.approx(2 / 4)
    assert "cluster_accuracy" not in measure(table, np.ones(5), returns)
    abstained = table.assign(abstained=[True, False, False, True, False])
    assert measure(abstained, np.ones(5), returns, clusters)["cluster_accuracy"] == 1.0


def test_without_near_ties_by_hand():
    """The largest difference is 100, so what differs by less than 5 is a near-tie: the third and the last pair."""
    truth = np.array([100.0, -50.0, 4.0, 5.0, -6.0, -1.0])
    preference = np.array([1.0, 1.0, -1.0, -1.0, -1.0, -1.0])  # right, wrong, (wrong), wrong, right, (right)
    found = agreement(preference, truth)
    assert found["near_ties"] == 2
    assert found["accuracy"] == pytest.approx(3 / 6) and found["clear_accuracy"] == pytest.approx(2 / 4)
    assert found["balanced_accuracy"] == pytest.approx((1 / 3 + 2 / 3) / 2)
    assert found["clear_balanced_accuracy"] == pytest.approx((1 / 2 + 1 / 2) / 2)
    by_luck = np.array([1.0, -1.0, -1.0, 1.0, -1.0, 1.0])  # wrong about the near-ties alone
    assert agreement(by_luck, truth)["clear_balanced_accuracy"] == 1.0 and agreement(by_luck, truth)["accuracy"] == 4 / 6


def test_against_the_cluster_bit_by_hand():
    """Cluster 1 wins three of four pairs; who is right on two of the three and on the fourth knows more than that."""
    clusters = np.array([[0, 1], [1, 0], [0, 1], [1, 0]])
    truth = np.array([2.0, -3.0, 1.0, 4.0])  # the better side is of cluster 1, 1, 1, 0
    preference = np.array([1.0, -1.0, -1.0, 1.0])
    found = agreement(preference, truth, clusters)
    assert found["cluster_accuracy"] == 3 / 4 and found["accuracy"] == 3 / 4 and found["over_cluster"] == 0.0
    assert found["cluster_balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2)
    assert better_cluster(truth, clusters) == 1 and better_cluster(-truth, clusters) == -1
    assert better_cluster(np.array([5.0, -1.0]), np.array([[0, 1], [0, 1]])) == 0  # by pairs, not by how much
    bit = agreement(np.array([1.0, -1.0, 1.0, -1.0]), truth, clusters)
    assert bit["accuracy"] == 3 / 4 and bit["cluster_balanced_accuracy"] == 0.5
    assert math.isnan(agreement(preference[:3], truth[:3], clusters[:3])["cluster_balanced_accuracy"])
    assert "cluster_accuracy" not in agreement(preference, truth)


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
    for word in ("accuracy", "constant label", "balanced accuracy", "AUC", "Kendall tau", "near-ties", "cluster bit"):
        assert word in text.splitlines()[0]
    # Balanced without and with near-ties, accuracy, constant, two of clusters that there are not, AUC, tau.
    assert text.splitlines()[1].split() == ["vlp", "-", "-", "0.500", "1.000", "-", "-", "-", "-1.000", "2", "0"]


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


def test_an_ensemble_by_hand():
    a = np.zeros((3, 2))
    b = np.log([[3.0, 1 / 3], [3.0, 1.0], [1 / 3, 1 / 3]])  # members say 3/4 and 1/4; 3/4 and 1/2; 1/4 and 1/4
    np.testing.assert_allclose(probabilities(a, b), [[0.75, 0.25], [0.75, 0.5], [0.25, 0.25]])
    np.testing.assert_allclose(labels_from_scores(a, b), [0.5, 0.625, 0.25])
    np.testing.assert_allclose(log_odds(a, b), np.log([1.0, 5 / 3, 1 / 3]), atol=1e-12)
    np.testing.assert_array_equal(labels_from_scores(a, b, hard=True, tie_margin=1e-9), [0.5, 1.0, 0.0])
    assert disagreement(a, b).tolist() == [0.5, 0.25, 0.0]  # one against one; one for b and one undecided; all for a
    one_of_three, two_of_three = disagreement(np.zeros((2, 3)), np.array([[-5.0, -5.0, 0.1], [5.0, 5.0, -0.1]]))
    assert one_of_three == two_of_three == 1 / 3  # to the bit: else it would decide which of them is left out
    # Two of three members prefer a, but the third is surer: the mean of probabilities is .25 / 3 above one half.
    np.testing.assert_array_equal(labels_from_scores(np.zeros((1, 3)), np.array([[-0.1, -0.1, 5.0]]), hard=True), [1.0])


def test_a_temperature_softens_and_a_margin_stays_in_units_of_scores():
    a, b = np.zeros(2), np.array([2 * math.log(3), -1.0])
    np.testing.assert_allclose(labels_from_scores(a, b, temperature=2.0), [0.75, 1 / (1 + math.exp(0.5))], atol=1e-12)
    np.testing.assert_array_equal(labels_from_scores(a, b, hard=True, tie_margin=1.5, temperature=10.0), [1.0, 0.5])


@given(st.lists(st.lists(st.floats(-30, 30), min_size=3, max_size=3), min_size=1, max_size=9), st.floats(0.1, 10))
def test_log_odds_are_those_of_the_label(b, temperature):
    a = np.zeros_like(b)
    label, logit = labels_from_scores(a, b, temperature=temperature), log_odds(a, b, temperature)
    np.testing.assert_allclose(1 / (1 + np.exp(-logit)), label, atol=1e-12)
    np.testing.assert_allclose(log_odds(b, a, temperature), -logit, atol=1e-9)


def test_log_odds_tell_apart_what_probabilities_no_longer_do():
    a, b = np.zeros((2, 2)), np.array([[900.0, 1000.0], [900.0, 950.0]])
    assert labels_from_scores(a, b).tolist() == [1.0, 1.0]
    np.testing.assert_allclose(log_odds(a, b), 900 + math.log(2))  # half of the members' sum e^-900 + nearly nothing
    assert log_odds(np.array([0.1]), np.array([0.3]))[0] == 0.3 - 0.1


def test_the_pairs_without_a_label_are_those_of_most_disagreement_then_least_confidence():
    logit, spread = np.array([3.0, -0.1, 0.2, -5.0, 0.0]), np.array([0.3, 0.1, 0.3, 0.0, 0.1])
    assert least_sure(0.4, logit).tolist() == [False, True, False, False, True]
    assert least_sure(0.4, logit, spread).tolist() == [True, False, True, False, False]
    assert least_sure(0.6, logit, spread).tolist() == [True, False, True, False, True]
    assert least_sure(0.39, logit).sum() == 1 and least_sure(0.99, logit).sum() == 4  # never more than the share
    assert least_sure(0.29, np.arange(100.0)).sum() == 29


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
    rows, labels = people.label(asked)
    assert rows.tolist() == [0, 1] and labels.tolist() == [0.0, 0.25]
    with pytest.raises(RoboprefError, match="1 pairs have no label"):
        people.label(asked.assign(start_a=[1, 0]))


@pytest.mark.parametrize(
    ("asked", "rows", "labels"),
    [
        ("x y", [0, 0, 0], [0.0, 1.0, 0.25]),
        ("y x", [0, 0, 0], [1.0, 0.0, 0.75]),
        ("x y, x y, x y", [0, 1, 2], [0.0, 1.0, 0.25]),
        ("x y, x z, y x", [0, 1, 2, 2], [0.0, 0.5, 0.0, 0.75]),
    ],
)
def test_all_labels_of_a_pair_are_kept_in_their_order(tmp_path, asked, rows, labels):
    (tmp_path / "people.csv").write_text("video_a,video_b,label\nx,y,0\ny,x,0\nx,z,.5\nx,y,.25\n")
    people = HumanFile(tmp_path / "people.csv")
    table = pd.DataFrame([pair.split() for pair in asked.split(", ")], columns=["video_a", "video_b"])
    found = people.label(table)
    assert found[0].tolist() == rows and found[1].tolist() == labels
    with pytest.raises(RoboprefError, match=r"1 pairs have no label in it, the first is \('x', 'z'\)"):
        people.label(pd.DataFrame({"video_a": ["x", "x"], "video_b": ["z", "z"]}))


def test_what_a_labeller_abstained_on_is_no_tie_to_people_either(tmp_path):
    listed = "video_a,video_b,label,abstained\nx.mp4,y.mp4,0.5,False\nx.mp4,z.mp4,0.5,True\n"
    (tmp_path / "labels.csv").write_text(listed)
    people = HumanFile(tmp_path / "labels.csv")
    assert people.label(pd.DataFrame({"video_a": ["y.mp4"], "video_b": ["x.mp4"]}))[1].tolist() == [0.5]
    with pytest.raises(RoboprefError, match=r"1 pairs have no label in it, the first is \('x.mp4', 'z.mp4'\)"):
        people.label(pd.DataFrame({"video_a": ["x.mp4"], "video_b": ["z.mp4"]}))


@pytest.mark.parametrize(
    ("said", "silent"),
    [("True", "False"), ("TRUE", ""), ("true ", " false"), ("yes", "No"), ("t", "F"), ("1", "0"), ("1.0", "0.0")],
)
def test_what_people_abstained_on_is_read_in_the_usual_words(said, silent, tmp_path):
    listed = f"video_a,video_b,label,abstained\nx.mp4,y.mp4,1,{silent}\nx.mp4,z.mp4,0.5,{said}\n"
    (tmp_path / "human.csv").write_text(listed)
    human = HumanFile(tmp_path / "human.csv")
    assert human.label(pd.DataFrame({"video_a": ["x.mp4"], "video_b": ["y.mp4"]}))[1].tolist() == [1.0]
    with pytest.raises(RoboprefError, match="1 pairs have no label in it"):
        human.label(pd.DataFrame({"video_a": ["x.mp4"], "video_b": ["z.mp4"]}))


@pytest.mark.parametrize("said", ["x", "maybe", "2", "-1"])
def test_another_word_for_abstained_is_named_with_its_row(said, tmp_path):
    (tmp_path / "human.csv").write_text(f"video_a,video_b,label,abstained\nx.mp4,y.mp4,1,\nx.mp4,z.mp4,0.5,{said}\n")
    with pytest.raises(RoboprefError, match=rf"human.csv: abstained in row 2 is '{said}(\.0)?'; write true or false"):
        HumanFile(tmp_path / "human.csv")


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("label", pd.array([1, None], "Int64"), "label '<NA>' in row 2 is not in"),
        ("label", [[0], [1]], r"label '\[0\]' in row 1 is not in"),
        ("video_a", [1, 2], "video_a in row 1 is '1'; it needs video_a, video_b"),
        ("video_a", [b"x.mp4", b"y.mp4"], "video_a in row 1 is \"b'x.mp4'\"; it needs"),
        ("video_b", ["y.mp4", None], "video_b in row 2 is '(None|nan)'; it needs"),
    ],
)
def test_parquet_of_other_types_is_named_with_its_row(column, values, message, tmp_path):
    table = pd.DataFrame({"video_a": ["x.mp4", "x.mp4"], "video_b": ["y.mp4", "z.mp4"], "label": [1.0, 0.0]})
    table.assign(**{column: values}).to_parquet(tmp_path / "human.parquet")
    with pytest.raises(RoboprefError, match=rf"human.parquet: {message}"):
        HumanFile(tmp_path / "human.parquet")


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


def test_auc_is_scikit_learns():
    rng = np.random.default_rng(0)
    for digits in (0, 1, 5):  # many ties, some, none
        preference, truth = rng.normal(size=40).round(digits), rng.normal(size=40)
        assert agreement(preference, truth)["auc"] == pytest.approx(roc_auc_score(truth > 0, preference))
