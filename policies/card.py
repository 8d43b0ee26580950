"""Model cards of shared policies and learned rewards: where they learnt, from what, and what a stranger must know.

Every number and name is read from the run's own files (manifest, labels, evaluations of these very weights), none is written
here; of the paths in them only last parts are told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from robopref.configs.errors import RoboprefError, visible
from robopref.configs.files import MANIFEST, NO_MATTER, digest, read_json, read_record
from robopref.configs.policy import preset
from robopref.datasets.preferences import labelled, read_origin, read_preferences
from robopref.embodied.evaluate import protocol_of
from robopref.embodied.statistics import over_what
from robopref.policies.evaluate import REFERENCES
from robopref.policies.feedback import TEACHERS
from robopref.policies.offline import CODE, LABELLERS, TRUE
from robopref.preference.card import Markdown, markdown, render, settings
from robopref.preference.hub import PREFIX, REWARD, WEIGHTS

UNSAID = (*NO_MATTER, "data", "labels", "expert_data", "env", "seed", "seeds", "reward", "model", "instruction")
"""Settings that are said elsewhere in the card, or of one machine only."""
SAID = {  # labeller -> who that is
    "vlp": "a vision-language preference model (VLP), from pictures and an instruction",
    "scripted": "the environment's own return",
    "bradley_terry": "the environment's own reward",
}
METHODS = {
    "bc": "behaviour cloning",
    "iql": "implicit Q-learning (IQL)",
    "td3bc": "TD3+BC (Fujimoto & Gu 2021)",
    "piql": "P-IQL (a Bradley-Terry reward from labelled pairs, then implicit Q-learning from it)",
    "ipl": "inverse preference learning (IPL)",
    "cpl": "contrastive preference learning (CPL)",
    "cpl_kl": "contrastive preference learning with a reference policy (CPL-KL)",
    "dpo": "DPO on trajectories",
    "cir": "CIR (Lyu et al., arXiv 2602.11800)",
    "sac": "soft actor-critic (Haarnoja et al. 2018)",
    "gtr": "GTR, in robopref's reconstruction from the abstract (docs/gtr.md)",
    "ppo": "PPO (Schulman et al. 2017)",
    "ppo_kl": "PPO with a lagged KL penalty",
    "c_chain": "PPO with C-CHAIN's control",
}


@dataclass(frozen=True)
class Labels:
    """What a preferences file says of itself."""

    pairs: int
    labellers: tuple[str, ...]
    instructions: tuple[str, ...]
    models: Mapping[str, str]


@dataclass(frozen=True)
class Evaluation:
    """What `robopref evaluate` measured of these weights, and of references in the same episodes."""

    env: str
    measure: str
    over: str
    rows: Mapping[str, Mapping[str, float]]


def policy_card(
    name: str, reference: str, run: Path, config: Mapping[str, Any], files: Mapping[str, int], parameters: Mapping[str, int]
) -> str:
    """The card (Markdown below a YAML header) of the policy in `run`, a folder that `robopref train` finished.

    reference: what --policy is given to use it.  config: of the shared model.  files: name -> bytes.  parameters: name of
    a weights file -> how many are in it.
    """
    evaluations = list(read_evaluations(run, name))
    tags = ["robotics", "reinforcement-learning", method(config["policy"])[0], *tag_of(config)]
    bins = config["policy"].get("bins", 0) if config["policy"].get("ending") == "bins" else 1
    return render(
        Path(__file__).with_name("policy_card.md.j2"),
        header=header(name, "reinforcement-learning", tags, evaluations),
        evaluations=evaluations,
        actions=config["action_dim"] // bins,
        rewarded=f"{REWARD}/{WEIGHTS}" in files,
        **about(name, reference, run, config, files, parameters),
    )


def reward_card(
    name: str,
    reference: str,
    run: Path,
    config: Mapping[str, Any],
    files: Mapping[str, int],
    parameters: Mapping[str, int],
    dims: tuple[int, int],
) -> str:
    """The card of the reward that the policy in `run` learnt; as policy_card, with `reward=` for --policy; dims: (do, da)."""
    tags = ["robotics", "reward-model", "preference-learning", *tag_of(config)]
    return render(
        Path(__file__).with_name("reward_card.md.j2"),
        header=header(name, "robotics", tags, []),
        observations=dims[0],
        actions=dims[1],
        **about(name, reference, run, config, files, parameters),
    )


def about(
    name: str, reference: str, run: Path, config: Mapping[str, Any], files: Mapping[str, int], parameters: Mapping[str, int]
) -> dict[str, Any]:
    """What both cards say."""
    manifest = read_record(run / MANIFEST)
    told = manifest["config"]
    reward = told.get("reward", TRUE)
    unused = {*LABELLERS, "feedback"} - {reward, *(["feedback"] if reward in TEACHERS else [])}
    return {
        "name": name,
        "reference": reference,
        "config": config,
        "env": config.get("env"),
        "method": method(config["policy"])[1],
        "learnt_from": list(learnt_from(manifest, config)),
        "labels": read_labels(manifest),
        "said": SAID,
        "settings": dict(settings(told, (*UNSAID, *unused))),
        "manifest": manifest,
        "files": files,
        "parameters": parameters,
    }


def method(policy: Mapping[str, Any]) -> tuple[str, str]:
    """What a policy's settings are, as `policy=` names it and in words: a preset of another algorithm has a name of its own."""
    name = preset(policy)
    return name, METHODS.get(name, name)


