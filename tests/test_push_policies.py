"""Sharing policies and learned rewards: pushed ones act as the run does, wherever they are taken and by whichever way."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hub_stub import TOKEN, Hub, serving
from huggingface_hub import ModelCard
from small_commands import GTR, SAC, words
from test_push import ROBOPREF, files, python
from test_train_policy import POLICIES, labels, made_up_episode

from robopref.configs import cli
from robopref.configs.checkpoint import load_model
from robopref.configs.errors import RoboprefError
from robopref.configs.files import digest, read_json, write_json
from robopref.configs.policy import EvaluateConfig, TrainConfig
from robopref.configs.push import PushConfig
from robopref.datasets.episodes import write_episodes
from robopref.datasets.preferences import Origin, write_preferences
from robopref.policies import evaluate, push, train
from robopref.policies.networks import load_policy
from robopref.preference.hub import FILES, find_model, name_of
from robopref.preference.reward import LearnedReward

ENV = "metaworld/drawer-close"
SENTENCE = "close the drawer"
KINDS = ("piql", "bc", "cpl", "sac", "gtr")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """runs/NAME of every kind of policy, from data and labels beside them; runs/evaluation is of piql, bc and random."""
    folder, rng = tmp_path_factory.mktemp("made"), np.random.default_rng(0)
    write_episodes(folder / "data", ENV, [made_up_episode(rng) for _ in range(4)], {})
    origin = Origin("vlp", SENTENCE, {"model": "ab" * 32}, digest(folder / "data"), ENV)
    write_preferences(folder / "labels.parquet", labels(rng), origin)
    for name in ("piql", "bc", "cpl"):
        told = None if name == "bc" else folder / "labels.parquet"
        train.run(TrainConfig(folder / "runs" / name, folder / "data", POLICIES[name], told, seeds=(3, 8), device="cpu"))
    for name, command in (("sac", SAC), ("gtr", GTR)):
        assert cli.main(words(command, folder / "runs" / name)) == 0
    policies = (str(folder / "runs" / "piql"), str(folder / "runs" / "bc"), "random")
    evaluate.run(EvaluateConfig(policies, folder / "runs" / "evaluation", goals=2, max_steps=3, references=1))
    return folder / "runs"


def acts(policy: Path, member: int = 0) -> np.ndarray:
    found = load_policy(policy, member)
    return found.act(np.random.default_rng(1).normal(size=(5, found.obs_dim)))


@pytest.mark.parametrize("name", KINDS)
def test_a_pushed_policy_acts_the_same_and_tells_no_path(runs: Path, tmp_path: Path, name: str, capsys) -> None:
    target = tmp_path / "shared" / "mine"
    assert cli.main(["push", str(runs / name), "--to", str(target)]) == 0
    assert f"{target}: {len(files(target))} files, " in (said := capsys.readouterr().out) and "give it to --policy" in said
    wanted = {*FILES["policy"]} if name == "piql" else {"README.md", "config.json", "model.safetensors"}
    assert files(target).keys() == wanted
    for member in range(len(read_json(target / "config.json")["config"]["seeds"])):
        np.testing.assert_array_equal(acts(target, member), acts(runs / name, member))
    for file, content in files(target).items():
        assert str(runs.parent) not in content.decode(errors="replace"), f"{file} tells a path of this machine"
    card = ModelCard.load(target / "README.md")
    assert card.data.library_name == "robopref" and "reinforcement-learning" in card.data.tags
    env = load_model(runs / name, "policy")[1]["env"]
    assert f"`{env}`" in card.text and f"--policy mine --env {env} " in card.text


def test_the_card_says_what_the_files_of_the_run_say(runs: Path, tmp_path: Path) -> None:
    push.run(PushConfig(runs / "piql", str(tmp_path / "mine")))
    card = ModelCard.load(tmp_path / "mine" / "README.md")
    manifest, summary = (read_json(runs / name) for name in ("piql/manifest.json", "evaluation/summary.json"))
    for part in (
        f"2 policies for `{ENV}`, trained with robopref by P-IQL",
        "seeds 3, 8",
        "An observation is 39 numbers, as the environment gives them; an action is 4 numbers",
        "a new one every frame",
        f"`data` (sha256 {manifest['inputs']['data']['sha256']})",
        f"(sha256 {manifest['inputs']['labels']['sha256']})",
        "The labels are of 6 pairs, given by a vision-language preference model (VLP)",
        f'the instruction was "{SENTENCE}"',
        f"`model`, weights of sha256 {'ab' * 32}",
        "| policy.reward_steps | 4 |",
        "| model.safetensors | ",
        "`reward=mine`",
        f"| {ENV} | mine | success | {summary['piql']['iqm']:.3f} |",
        f"| {ENV} | random | success | {summary['random']['iqm']:.3f} |",
    ):
        assert part in card.text, part
    assert "| seabo" not in card.text and "| bc " not in card.text
    (result,) = card.data.eval_results
    assert (result.dataset_name, result.metric_type, result.metric_value) == (ENV, "success_rate", summary["piql"]["mean"])
    push.run(PushConfig(runs / "bc", str(tmp_path / "bc")))
    text = (tmp_path / "bc" / "README.md").read_text()
    assert (
        "behaviour cloning" in text and "The actions in them, and no reward." in text and "labels" not in text.split("## How")[1]
    )


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        (
            "sac",
            (
                "soft actor-critic (Haarnoja",
                "- sac\n",
                "1 policy for `mujoco/HalfCheetah-v5`",
                "300 frames",
                "an action is 6 numbers",
                "own reward",
            ),
        ),
        (
            "gtr",
            ("GTR, in robopref's reconstruction", "`mujoco/hopper`", "The world changed while it learnt: friction", "64 frames"),
        ),
    ],
)
def test_the_card_of_one_that_learnt_while_it_acted(runs: Path, tmp_path: Path, name: str, parts: tuple[str, ...]) -> None:
    push.run(PushConfig(runs / name, str(tmp_path / "mine")))
    text = (tmp_path / "mine" / "README.md").read_text()
    for part in parts:
        assert part in text, part
    assert "No evaluation of these weights" in text and "model-index" not in text


@pytest.mark.parametrize("which", ["weights", "labels"])
def test_numbers_of_other_weights_and_words_of_other_labels_are_not_told(runs: Path, tmp_path: Path, which: str) -> None:
    whole = Path(shutil.copytree(runs, tmp_path / "runs"))
    manifest = whole / ("evaluation" if which == "weights" else "piql") / "manifest.json"
    told = read_json(manifest)
    told["inputs"]["piql" if which == "weights" else "labels"]["sha256"] = "0" * 64
    write_json(manifest, told)
    push.run(PushConfig(whole / "piql", str(tmp_path / "mine")))
    text = (tmp_path / "mine" / "README.md").read_text()
    assert ("No evaluation of these weights" in text) == (which == "weights")
    assert ("does not say who gave them" in text) == (which == "labels") and (SENTENCE in text) == (which == "weights")


def test_a_model_of_another_kind_is_replaced_only_when_told(runs: Path, tmp_path: Path) -> None:
    target = tmp_path / "mine"
    push.run(PushConfig(runs / "piql", str(target)))
    before = files(target)
    with pytest.raises(RoboprefError, match=r"mine holds a policy that an earlier push wrote: .* --overwrite"):
        push.run(PushConfig(runs / "piql" / "reward", str(target)))
    with pytest.raises(RoboprefError, match="mine holds another policy that an earlier push wrote"):
        push.run(PushConfig(runs / "bc", str(target)))
    assert files(target) == before
    push.run(PushConfig(runs / "piql" / "reward", str(target), overwrite=True))
    assert read_json(target / "config.json")["kind"] == "reward"


def test_an_evaluation_in_the_run_and_that_of_a_pipeline_are_found(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "policies").mkdir()
    for name in ("piql", "evaluation"):
        shutil.copytree(runs / name, tmp_path / ("policies/piql" if name == "piql" else name))
    push.run(PushConfig(tmp_path / "policies" / "piql", str(tmp_path / "shared")))
    assert f"| {ENV} | shared | success |" in (tmp_path / "shared" / "README.md").read_text()
    (tmp_path / "evaluation").rename(tmp_path / "policies" / "piql" / "evaluation")
    push.run(PushConfig(tmp_path / "policies" / "piql", str(tmp_path / "shared")))
    assert f"| {ENV} | shared | success |" in (tmp_path / "shared" / "README.md").read_text()


def test_the_lines_of_the_cards_run(runs: Path, inside: Path, capsys) -> None:
    push.run(PushConfig(runs / "piql", "mine"))
    push.run(PushConfig(runs / "piql" / "reward", "worth"))
    shutil.copytree(runs.parent / "data", "data")
    told = {
        name: dict(re.findall(r"```(\w+)\n(.*?)```", Path(name, "README.md").read_text(), flags=re.DOTALL))
        for name in ("mine", "worth")
    }
    more = {"mine": ["--goals", "1", "--max-steps", "2"], "worth": ["policy.steps=2", "policy.hidden=[8]", "seeds=[0]"]}
    for name, blocks in told.items():
        program, *arguments = shlex.split(blocks["sh"])
        assert program == "robopref" and cli.main([*arguments, *more[name]]) == 0, capsys.readouterr().err
        capsys.readouterr()
        exec(blocks["python"], {})
        printed = np.fromstring(capsys.readouterr().out.strip("[] \n"), sep=" ")
        zero = np.zeros((1, 39)), np.zeros((1, 4))
        wanted = load_policy("mine").act(zero[0])[0] if name == "mine" else LearnedReward("worth", None)(*zero, zero[0])
        np.testing.assert_allclose(printed, wanted, atol=1e-6)
    assert pd.read_csv("evaluation/success.csv")["policy"].unique().tolist() == ["mine"]


@pytest.mark.parametrize("inner", ["reward", "reward/", "shared"])
def test_a_reward_is_shared_alone_or_in_its_policy(runs: Path, tmp_path: Path, inner: str) -> None:
    obs, actions = np.random.default_rng(1).normal(size=(6, 39)), np.random.default_rng(2).uniform(-1, 1, (6, 4))
    expected = [LearnedReward(runs / "piql" / "reward", member)(obs, actions, obs) for member in (0, 1, None)]
    if inner == "shared":
        push.run(PushConfig(runs / "piql", str(tmp_path / "mine")))
    else:
        push.run(PushConfig(runs / "piql" / inner, str(tmp_path / "mine")))
        assert files(tmp_path / "mine").keys() == set(FILES["reward"])
        card = ModelCard.load(tmp_path / "mine" / "README.md")
        assert card.data.pipeline_tag == "robotics" and "reward-model" in card.data.tags
        for part in (f"for `{ENV}`", "2 members, seeds 3, 8", "observation is 39", "an action is 4", "reward=mine", SENTENCE):
            assert part in card.text, part
    for content in files(tmp_path / "mine").values():
        assert str(runs.parent) not in content.decode(errors="replace")
    found = find_model(tmp_path / "mine", "reward")
    for member, rewards in zip((0, 1, None), expected, strict=True):
        np.testing.assert_array_equal(LearnedReward(found, member)(obs, actions, obs), rewards)
    np.testing.assert_allclose(expected[2], (expected[0] + expected[1]) / 2, rtol=1e-5, atol=1e-7)


def test_what_is_no_finished_run_is_not_shared(runs: Path, tmp_path: Path) -> None:
    unfinished = Path(shutil.copytree(runs / "piql", tmp_path / "unfinished"))
    (unfinished / "manifest.json").unlink()
    for path in (unfinished, unfinished / "reward", runs / "evaluation", runs):
        with pytest.raises(RoboprefError, match=f"{path.name} is not what `robopref train-vlp` or `robopref train` leaves"):
            push.run(PushConfig(path, str(tmp_path / "mine")))
    damaged = Path(shutil.copytree(runs / "piql", tmp_path / "damaged"))
    whole = (damaged / "reward" / "model.safetensors").read_bytes()
    (damaged / "reward" / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RoboprefError, match=r"reward/model\.safetensors is damaged"):
        push.run(PushConfig(damaged, str(tmp_path / "mine")))
    assert not (tmp_path / "mine").exists()


def test_only_what_a_push_wrote_is_overwritten_of_whichever_kind(runs: Path, tmp_path: Path) -> None:
    for run in (runs / "piql", runs / "piql" / "reward", runs / "bc"):
        push.run(PushConfig(run, str(tmp_path / "mine"), overwrite=True))
    assert files(tmp_path / "mine").keys() == {"README.md", "config.json", "model.safetensors"}
    before = files(runs)
    for target in (runs / "bc", runs / "piql" / "reward"):
        with pytest.raises(RoboprefError, match="is there already, and no folder that `robopref push` wrote"):
            push.run(PushConfig(runs / "piql", str(target)))
    assert files(runs) == before


def test_a_name_in_tables_is_that_of_the_folder_or_the_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("runs/piql", "runs/piql/", "hf-hub:me/piql", "hf-hub:me/piql@v1", "hf-hub:me/piql@refs/pr/1")
    assert {name_of(name) for name in names} == {"piql"} and name_of("random") == "random"
    (tmp_path / "piql" / "reward").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "piql")
    assert {name_of(name) for name in (".", "./", "reward/..", Path())} == {"piql"}


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving() as found:
        yield found


def test_a_policy_goes_to_the_hub_and_back(runs: Path, hub: Hub, tmp_path: Path, inside: Path) -> None:
    home = tmp_path / "home"
    lines = python(hub, home, ROBOPREF, "push", str(runs / "piql"), "--to", "hf-hub:me/drawers", "--private", HF_TOKEN=TOKEN)
    (_, pushed) = hub.commits["me/drawers"]
    assert hub.private == {"me/drawers"} and pushed.keys() == {".gitattributes", *FILES["policy"]}
    pinned = re.match(r"(hf-hub:me/drawers@([0-9a-f]{40})): 5 files", lines[-1])
    assert pinned is not None
    evaluation = ["evaluate", "--goals", "1", "--max-steps", "3", "--processes", "2", "--policy", "random"]
    python(hub, home, ROBOPREF, *evaluation, "hf-hub:me/drawers", "--out", "seen", HF_TOKEN=TOKEN)
    assert pd.read_csv("seen/success.csv").groupby("policy")["member"].nunique().to_dict() == {"random": 3, "drawers": 2}
    manifest = read_json("seen/manifest.json")
    assert manifest["config"]["policy"] == ["random", "hf-hub:me/drawers"] and manifest["config"]["env"] == ENV
    assert f"/snapshots/{pinned[2]}/" in manifest["inputs"]["drawers"]["path"]
    asked = len(hub.asked)
    film = [
        "video",
        "--goals",
        "1",
        "--max-steps",
        "3",
        "--size",
        "32",
        "--quality",
        "fast",
        "--policy",
        pinned[1],
        "--out",
        "film",
    ]
    python(hub, home, ROBOPREF, *film, HF_HUB_OFFLINE="1")
    assert Path("film/drawers-goal-0.mp4").exists() and len(hub.asked) == asked
    assert "drawers" in read_json("film/manifest.json")["inputs"]

    learn = [
        "train",
        "policy=iql",
        "policy.hidden=[8]",
        "policy.steps=2",
        "seeds=[0]",
        "device=cpu",
        f"data={runs.parent / 'data'}",
    ]
    python(hub, home, ROBOPREF, *learn, "reward=hf-hub:me/drawers", "out=iql", HF_HUB_OFFLINE="1")
    told = read_json("iql/manifest.json")
    assert told["inputs"]["reward"]["path"].endswith(f"/snapshots/{pinned[2]}/reward/model.safetensors")
    assert told["config"]["reward"] == read_json("iql/config.json")["config"]["reward"] == "hf-hub:me/drawers"


def test_what_another_push_left_in_a_repository_is_gone(runs: Path, hub: Hub, tmp_path: Path) -> None:
    hub.commit("me/mine", {"notes.txt": b"mine"})
    for name in ("piql", "bc"):
        python(hub, tmp_path / "home", ROBOPREF, "push", str(runs / name), "--to", "hf-hub:me/mine", HF_TOKEN=TOKEN)
    first, second = hub.commits["me/mine"][-2:]
    assert first.keys() == {"notes.txt", *FILES["policy"]}
    assert second.keys() == {"notes.txt", "README.md", "config.json", "model.safetensors"}


KIND = """
import sys
from robopref.configs.errors import RoboprefError
from robopref.preference.hub import find_model
for words in sys.argv[1:]:
    reference, _, kind = words.partition(" ")
    try:
        print(find_model(reference, kind or None))
    except RoboprefError as error:
        print(f"error: {error}")
