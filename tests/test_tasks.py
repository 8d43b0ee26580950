"""The task table: names, splits, wordings, opposites and medium rules, against Meta-World itself where it has a say."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import yaml

from robopref.configs.errors import RoboprefError
from robopref.embodied import tasks
from robopref.embodied.envs import make_env
from robopref.embodied.experts import ScriptedExpert, noisy
from robopref.embodied.rollout import rollout
from robopref.embodied.tasks import KINDS, MARGIN, SPLITS, TASKS, VARIED, MediumRule, canonical, instructions, task

ROOT = Path(__file__).parents[1]


def sentences(name: str) -> list[str]:
    """Everything that is ever said about a task, wrong colours included."""
    return [sentence for kind in (*KINDS, *VARIED) for sentence in task(name).wordings[kind]]


def words(text: str) -> str:
    """Lower case and without punctuation, with a space at either end, so that `in` compares whole words."""
    return f" {' '.join(re.findall(r'[a-z-]+', text.lower()))} "


def expert_episode(name: str, seed: int = 0, linger: int = 0):
    act = noisy(ScriptedExpert(name), 0.1, np.random.default_rng(seed))
    env = make_env(f"metaworld/{name}")
    episode = rollout(env, act, seed=seed, level="expert", policy="scripted", linger=linger)
    return env, episode


# Names and splits


def test_names_and_ml45_are_meta_worlds_own():
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS, ML45_V3

    def plain(names):
        return {name.removesuffix("-v3") for name in names}

    assert set(TASKS) == plain(ALL_V3_ENVIRONMENTS) and len(TASKS) == 50
    assert set(SPLITS["ml45"].train) == plain(ML45_V3["train"])
    assert set(SPLITS["ml45"].test) == plain(ML45_V3["test"])


@pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS)
def test_splits_are_45_and_5_without_overlap(split):
    assert len(split.train) == 45 and len(split.test) == 5
    assert set(split.train) | set(split.test) == set(TASKS)


def test_paper_split_is_the_papers():
    test = ("button-press", "door-close", "drawer-close", "faucet-close", "window-open")
    assert SPLITS["paper"].test == test


def test_a_task_goes_by_three_names():
    assert task("drawer-close") is task("drawer-close-v3") is task("metaworld/drawer-close")


@pytest.mark.parametrize("call", [task, instructions, canonical])
def test_unknown_task_names_the_nearest(call):
    with pytest.raises(RoboprefError, match="Did you mean 'drawer-close'"):
        call("metaworld/drawer-clse")


def test_unknown_part_names_the_nearest():
    with pytest.raises(RoboprefError, match="Did you mean 'heldout'"):
        instructions("push", "held-out")
    with pytest.raises(RoboprefError, match="Did you mean 'wrong colour'"):
        instructions("push", "wrong color")


def test_a_part_may_be_one_kind_of_wording():
    kinds = {kind: instructions("push", kind) for kind in (*KINDS, *VARIED)}
    assert kinds == dict(task("push").wordings)
    assert instructions("push") == kinds["seen"]
    assert instructions("push", "heldout") == (*kinds["phrase"], *kinds["description"], *kinds["correct colour"])


def test_expand_tasks():
    assert tasks.expand_tasks(["push-v3", "paper:test", "push"]) == ("push", *SPLITS["paper"].test)
    with pytest.raises(RoboprefError, match="Did you mean 'paper:train'"):
        tasks.expand_tasks(["paper:trian"])
    with pytest.raises(RoboprefError, match="Did you mean 'soccer'"):
        tasks.expand_tasks(["socer"])


def test_the_table_needs_no_simulator():
    code = "import sys, robopref.embodied.tasks; print(*sorted({'mujoco', 'metaworld', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


# Wordings


@pytest.mark.parametrize("name", TASKS)
def test_wordings_are_many_distinct_and_well_formed(name):
    train, heldout = instructions(name), instructions(name, "heldout")
    assert len(train) >= 32 and len(heldout) >= 12
    assert canonical(name) == train[0]
    assert len({words(sentence) for sentence in sentences(name)}) == len(sentences(name))
    for sentence in sentences(name):
        assert isinstance(sentence, str) and sentence.isascii()
        assert not re.search(r"[{}]|  |^ | $|\b(\w+) \1\b", sentence), sentence


def test_wordings_of_two_tasks_never_meet():
    """Nor is one a part of another: "press the button" would be learned from "press the button behind the wall"."""
    said = {name: [words(sentence) for sentence in sentences(name)] for name in TASKS}
    for one, other in combinations(TASKS, 2):
        for a in said[one]:
            for b in said[other]:
                assert a not in b and b not in a, (one, other, a, b)


def test_heldout_vocabulary_is_unheard_in_training():
    table = yaml.safe_load((ROOT / "embodied/instructions.yaml").read_text())
    assert list(table) == sorted(TASKS)
    for name, entry in table.items():
        said = [words(sentence) for sentence in instructions(name, "shared")]
        train = " ".join(said[: len(instructions(name))])
        for phrase in entry["new"]["do"] + entry["new"]["what"] + entry["new"]["state"]:
            parts = [part for part in phrase.split("{}") if part.strip()]
            assert not all(words(part) in train for part in parts), (name, phrase)
        _, right, wrong = entry["colour"]
        assert right != wrong and not any(words(colour) in sentence for colour in (right, wrong) for sentence in said)


def test_what_varies_has_words_of_its_own():
    """No word of a synonym is one that only held-out wordings use; each shared synonym has such a word."""

    def heard(kinds: tuple[str, ...]) -> set[str]:
        return {word for name in TASKS for kind in kinds for said in task(name).wordings[kind] for word in words(said).split()}

    held_out = heard(("phrase", "description")) - heard(("seen",))
    assert {"tap", "compartment", "flush"} <= held_out
    assert not held_out & heard(("synonym",))
    for name in TASKS:
        wordings = task(name).wordings
        assert all(held_out & set(words(said).split()) for said in wordings["shared synonym"])
        assert len(wordings["synonym"]) >= 12 and len(wordings["synonym"]) + len(wordings["shared synonym"]) >= 50
        assert instructions(name, "varied") == (*wordings["seen"], *wordings["synonym"])
        assert instructions(name, "shared") == (*wordings["seen"], *wordings["synonym"], *wordings["shared synonym"])
    new = heard(("synonym",)) - heard(("seen",))
    assert {"cabinet", "cupboard", "sash"} <= new


def test_sentences_and_their_order_are_fixed():
    assert instructions("drawer-close")[:10] == (
        "close the drawer",
        "shut the drawer",
        "push the drawer closed",
        "push the drawer in",
        "close the sliding drawer",
        "shut the sliding drawer",
        "push the sliding drawer closed",
        "push the sliding drawer in",
        "please close the drawer",
        "can you shut the drawer?",
    )
    assert instructions("drawer-close")[-1] == "the task is done when the sliding drawer is closed"
    assert task("drawer-close").wordings["description"][1] == "leave the drawer flush with its case"
    assert task("drawer-close").wordings["correct colour"][0] == "close the green drawer"
    assert task("drawer-close").wordings["wrong colour"][0] == "close the orange drawer"


# Opposites


def test_reverse_goes_both_ways():
    for name, entry in TASKS.items():
        if entry.reverse is None:
            assert not entry.truly_reversible
        else:
            assert task(entry.reverse).reverse == name
            assert task(entry.reverse).truly_reversible == entry.truly_reversible
    assert task("drawer-open").reverse == "drawer-close" and task("drawer-open").truly_reversible
    assert task("faucet-open").reverse == "faucet-close" and not task("faucet-open").truly_reversible


@cache
def path(name: str) -> tuple[str, np.ndarray, np.ndarray]:
    """Scene file, and the object's joints at the start and 25 steps after the success of an expert episode."""
    env, episode = expert_episode(name, linger=25)
    assert episode.success.any()
    sawyer = env.unwrapped
    end = sawyer.data.qpos[9:].copy()  # behind the arm's seven joints and the two fingers
    env.reset(seed=0)
    return Path(sawyer.model_name).name, sawyer.data.qpos[9:].copy(), end