def learnt_from(manifest: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[Markdown]:
    """Sentences that say of a run which data, rewards and answers it learnt from."""
    told, inputs = manifest["config"], manifest["inputs"]
    sha = {name: markdown(one["sha256"]) for name, one in inputs.items()}
    if "data" in inputs:
        named = markdown(config.get("set") or Path(told["data"]).name)
        yield Markdown(
            f"Episodes of `{named}` (sha256 {sha['data']}), which were there before: nothing was tried out while it learnt."
        )
    if "expert_data" in inputs:
        yield Markdown(f"Expert episodes of `{markdown(Path(told['expert_data']).name)}` (sha256 {sha['expert_data']}).")
    if told.get("top", 1) < 1:
        yield Markdown(f"Of these episodes the share {told['top']:g} with the highest return.")
    if "frames" in told:
        each = " for each seed" if "seeds" in told else ""
        yield Markdown(f"What it met itself in {markdown(told['frames'])} frames of the simulator{each}.")
    reward, policy = told.get("reward", TRUE), config["policy"]["name"]
    if told.get("labels") is not None:
        yield Markdown(f"Labelled pairs of segments of these episodes (sha256 {sha['labels']}), below.")
    elif policy == "bc":
        yield Markdown("The actions in them, and no reward.")
    elif reward in TEACHERS:
        asked = markdown(told["feedback"]["instruction"] or "")
        said = f"A reward that it learnt while it acted, from answers of {SAID[reward]}"
        yield Markdown(said + (f': "{asked}".' if asked else "."))
        yield from (Markdown(f"It asked the model with the weights of sha256 {one}.") for one in sha.values())
    else:
        yield said_of(reward, sha)


def said_of(reward: str, sha: Mapping[str, str]) -> Markdown:
    """A sentence about a reward that was there before.  sha: digest of each input."""
    if reward == TRUE:
        return Markdown("The environment's own reward.")
    if reward in LABELLERS:
        return Markdown(f"A reward that {reward.upper()} made from expert episodes.")
    kind = "Reward code" if Path(reward).suffix == CODE else "A reward that was learnt from preferences"
    named = markdown(reward if reward.startswith(PREFIX) else Path(reward).name)
    return Markdown(f"{kind}, `{named}` (sha256 {sha['reward']}).")


def read_labels(manifest: Mapping[str, Any]) -> Labels | None:
    """What the labels of a run say of themselves; None without labels, and where they are gone or others by now."""
    found = manifest["inputs"].get("labels")
    try:
        if found is None or digest(found["path"]) != found["sha256"]:
            return None
        path = Path(found["path"])
        table, origin = labelled(read_preferences(path)), read_origin(path)
    except RoboprefError:
        return None
    if origin is not None:
        return Labels(len(table), (origin.labeller,), (origin.instruction,), origin.models)
    labellers, instructions = (tuple(map(str, table[column].dropna().unique())) for column in ("labeller", "instruction"))
    return Labels(len(table), labellers, instructions, {})


def read_evaluations(run: Path, name: str) -> Iterator[Evaluation]:
    """What was measured of the policy in `run`, by evaluations in it, beside it, or beside the folder of a pipeline's policies.

    Only those whose manifest has the digest of exactly these weights count: the folder may have been trained anew since.  In
    their rows the policy is called `name`.
    """
    weights, whole = digest(run / WEIGHTS), run.resolve()
    around = [whole, whole.parent, *([whole.parent.parent] if whole.parent.name == "policies" else [])]
    for path in sorted({path for folder in around for path in folder.glob(f"*/{MANIFEST}")}):
        manifest = read_record(path)
        if manifest.get("stage") != "evaluate":
            continue
        called = next((key for key, one in manifest["inputs"].items() if one["sha256"] == weights), None)
        summary = read_json(path.with_name("summary.json")) if path.with_name("summary.json").exists() else {}
        if called in summary:
            told, own = manifest["config"], summary[called]
            protocol = protocol_of(told["env"]) if told["protocol"] == "auto" else told["protocol"]
            over = over_what(int(own["members"]), int(own["goals"]))
            shown = {name: own} | {one: summary[one] for one in REFERENCES if one in summary and one != called}
            yield Evaluation(told["env"], protocol, over, shown)


def header(name: str, pipeline: str, tags: list[str], evaluations: list[Evaluation]) -> Markdown:
    """The metadata that the hub reads, as YAML: evaluations become its model-index."""
    results = [
        EvalResult(
            task_type="reinforcement-learning",
            task_name="Acting in the simulator",
            dataset_type=visible(evaluation.env.partition("/")[0]),
            dataset_name=visible(evaluation.env),
            metric_type="success_rate" if evaluation.measure == "success" else "mean_reward",
            metric_name=f"{evaluation.measure}, mean of {int(evaluation.rows[name]['n'])} episodes",
            metric_value=evaluation.rows[name]["mean"],
        )
        for evaluation in evaluations
    ]
    data = ModelCardData(
        license="apache-2.0",
        library_name="robopref",
        pipeline_tag=pipeline,
        tags=[visible(tag) for tag in tags],
        model_name=visible(name) if results else None,
        eval_results=results or None,
    )
    return Markdown(data.to_yaml())


def tag_of(config: Mapping[str, Any]) -> list[str]:
    """The suite of the environment, where that is known."""
    return [config["env"].partition("/")[0]] if config.get("env") else []
