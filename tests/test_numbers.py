"""Numbers in README.md, docs/*.md and docs/results/*/README.md are what the CSVs say; none stands there without its source.

docs/lab.md, a log, and docs/tasks.md are not read (docs/results/tables/marks.py says why).
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest

from robopref.embodied.statistics import INTERVAL, Spread

sys.path.insert(0, str(Path(__file__).parents[1] / "docs" / "results" / "tables"))
import marks
import shared

# Numbers that no CSV has: times and memory noted by hand, runs that were not kept.  A count may fall, and not grow.
NOTED = {
    "README.md": 2,
    "docs/online.md": 1,
    "docs/results/bench/README.md": 28,
    "docs/results/downstream/README.md": 2,
    "docs/results/online/README.md": 5,
    "docs/results/paper_scale/README.md": 2,
    "docs/results/policies/README.md": 6,
    "docs/results/prof/README.md": 13,
    "docs/results/quick/README.md": 14,
    "docs/results/vlp_ml45/README.md": 3,
    "docs/results/vlp_paper/README.md": 17,
}
# Settings that marks.KINDS does not know.
SET = {
    "docs/online.md": 1,
    "docs/results/bench/README.md": 3,
    "docs/results/downstream/README.md": 3,
    "docs/results/onpolicy/README.md": 2,
    "docs/results/policies/README.md": 3,
    "docs/results/prof/README.md": 4,
    "docs/results/vlp_paper/README.md": 6,
    "docs/vlp.md": 1,
}


def named(path: Path) -> str:
    return path.relative_to(marks.ROOT).as_posix()


@pytest.mark.parametrize("path", marks.files(), ids=named)
def test_every_number_is_its_csvs(path):
    found = marks.problems(path, path.read_text(encoding="utf-8"))
    assert not found, "\n".join(map(str, found))


@pytest.mark.parametrize(("kind", "allowed"), [("noted", NOTED), ("set", SET)])
def test_numbers_without_a_csv_do_not_grow_in_number(kind, allowed):
    counts = {named(path): marks.counted(path.read_text(encoding="utf-8"), kind) for path in marks.files()}
    assert {name: count for name, count in counts.items() if count > allowed.get(name, 0)} == {}


README = marks.ROOT / "README.md"
AUC = "<!--= quick.label 0 auc -->"


def says(text: str) -> list[str]:
    return [str(problem) for problem in marks.problems(README, text)]


def test_a_number_without_a_mark_is_named_with_file_and_line():
    (found,) = says("# Title 3\n\nNothing here.\nIt is 2.7 times as fast.\n")
    assert found.startswith("README.md:4: 2.7 has no mark")


@pytest.mark.parametrize(
    "sentence",
    [
        "It took 17 minutes.",
        "Success is .83 of all.",
        "It has 97 % of them.",
        "PPO is at 1,399, GTR higher.",
        "GTR gains -3.",
        "between (0.41) and more",
        "- **0.5** in a list",
        "| 5 | of a table typed by hand |",
        "twelve and 12",
        "0.97 goals a minute",
        "2.7x as fast",
        "it took 17s",
        "900 steps a second",
        "an error of 1e-3",
        "won 7/10<!--set-->",
        "1234567 of them",
        "- a list\n    that goes on with 17",
    ],
)
def test_measurements_need_a_mark(sentence):
    assert len(says(sentence)) == 1


@pytest.mark.parametrize(
    "sentence",
    [
        "50-step segments of 64 px, 25,000 decisions, 20 goals x 3 policy seeds",
        "seeds 0 to 4, seed 10, sigma .5, alpha 0.02, [64]x2, [256, 256]",
        "its 95 % interval, on 2026-11-25 and 26, at commit b2de38d, with Python 3.11 and torch 2.11.0+cu130",
        "D4RL's data, TD3+BC, walker2d, HalfCheetah-v5, ViT-B-16, ML45, CIR-2",
        "`--goals 20` and [a link](page-3.html)",
        "## 3 heads",
        "    robopref train policy=gtr frames=1000000",
        "```\n17\n```",
        "Lyu et al., arXiv 2602.11800, Eq. 2-3; Wang et al., ICML 2024, Definition 1; Lee et al. 2021",
        "the 3<!--set--> best; in 17<!--noted--> minutes",
        "<!-- noted -->\n| 1 | 2 |\n<!-- /noted -->",
    ],
)
def test_settings_code_and_what_is_noted_need_none(sentence):
    assert says(sentence) == []


def test_a_marked_number_is_compared_as_printed():
    value = shared.where("quick/labels.csv", seed=0, labeller="vlp")["auc"].iloc[0]
    for text in (f"{value:.3f}", marks.fixed(value, 2), marks.fixed(value, 2).removeprefix("0")):
        assert says(f"AUC {text}{AUC} here") == []
    wrong = marks.fixed(value + 0.01, 3)
    (found,) = says(f"AUC\nis {wrong}{AUC}.")
    assert found.startswith(f"README.md:2: {wrong} should be {marks.fixed(value, 3)}")
    assert marks.rewritten(f"AUC {wrong}{AUC}, 17 before") == f"AUC {marks.fixed(value, 3)}{AUC}, 17 before"


def test_centre_and_ends_of_an_interval_are_compared(monkeypatch):
    monkeypatch.setattr(marks, "call", lambda words: Spread(37.04, 30.9, 1041.55, INTERVAL, 5))
    assert says("has 37.0 [30.9, 1,041.6]<!--= x --> and +37<!--= x -->, **37.0**<!--= x --> or 37.04 MB<!--= x -->") == []
    assert [line.split(" by")[0] for line in says("has 37.0 [30.8, 1,041.6]<!--= x -->")] == ["README.md:1: 30.8 should be 30.9"]


def test_several_numbers_may_share_a_mark(monkeypatch):
    monkeypatch.setattr(marks, "call", lambda words: [1.0, 0.6, -1.0])
    assert says("5<!--set--> seeds reach 1.0, .6 and -1.0<!--= x -->") == []
    assert len(says("seeds reach 1.0, .5 and 1.0<!--= x -->")) == 2
    assert "stands for 3 numbers" in says("seeds reach .6 and -1.0<!--= x -->")[0]
    assert "right behind" in says("1.0, .6 and -1.0 are what they reach in the end<!--= x -->")[0]


def test_a_table_that_differs_from_its_csv_is_named_and_written_anew():
    block = "before\n\n<!-- table quick.labels -->\n| 1 |\n<!-- /table -->\n\nafter\n"
    (found,) = says(block)
    assert found.startswith("README.md:3: table quick.labels")
    new = marks.rewritten(block)
    assert says(new) == [] and new.startswith("before\n") and new.endswith("after\n") and marks.rewritten(new) == new


def test_a_changed_cell_of_a_csv_is_noticed(tmp_path, monkeypatch):
    block = marks.rewritten(f"<!-- table quick.labels -->\n<!-- /table -->\n\nAUC 0.5{AUC}.\n")
    assert says(block) == []
    changed = shared.read("quick/labels.csv").assign(auc=0.25)
    (tmp_path / "quick").mkdir()
    changed.to_csv(tmp_path / "quick" / "labels.csv", index=False)
    monkeypatch.setattr(shared, "RESULTS", tmp_path)
    for cached in (marks.call, shared.read):
        cached.cache_clear()
    try:
        table, number = says(block)
    finally:
        for cached in (marks.call, shared.read):
            cached.cache_clear()
    assert "table quick.labels" in table and "should be 0" in number


@pytest.mark.parametrize("words", ["quick.nothing", "nowhere.label", "quick.label 0 nothing", "cell quick/labels.csv auc"])
def test_a_source_that_does_not_exist_is_named(words):
    (found,) = says(f"0.5<!--= {words} -->")
    assert words in found
    with pytest.raises(ValueError, match=words.split()[0]):
        marks.rewritten(f"0.5<!--= {words} -->")


def test_halves_are_rounded_away_from_zero_whatever_the_order_of_a_sum():
    assert marks.fixed(0.8265, 3) == "0.827" and marks.fixed(-0.0005, 3) == "-0.001"
    assert marks.fixed(0.1 + 0.2 - 0.3 + 2.5 - 1e-12, 0) == "3"
    assert marks.fixed(-0.0001, 3) == "0.000" and marks.fixed(1399.4, 0, comma=True, sign=True) == "+1,399"


def test_a_cell_is_found_by_its_columns():
    table = shared.where("quick/labels.csv", seed=0, labeller="vlp")
    assert marks.call("cell quick/labels.csv auc seed=0 labeller=vlp") == table["auc"].iloc[0]
    assert marks.call("mean quick/labels.csv n") == 150
    assert len(marks.call("each quick/labels.csv auc seed=0,2 labeller=vlp")) == 2


@pytest.mark.parametrize("split", ["vlp_paper", "vlp_ml45"])
def test_labellers_that_were_measured_later_met_the_same_clips_and_pairs(split):
    first, later = (shared.read(f"{split}/{name}.csv") for name in ("table", "without_pixels"))
    columns = [name for name in first if name in later and name != "made_from"]
    for model in ("constant", "scripted"):
        rows = [table.loc[table["model"] == model, columns].sort_values(["task", "wording"]) for table in (first, later)]
        pd.testing.assert_frame_equal(*(one.reset_index(drop=True) for one in rows), check_exact=True)
        assert len(rows[0]) == 25
