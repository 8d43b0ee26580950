"""The benchmarks run, with fewer rounds, and their last line is the JSON that the README promises."""

from __future__ import annotations

import json

import pytest

from robopref.configs import cli
from robopref.policies.benchmarks import annotate, collect, render, vlp


def last_line(capsys, name):
    assert cli.main(["bench", name]) == 0
    return json.loads(capsys.readouterr().out.strip().splitlines()[-1])


def test_vlp(capsys, monkeypatch):
    monkeypatch.setattr(vlp, "ROUNDS", 1)
    monkeypatch.setattr(vlp, "CACHED_STEPS", 1)
    measured = last_line(capsys, "vlp")
    assert set(measured) == {"ratio", "tuples_per_s"} and measured["ratio"] > 1


def test_a_table_holds_the_last_run_of_each(tmp_path, monkeypatch, capsys):
    runs = [{"ratio": {"64": 30.0, "224": 15.5}}, {"ratio": 12.4, "tuples_per_s": 857.1}, {"ratio": {"64": 31.0, "224": 16.0}}]
    measured = iter(runs)
    for module in (render, vlp):
        monkeypatch.setattr(module, "run", lambda: next(measured))
    table = tmp_path / "bench.csv"
    for name in ("render", "vlp", "render"):
        assert cli.main(["bench", name, "--csv", str(table)]) == 0
    assert table.read_text().splitlines() == [
        "benchmark,measure,value",
        "vlp,ratio,12.4",
        "vlp,tuples_per_s,857.1",
        "render,ratio.64,31.0",
        "render,ratio.224,16.0",
    ]
    table.write_text("task,seed\nreach,0\n")
    assert cli.main(["bench", "vlp", "--csv", str(table)]) == 1  # nothing is left to measure: it was told before
    assert "bench.csv: no table of `robopref bench`" in capsys.readouterr().err


def test_render(capsys, monkeypatch):
    monkeypatch.setattr(render, "ROUNDS", 1)
    measured = last_line(capsys, "render")
    assert set(measured["ratio"]) == {"64", "224"} and min(measured["ratio"].values()) > 1


def test_collect(capsys, monkeypatch):
    monkeypatch.setattr(collect, "TASKS", ("drawer-open", "reach"))
    monkeypatch.setattr(collect, "EPISODES", 1)
    measured = last_line(capsys, "collect")
    assert set(measured) == {"ratio", "scaling", "clips_per_s"} and measured["ratio"] > 1


def test_annotate(capsys, monkeypatch):
    for name, value in {"PAIRS": 20, "CLIPS": 8, "SAMPLE": 4, "FEW": 2, "MANY": 4}.items():
        monkeypatch.setattr(annotate, name, value)
    measured = last_line(capsys, "annotate")
    assert set(measured) == {"ratio", "peak_mb"} and measured["peak_mb"] > 0


def test_a_mistyped_name_is_an_error_that_lists_the_choices(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["bench", "rendr"])
    said = capsys.readouterr()
    assert stopped.value.code == 2 and "render" in said.out + said.err
