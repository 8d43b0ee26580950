"""The tables of label quality that documents quote, from finished pipeline runs."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest
from small_run import make_run

from robopref.configs.errors import RoboprefError
from robopref.configs.files import read_json, write_json
from robopref.policies import summary

CHEAP = {"constant": 0.5, "hand-displacement": 0.72, "motion-share": 0.64}


@pytest.fixture
def run(tmp_path):
    folder = make_run(tmp_path / "quick")
    manifest = read_json(folder / "manifest.json")
    write_json(folder / "manifest.json", manifest | {"config": manifest["config"] | {"seed": 3}})
    agreed = read_json(folder / "labels" / "vlp.run" / "agreement.json")
    for labeller, value in CHEAP.items():
        write_json(folder / "labels" / f"{labeller}.run" / "agreement.json", agreed | {"balanced_accuracy": value})
    orders = read_json(folder / "vlp" / "generalisation.json")
    motions = {"hand-displacement": {"itp_accuracy": 0.956}, "motion-share": {"itp_accuracy": 0.9}}
    write_json(folder / "vlp" / "generalisation.json", orders | {"without_pixels": motions})
    return folder


def test_vlp_stands_beside_what_is_cheap(run, tmp_path, capsys):
    summary.main([str(run), "--out", str(tmp_path / "out")])
    labels = pd.read_csv(tmp_path / "out" / "labels.csv").set_index("labeller")
    assert labels.index.tolist() == ["vlp", *CHEAP] and (labels["seed"] == 3).all()
    np.testing.assert_allclose(labels["balanced_accuracy"], [0.8, *CHEAP.values()])
    np.testing.assert_allclose(labels["episodes_itp_accuracy"], [0.91, np.nan, 0.956, 0.9])
    assert labels["episodes_ivp_accuracy"].notna().tolist() == [True, False, False, False]  # who hears no words has none
    success = pd.read_csv(tmp_path / "out" / "success.csv")
    assert set(success["policy"]) >= {"random", "bc", "cpl-vlp"} and (tmp_path / "out" / "rollout.png").exists()
    assert "hand-displacement" in capsys.readouterr().out
    outcomes = pd.read_csv(tmp_path / "out" / "outcomes.csv")
    assert len(outcomes) == len(pd.read_csv(run / "evaluation" / "success.csv")) and (outcomes["seed"] == 3).all()
    assert list(outcomes) == ["task", "seed", "policy", "member", "goal", "success", "ret", "steps"]


def test_a_run_of_the_first_edition_has_its_vlp_alone_and_an_unfinished_one_is_refused(run, tmp_path):
    for labeller in CHEAP:
        shutil.rmtree(run / "labels" / f"{labeller}.run")
    labels, _ = summary.tables((run,))
    assert labels["labeller"].tolist() == ["vlp"]
    (run / "manifest.json").unlink()
    with pytest.raises(RoboprefError, match="not a finished run"):
        summary.tables((run,))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("vlp/generalisation.json", "[]"),
        ("vlp/generalisation.json", '{"wordings": {"train": 3}}'),
        ("vlp/generalisation.json", '{"wordings": {"train": {}}}'),
        ("labels/vlp.run/agreement.json", "3"),
        ("evaluation/summary.json", "[]"),
        ("evaluation/summary.json", '{"bc": 3}'),
        ("evaluation/success.csv", "a,b\n1,2\n"),
        ("evaluation/success.csv", ""),
    ],
)
def test_a_file_of_another_kind_is_one_line(run, tmp_path, name, text):
    (run / name).write_text(text)
    with pytest.raises(RoboprefError) as caught:
        summary.main([str(run), "--out", str(tmp_path / "out")])
    assert str(caught.value).startswith(str(run / name)) and "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists() or name == "evaluation/success.csv"
