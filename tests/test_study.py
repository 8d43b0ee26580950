"""The comparison of policy settings: a row a job, appended, and nothing done twice."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import yaml

from robopref.configs import rows
from robopref.configs.errors import RoboprefError
from robopref.policies import downstream, offline_study, online_study, onpolicy_study, study
from robopref.preference import compare

DATA = ["offline.episodes=2", "offline.max_steps=150", "goals=2"]
SHORT = ["max_steps=30", "policy_seeds=[0,1]", "bc.steps=5", "cpl.steps=3", "cpl.clone_steps=5", "annotate.pairs=10"]


@pytest.fixture
def variants(tmp_path: Path) -> Path:
    path = tmp_path / "variants.yaml"
    what = {"bc": {"policy": "bc", "set": SHORT}, "cpl": {"policy": "cpl", "set": [*SHORT, "cpl.bias=1"]}}
    path.write_text(yaml.safe_dump(what))
    return path


@pytest.mark.parametrize("name", ["NA", "null", "None", "001"])
def test_tables_of_studies_keep_the_names_that_were_given(name: str, tmp_path: Path) -> None:
    columns = "task env world data labels labeller policy policy_seed variant model seed frame wording kind return success score"
    row = dict.fromkeys(columns.split(), "1") | dict.fromkeys(("variant", "model", "labeller", "data", "world"), name)
    path = tmp_path / "table.csv"
    pd.DataFrame([row | {"settings": "1e5", "made_from": "0"}]).to_csv(path, index=False)
    readers = [module.read_rows for module in (online_study, offline_study, onpolicy_study, downstream)]
    for reader in (*readers, compare.read_table, lambda path: rows.read_rows(path, study.KEY)):
        table = reader(path)
        for column in ("variant", "model", "labeller", "data", "world"):
            assert table[column].tolist() == [name]
        assert table["settings"].tolist() == ["1e5"] and table["seed"].tolist() == [1]


def test_rows_are_appended_and_nothing_is_done_twice(variants: Path, tmp_path: Path, capsys, monkeypatch):
    # The data have the quick scale's size, whatever a variant says: variants share them.
    quick = study.pipeline_settings
    monkeypatch.setattr(study, "pipeline_settings", lambda overrides: quick([*overrides, *DATA]))
    command = [str(variants), "--out", str(tmp_path / "study.csv"), "--work", str(tmp_path / "work"), "--processes", "1"]
    study.main([*command, "--tasks", "drawer-open", "--only", "bc", "cpl"])
    first = pd.read_csv(tmp_path / "study.csv")
    assert first["variant"].tolist() == ["bc", "cpl"] and first["n"].tolist() == [4, 4]
    assert set(first["labeller"]) == {"scripted"} and first["mean"].between(0, 1).all()

    monkeypatch.setattr(study.evaluate, "run", lambda config: pytest.fail("it was done again"))
    study.main([*command, "--tasks", "drawer-open", "--only", "bc", "cpl"])
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "study.csv"), first)
    assert "drawer-open" in capsys.readouterr().out


def test_rows_of_other_settings_are_refused_and_an_older_table_is_only_read(variants: Path, tmp_path: Path, capsys, monkeypatch):
    out = tmp_path / "study.csv"
    config = study.StudyConfig(variants, out, first_goal=1000)
    asked = study.read_variants(variants)["cpl"]
    key = {"task": "drawer-open", "seed": 0, "labeller": "scripted", "variant": "cpl"}
    row = key | {"mean": 0.25, "settings": study.made_with(config, 0, asked)}
    pd.DataFrame([row]).to_csv(out, index=False)
    monkeypatch.setattr(study, "run_one", lambda *job: pytest.fail("it was done again"))
    command = [str(variants), "--out", str(out), "--only", "cpl", "--processes", "1"]
    study.main(command)
    before = out.read_bytes()
    with pytest.raises(
        RoboprefError, match=r"study\.csv: the rows of task drawer-open, seed 0, .*, variant cpl were made with other"
    ):
        study.main([*command, "--first-goal", "0"])
    for more in ("cpl.bias=0.5", "offline.episodes=3", "annotate.pairs=20", "policy_seeds=[0]", "goals=7"):
        changed = {"cpl": {"policy": "cpl", "set": [*asked["set"], more]}}
        variants.write_text(yaml.safe_dump(changed))
        if more == "offline.episodes=3":  # data are shared, whatever a variant says
            study.main(command)
            continue
        with pytest.raises(RoboprefError, match="choose another --out, or give the settings that they were made with"):
            study.main(command)
    variants.write_text(yaml.safe_dump({"cpl": {"policy": "cpl", "set": [*asked["set"], "processes=7"]}}))
    study.main(command)  # which changes no number
    assert out.read_bytes() == before
    pd.DataFrame([row]).drop(columns="settings").to_csv(out, index=False)
    with pytest.raises(RoboprefError, match=r"an older table without the column `settings`.*--summary"):
        study.main(command)
    capsys.readouterr()
    study.main([*command, "--summary"])
    assert "0.25" in capsys.readouterr().out


def test_what_is_mistyped_is_named(variants: Path, tmp_path: Path):
    with pytest.raises(RoboprefError, match=r"no such variant\. Did you mean 'cpl'"):
        study.main([str(variants), "--out", str(tmp_path / "study.csv"), "--only", "cpl-2"])
    variants.write_text("cpl: {set: [cpl.alpha=1]}")
    with pytest.raises(RoboprefError, match=r"variants.yaml: variant cpl needs `policy: bc`"):
        study.main([str(variants), "--out", str(tmp_path / "study.csv")])
    with pytest.raises(RoboprefError, match=r"nothing.yaml does not exist"):
        study.main([str(tmp_path / "nothing.yaml"), "--out", str(tmp_path / "study.csv")])


@pytest.mark.parametrize(
    "text",
    ["a: &a [x]\nb: *a", "a: " + "9" * 5000, "a: 3", "a: {policy: [bc]}", "a: {policy: bc, set: 3}", "3: {policy: bc}", "[a]"],
)
def test_a_variants_file_of_another_kind_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "variants.yaml").write_text(text)
    with pytest.raises(RoboprefError) as caught:
        study.read_variants(tmp_path / "variants.yaml")
    assert str(caught.value).startswith(str(tmp_path / "variants.yaml")) and "\n" not in str(caught.value)