def leads_to(one: str, other: str) -> bool:
    """Whether `one`, in the same scene, moves the object most of the way to where it is when `other` starts."""
    (scene, start, end), (other_scene, other_start, _) = path(one), path(other)
    return scene == other_scene and bool(np.linalg.norm(end - other_start) < 0.5 * np.linalg.norm(end - start))


@pytest.mark.parametrize("pair", tasks.TRUE_REVERSALS, ids="/".join)
def test_true_reversals_start_where_the_other_ends(pair):
    assert leads_to(*pair) and leads_to(*pair[::-1])


def test_faucets_start_both_in_the_middle_and_so_are_no_true_reversals():
    assert not leads_to("faucet-open", "faucet-close") and not leads_to("faucet-close", "faucet-open")


# Medium


def near(*reached: int, length: int = 60) -> np.ndarray:
    """near_object of `length` steps that is 1 from the first of `reached` on (and 0 again from the second)."""
    start, stop = (*reached, length)[:2]
    return ((np.arange(length) >= start) & (np.arange(length) < stop)).astype(float)


SUCCESS_AT_40 = np.arange(60) >= 40


@pytest.mark.parametrize(
    ("rule", "near_object", "keep"),
    [
        (MediumRule("near_object"), near(12), 13),  # up to and with the step that arrives
        (MediumRule("near_object"), near(12, 15), 13),  # leaving again changes nothing
        (MediumRule("near_object"), near(MARGIN), MARGIN + 1),
        (MediumRule("near_object"), near(MARGIN - 1), 20),  # too early: the fraction instead
        (MediumRule("near_object"), near(40 - MARGIN), 20),  # too late
        (MediumRule("near_object"), near(50), 20),  # after success
        (MediumRule("near_object"), np.zeros(60), 20),  # never
        (MediumRule("near_object", threshold=0.9), 0.02 * np.arange(60), 20),  # 0.9 only in step 45
        (MediumRule("near_object", threshold=0.5), 0.02 * np.arange(60), 26),
        (MediumRule("fraction"), near(12), 20),
        (MediumRule("fraction", fraction=0.25), near(12), 10),
        (MediumRule("fraction", fraction=0.0), near(12), 2),
        (MediumRule("fraction", fraction=1.0), near(12), 40),
    ],
)
def test_cut_by_hand(rule, near_object, keep):
    assert rule.cut(near_object, SUCCESS_AT_40) == keep