"""


def test_another_kind_is_refused_before_its_weights_are_fetched(runs: Path, hub: Hub, tmp_path: Path) -> None:
    for name in ("piql", "bc"):
        push.run(PushConfig(runs / name, str(tmp_path / name)))
        hub.commit(f"me/{name}", files(tmp_path / name))
    for kind in ("vlp", "small"):
        hub.commit(
            f"me/{kind}", {"config.json": json.dumps({"kind": kind, "config": {}}).encode(), "model.safetensors": bytes(9)}
        )
    wanted = {
        "hf-hub:me/vlp policy": "holds a 'vlp', a 'policy' is wanted: name one that `robopref push` wrote of a run of",
        "hf-hub:me/vlp reward": "holds a 'vlp', a 'reward' is wanted",
        "hf-hub:me/piql vlp": "holds a 'policy', a 'vlp' is wanted",
        "hf-hub:me/bc reward": "holds a 'policy', a 'reward' is wanted: name one that `robopref push` wrote of",
        "hf-hub:me/small ": "holds a 'small', a 'vlp' or a 'policy' or a 'reward' is wanted",
    }
    lines = python(hub, tmp_path / "home", KIND, *wanted)
    for line, (asked, why) in zip(lines, wanted.items(), strict=True):
        assert line.startswith(f"error: {asked.partition(' ')[0]} {why}"), line
    assert not any("model.safetensors" in request for request in hub.asked)
    fetched = python(hub, tmp_path / "home", KIND, "hf-hub:me/piql reward", "hf-hub:me/piql policy", "hf-hub:me/piql ")
    assert [Path(line).name == "reward" for line in fetched] == [True, False, False]
    evaluation = ["evaluate", "--policy", "hf-hub:me/vlp", "--env", ENV, "--out", str(tmp_path / "out")]
    *_, line = python(hub, tmp_path / "home", ROBOPREF, *evaluation, status=1)  # after the bars of a download
    assert line.startswith("error: hf-hub:me/vlp holds a 'vlp', a 'policy' is wanted") and not (tmp_path / "out").exists()


def test_one_process_sees_one_commit_of_a_reference(runs: Path, hub: Hub, tmp_path: Path) -> None:
    push.run(PushConfig(runs / "bc", str(tmp_path / "bc")))
    hub.commit("me/bc", files(tmp_path / "bc"))
    script = "import urllib.request, sys\nfrom robopref.preference.hub import find_model\n" + (
        "a = find_model('hf-hub:me/bc', 'policy')\nprint(a == find_model('hf-hub:me/bc', 'policy'))\n"
    )
    assert python(hub, tmp_path / "home", script) == ["True"]
    assert sum("revision/main" in asked or asked.endswith("models/me/bc") for asked in hub.asked) == 1


def test_policies_that_are_none(runs: Path, tmp_path: Path) -> None:
    config = EvaluateConfig(("hf-hub:drawers",), tmp_path / "out", env=ENV)
    with pytest.raises(RoboprefError, match="write hf-hub:OWNER/NAME"):
        evaluate.run(config)
    for twice in (("hf-hub:me/piql@a", "hf-hub:me/piql@b"), ("hf-hub:me/piql", str(runs / "piql"))):
        with pytest.raises(RoboprefError, match="two are called 'piql'"):
            evaluate.run(replace(config, policy=twice))
    with pytest.raises(RoboprefError, match=r"holds a 'reward', but a 'policy' is wanted"):
        evaluate.run(replace(config, policy=(str(runs / "piql" / "reward"),)))
    assert not config.out.exists()
