"""`robopref unseen`: from nothing to the table at toy size, kept when it is done; and its settings."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from robopref.configs.errors import UsageError
from robopref.configs.files import read_json
from robopref.configs.hydra import compose, to_dataclass
from robopref.configs.memory import PeakMemory
from robopref.configs.unseen import UnseenConfig
from robopref.datasets.episodes import EpisodeStore
from robopref.embodied.tasks import SPLITS, TRAIN_PARTS, Split
from robopref.preference import train, unseen

SMALL = [
    "seeds=[0]", "processes=1", "tuples=12", "pairs=4",
    "collect.episodes=2", "collect.max_steps=120", "offline.episodes=2", "offline.max_steps=120",
    "pretrain.steps=4", "pretrain.width=8", "pretrain.features=16", "pretrain.keypoints=4", "pretrain.batch=8",
    "vlp.steps=3", "vlp.batch=4", "vlp.model.dim=16", "vlp.model.heads=2", "vlp.warmup=1",
    "contrastive.steps=2", "only=[factored,cross]", 'variants.cross=["model.architecture=cross","steps=2"]',
]  # fmt: skip


@pytest.fixture
def split(monkeypatch):
    """The paper's split, with four tasks for fifty."""
    chosen = Split(train=("drawer-open", "door-open", "window-close"), test=("drawer-close",))
    monkeypatch.setattr(unseen, "SPLITS", {**SPLITS, "paper": chosen})
    return chosen


def settings(*overrides):
    return to_dataclass(UnseenConfig, compose("unseen", [*SMALL, *overrides]))


def test_from_nothing_to_the_table_and_not_twice(split, tmp_path, capsys, monkeypatch):
    config = settings(f"out={tmp_path / 'run'}")
    table = unseen.run(config)
    rows = pd.read_csv(table)
    blind = {"constant", "scripted", "hand-displacement", "motion-share", "better-cluster"}
    likeness = {"contrastive (cosine)", "contrastive (goal-baseline regularisation)", "contrastive clips"}
    baselines = blind | likeness | {"goal-image"}
    assert set(rows["model"]) == {"factored", "cross"} | baselines and set(rows["task"]) == {"drawer-close"}
    assert len(rows) == 11 * 5 and rows["balanced_accuracy"].between(0, 1).all()
    of = dict(iter(rows.groupby("model")))
    np.testing.assert_allclose(of["scripted"]["balanced_accuracy"], 1.0)
    # Neither hears a sentence, so all wordings are labelled alike, and not by chance: the hand of an expert gets somewhere.
    for motion in ("hand-displacement", "motion-share"):
        assert of[motion]["kind"].eq(motion).all() and of[motion]["balanced_accuracy"].nunique() == 1
    assert of["hand-displacement"]["expert_over_random"].eq(1.0).all()
    assert of["better-cluster"]["over_cluster"].eq(0.0).all() and of["better-cluster"]["itp_accuracy"].isna().all()
    assert rows["clear_balanced_accuracy"].notna().any() and rows["cluster_accuracy"].nunique() == 1  # of the same pairs
    said = capsys.readouterr().out
    seconds, megabytes = map(float, re.search(r"table\.csv: (\d+) s, (\d+) MB at most", said).groups())
    assert seconds > 0 and megabytes > 100
    monkeypatch.setattr(train, "OrderSampler", lambda *_: pytest.fail("it trained again"))
    before = table.read_bytes()
    unseen.run(config)
    assert table.read_bytes() == before and capsys.readouterr().out.endswith(f"{table}: already done\n")

    # What learns has read the train tasks and nothing else, and the labelled data share no episode with the measured orders.
    run = tmp_path / "run"
    trained = {str(path.parent.relative_to(run)): read_json(path)["inputs"] for path in run.rglob("manifest.json")}
    learners = {"backbone-0", "factored-0", "cross-0", "contrastive-frame/seed-0", "contrastive-clip/seed-0"}
    for name in learners:
        assert {part for part in trained[name] if not part.startswith("backbone")} == set(split.train), name
    measured, labelled = (EpisodeStore(run / part / "drawer-close") for part in ("episodes", "offline"))
    assert len(measured) and len(labelled) and not set(measured.index["seed"]) & set(labelled.index["seed"])


def test_the_two_experiments_have_their_splits_and_the_same_recipe():
    paper, ml45 = (to_dataclass(UnseenConfig, compose("unseen", [f"experiment={name}"])) for name in ("vlp_paper", "vlp_ml45"))
    assert paper.split == "paper" and ml45.split == "ml45" and paper.out != ml45.out
    assert replace(paper, split=ml45.split, out=ml45.out) == ml45
    assert set(SPLITS["ml45"].test) == {"bin-picking", "box-close", "door-lock", "door-unlock", "hand-insert"}


def test_the_variants_of_further_experiments_are_beside_the_papers():
    paper, *further = (
        to_dataclass(UnseenConfig, compose("unseen", [f"experiment={name}"]))
        for name in ("vlp_paper", "vlp_ablations", "vlp_wordings")
    )
    trained = {name: unseen.variant(paper.vlp, name, overrides) for name, overrides in paper.variants.items()}
    for config in further:
        assert replace(config, variants=paper.variants) == paper
        both = {name: unseen.variant(config.vlp, name, overrides) for name, overrides in config.variants.items()}
        assert set(both) > set(trained) and {name: both[name] for name in trained} == trained
        assert len(set(map(repr, both.values()))) == len(both)
        assert {settings.orders.wordings for settings in both.values()} <= set(TRAIN_PARTS)


def test_a_variant_is_checked():
    base = settings("out=x").vlp
    assert unseen.variant(base, "wide", ["model.dim=32", "steps=7"]).model.dim == 32
    with pytest.raises(UsageError, match="orders"):
        unseen.variant(base, "typo", ["orders.prefix_shar=0.1"])
    with pytest.raises(UsageError, match="slash"):
        unseen.variant(base, "a/b", [])


def test_memory_of_workers_counts():
    with PeakMemory(every=0.05) as alone:
        time.sleep(0.3)
    with PeakMemory(every=0.05) as both:
        subprocess.run([sys.executable, "-c", "x = bytearray(400 * 2**20); import time; time.sleep(1)"], check=True)
    # 400 asked for: pages shared with processes that come and go beside the test count for more or less meanwhile.
    assert both.mb - alone.mb > 140
