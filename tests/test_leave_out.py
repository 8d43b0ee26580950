"""VLP settings compared on train tasks left out of training: rows a task, appended, and never a test task."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from robopref.configs.errors import RoboprefError
from robopref.configs.files import read_json
from robopref.datasets.episodes import EpisodeStore
from robopref.embodied.tasks import SPLITS
from robopref.preference import leave_out

TINY = [
    "collect.episodes=2", "offline.episodes=2", "offline.max_steps=70", "pretrain.steps=3", "pretrain.batch=8",
    "pretrain.width=8", "vlp.steps=2", "annotate.pairs=10",
]  # fmt: skip
TRAINED, LEFT_OUT = ("reach", "handle-press"), "coffee-button"


@pytest.mark.timeout(400)
def test_a_row_a_task_and_nothing_twice(tmp_path: Path, capsys, monkeypatch):
    variants = tmp_path / "variants.yaml"
    more = {"progress": "vlp.orders.progress_weight=0.5", "again": "vlp.seed=100"}
    variants.write_text(f"tiny: {TINY}\n" + "".join(f"{name}: {[*TINY, setting]}\n" for name, setting in more.items()))
    others = [name for name in SPLITS["paper"].train if name not in (*TRAINED, LEFT_OUT)]
    out = tmp_path / "leave_out.csv"
    command = [str(variants), "--out", str(out), "--work", str(tmp_path / "work"), "--seeds", "0", "--processes", "1"]
    command += ["--tasks", LEFT_OUT, "--without", *others]
    leave_out.main(command)
    table = pd.read_csv(out)
    assert table["variant"].tolist() == ["tiny", "progress", "again"] and set(table["task"]) == {LEFT_OUT}
    measured = ["accuracy", "balanced_accuracy", "auc", "constant_accuracy", "itp_accuracy", "ivp_accuracy"]
    assert table[measured].stack().between(0, 1).all() and table["kendall_tau"].between(-1, 1).all()
    assert len(list((tmp_path / "work").glob("backbone-*"))) == 1  # shared, since only VLP differs
    assert len({path.read_bytes() for path in (tmp_path / "work" / "vlp-0").glob("*/model.safetensors")}) == 3

    for path in [*(tmp_path / "work").glob("backbone-*"), *(tmp_path / "work" / "vlp-0").iterdir()]:
        read = read_json(path / "manifest.json")["inputs"]
        assert {name for name in read if not name.startswith("backbone")} == set(TRAINED)
    stores = [EpisodeStore(path.parent) for path in (tmp_path / "work").rglob("main_data.hdf5")]
    seeds = [seed for store in stores for seed in store.index["seed"]]
    assert len(stores) == 4 and len(set(seeds)) == len(seeds), "of no two tasks, levels or kinds of data is an episode the same"

    monkeypatch.setattr(leave_out.train, "run", lambda config: pytest.fail("it was done again"))
    leave_out.main(command)
    pd.testing.assert_frame_equal(pd.read_csv(out), table)
    said = capsys.readouterr().out
    assert "reversed" in said and "progress" in said


def test_rows_of_other_settings_are_refused_and_an_older_table_is_only_read(tmp_path: Path, capsys, monkeypatch):
    variants, out = tmp_path / "variants.yaml", tmp_path / "leave_out.csv"
    variants.write_text(f"tiny: {TINY}\n")
    config = leave_out.LeaveOutConfig(variants, out, (LEFT_OUT,))
    mark = leave_out.made_with(config, leave_out.settings_of(TINY, 0))
    row = {"variant": "tiny", "seed": 0, "task": LEFT_OUT, "auc": 0.25, "balanced_accuracy": 0.75, "settings": mark}
    pd.DataFrame([row]).to_csv(out, index=False)
    for stage in ("collect_all", "train_backbone", "run_one"):
        monkeypatch.setattr(leave_out, stage, lambda *job: pytest.fail("it was done again"))
    command = [str(variants), "--out", str(out), "--seeds", "0", "--tasks", LEFT_OUT]
    leave_out.main([*command, "--processes", "1"])
    before = out.read_bytes()
    for more in ("vlp.lr=0.01", "pretrain.steps=4", "collect.noise=0.2", "annotate.pairs=11", "offline.episodes=3"):
        variants.write_text(f"tiny: {[*TINY, more]}\n")
        with pytest.raises(
            RoboprefError, match=r"leave_out\.csv: the rows of variant tiny, seed 0 were made with other settings"
        ):
            leave_out.main(command)
    variants.write_text(f"tiny: {[*TINY, 'vlp.threads=7']}\n")
    leave_out.main(command)  # which changes no number
    for others in ([LEFT_OUT, "reach"], [LEFT_OUT, "--without", "reach"]):
        with pytest.raises(RoboprefError, match="choose another --out, or give the settings that they were made with"):
            leave_out.main([*command[:-1], *others])
    assert out.read_bytes() == before
    pd.DataFrame([row]).drop(columns="settings").to_csv(out, index=False)
    with pytest.raises(RoboprefError, match=r"an older table without the column `settings`.*--summary"):
        leave_out.main(command)
    capsys.readouterr()
    leave_out.main([*command, "--summary"])
    assert "tiny" in capsys.readouterr().out


def test_a_test_task_chooses_nothing(tmp_path: Path):
    variants = tmp_path / "variants.yaml"
    variants.write_text("quick: []\n")
    with pytest.raises(RoboprefError, match="door-close: a test task of the paper, and settings are chosen here"):
        leave_out.main([str(variants), "--out", str(tmp_path / "x.csv"), "--tasks", "reach", "door-close"])
    variants.write_text("quick: vlp.steps=3\n")
    with pytest.raises(RoboprefError, match=r"variants.yaml: write NAME"):
        leave_out.main([str(variants), "--out", str(tmp_path / "x.csv"), "--tasks", "reach"])


@pytest.mark.parametrize("text", ["a: &a [x]\nb: *a", "a: [" + "9" * 5000 + "]", "a: 3", "a: [3]", "3: [x=1]", "[a]", ""])
def test_a_variants_file_of_another_kind_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "variants.yaml").write_text(text)
    with pytest.raises(RoboprefError) as caught:
        leave_out.read_variants(tmp_path / "variants.yaml")
    assert str(caught.value).startswith(str(tmp_path / "variants.yaml")) and "\n" not in str(caught.value)