def test_cut_looks_at_the_first_success_only():
    success = np.zeros(60, bool)
    success[[30, 50]] = True
    assert MediumRule("fraction").cut(np.zeros(60), success) == 15


@pytest.mark.parametrize(
    ("success", "message"), [([False] * 9, "never succeeds"), ([False, True], "step 2"), ([], "never succeeds")]
)
def test_cut_refuses_what_cannot_be_medium(success, message):
    with pytest.raises(RoboprefError, match=message):
        MediumRule("fraction").cut(np.zeros(len(success)), np.array(success, bool))


def test_rules_in_force_follow_from_the_measurement():
    with (ROOT / "docs/results/medium_rule.csv").open(newline="") as file:
        rows = {row["task"]: row for row in csv.DictReader(file)}
    assert set(rows) == set(TASKS)
    for name, entry in TASKS.items():
        assert (entry.medium.kind == "near_object") == (rows[name]["near_works"] == "True"), name
        assert entry.medium.threshold == float(rows[name]["threshold"])


@pytest.mark.parametrize("name", ["box-close", "door-close", "drawer-open", "hammer", "reach"])
def test_medium_of_a_real_episode_is_unfinished(name):
    env, episode = expert_episode(name)
    env.close()
    keep = task(name).medium.cut(episode.near_object, episode.success)
    assert MARGIN < keep < len(episode) - MARGIN
    assert not episode.cut(keep, "medium").success.any()


def test_the_documentation_lists_every_task():
    text = (ROOT / "docs/tasks.md").read_text()
    for name, entry in TASKS.items():
        (row,) = re.findall(rf"^\| {name} \|.*$", text, flags=re.MULTILINE)
        opposite, rule = row.split(" | ")[2:4]
        assert f" {canonical(name)} " in row
        assert opposite == (f"**{entry.reverse}**" if entry.truly_reversible else entry.reverse or "")
        assert rule.startswith(entry.medium.kind)
