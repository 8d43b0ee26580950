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
        assert set(read_json(path / "manifest.json")["inputs"]) == set(TRAINED)
    stores = [EpisodeStore(path.parent) for path in (tmp_path / "work").rglob("main_data.hdf5")]
    seeds = [seed for store in stores for seed in store.index["seed"]]
    assert len(stores) == 4 and len(set(seeds)) == len(seeds), "of no two tasks, levels or kinds of data is an episode the same"

    monkeypatch.setattr(leave_out.train, "run", lambda config: pytest.fail("it was done again"))
    leave_out.main(command)
    pd.testing.assert_frame_equal(pd.read_csv(out), table)
    said = capsys.readouterr().out
    assert "reversed" in said and "progress" in said


def test_a_test_task_chooses_nothing(tmp_path: Path):
    variants = tmp_path / "variants.yaml"
    variants.write_text("quick: []\n")
    with pytest.raises(RoboprefError, match="door-close: a test task of the paper, and settings are chosen here"):
        leave_out.main([str(variants), "--out", str(tmp_path / "x.csv"), "--tasks", "reach", "door-close"])
    variants.write_text("quick: vlp.steps=3\n")
    with pytest.raises(RoboprefError, match=r"variants.yaml: write NAME"):
        leave_out.main([str(variants), "--out", str(tmp_path / "x.csv"), "--tasks", "reach"])
