"""Readers of models, checkpoints, run folders and settings, for the harness of fuzzing.py (test_fuzz_models.py)."""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import json
import os
import random
import shutil
import types
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuzzing import DIGITS, Reader, wrong_json, wrong_lines, wrong_safetensors
from small_run import labelled_pairs, make_run

from robopref.configs.chat import ChatConfig
from robopref.configs.checkpoint import pack_training, resume, rng_state, save_model, save_tensors
from robopref.configs.errors import RoboprefError, UsageError
from robopref.configs.files import SKIP_DIGESTS, digest, read_json, write_json
from robopref.configs.flags import from_flags
from robopref.configs.hydra import run_hydra
from robopref.configs.policy import CIRConfig, EvaluateConfig, GTRConfig, OnlineConfig, OnPolicyConfig
from robopref.configs.prof import WriterConfig
from robopref.configs.push import PushConfig
from robopref.configs.run import is_complete, write_manifest
from robopref.configs.run_folder import recorded, refuse_unfinished, run_folder, stage_of
from robopref.configs.show import ReportConfig
from robopref.configs.vlp import ModelConfig, PretrainConfig
from robopref.datasets.preferences import write_preferences
from robopref.embodied.fields import described
from robopref.policies import online, onpolicy, report, summary
from robopref.policies import study as policy_study
from robopref.policies.networks import Actor, load_policy, save_policy
from robopref.policies.push import run as push
from robopref.policies.replay import Normaliser
from robopref.policies.train import load_checkpoint, save_checkpoint
from robopref.preference import leave_out
from robopref.preference.baselines.contrastive import KIND as CONTRASTIVE
from robopref.preference.baselines.contrastive import ContrastiveSpace, DualEncoder, Shape
from robopref.preference.chat import Chat, Completion
from robopref.preference.hub import find_model
from robopref.preference.members import member_rngs
from robopref.preference.prof import command as prof
from robopref.preference.prof.writers import Recorded, Replay, Request
from robopref.preference.prof.written import read_columns
from robopref.preference.reward import BradleyTerryReward, LearnedReward, save_reward
from robopref.preference.small import SmallBackbone, SmallConfig, SmallEncoder
from robopref.preference.unusual import GRID, TrainingPictures
from robopref.preference.vlp import KIND as VLP_KIND
from robopref.preference.vlp import VLPScorer, build

FRAMES = 2
SIZE = 16  # pixels
SEEDS = (3, 8)
WEIGHTS = {"*.safetensors": (wrong_safetensors,), "*.json": (wrong_json,)}


def backbone(folder: Path) -> SmallBackbone:
    """A small backbone that has not learnt anything."""
    torch.manual_seed(0)
    SmallBackbone.save(folder, SmallEncoder(SmallConfig(SIZE, 4, 8, 2, parts=("table", "robot"))))
    return SmallBackbone.load(folder)


def look(folder: Path) -> Any:
    """What a small backbone sees and reads."""
    eyes = SmallBackbone.load(folder)
    frames = np.full((1, eyes.frame_size, eyes.frame_size, 3), 100, np.uint8)
    return [eyes.encode_frames(frames).numpy(), eyes.frame_size, eyes.digest]


def vlp(folder: Path, **changes: Any) -> None:
    """A VLP that has not learnt anything, as training leaves it."""
    eyes = backbone(folder / "backbone")
    config = ModelConfig(dim=8, heads=2, layers=1, hidden=(8, 4), **changes)
    shape = {"frames": FRAMES, "tokens_per_frame": 1, "image_dim": eyes.image_dim, "text_dim": eyes.text_dim}
    model = build(config, shape | {"scene_dim": eyes.scene_dim})
    settings = {"model": asdict(config), "shape": model.shape, "backbone": "small:backbone", "backbone_digest": eyes.digest}
    settings |= {"camera": "corner2", "frame_size": SIZE, "orders": {"progress_weight": 0.0}, "tasks": ["drawer-open"]}
    save_model(folder, VLP_KIND, model.state_dict(), settings)
    rng = np.random.default_rng(0)
    size = 3 * GRID**2
    TrainingPictures(torch.from_numpy(rng.normal(size=size)), torch.from_numpy(rng.normal(size=(size, size))), 2.0).save(folder)


def score(folder: Path) -> Any:
    """What a VLP says of a clip."""
    find_model(folder, "vlp")
    scorer, pictures = VLPScorer.load(folder), TrainingPictures.load(folder)
    clips = np.zeros((1, 1 + scorer.frames, scorer.frame_size, scorer.frame_size, 3), np.uint8)
    return [scorer.score(clips, ["open it"]), scorer.camera, None if pictures is None else pictures.distance(clips)]


def contrastive(folder: Path) -> None:
    """A contrastive model likewise."""
    eyes = backbone(folder / "backbone")
    shape = Shape(1, eyes.image_dim, eyes.text_dim, 8, 4)
    settings = {"shape": asdict(shape), "backbone": "small:backbone", "backbone_digest": eyes.digest}
    save_model(folder, CONTRASTIVE, DualEncoder(shape).state_dict(), settings | {"camera": "corner2", "frame_size": SIZE})


def embed(folder: Path) -> Any:
    """Where a contrastive model puts a sentence."""
    space = ContrastiveSpace(folder)
    return [space.embed_texts(["open it"]).numpy(), space.camera, space.frame_size]


def reward(folder: Path) -> None:
    """A learned reward of two members."""
    net = BradleyTerryReward(member_rngs(SEEDS, "weights"), 3, 2, (8,))
    config = {"seeds": SEEDS, "hidden": [8], "action_dim": 2, "env": "metaworld/drawer-open"}
    save_reward(folder, net, torch.zeros(3), torch.ones(3), config)


def judge(folder: Path) -> Any:
    """What a learned reward says of a transition."""
    found = LearnedReward(find_model(folder, "reward"), None)
    dims = found.dims
    return [found(np.ones((1, dims[0])), np.ones((1, dims[1])), np.ones((1, dims[0]))), found.env]


def policy(folder: Path, kind: str = "deterministic", limit: bool = False, **settings: Any) -> None:
    """A policy of two members."""
    actor = Actor(member_rngs(SEEDS, "weights"), 3, 4, (8, 8), kind)
    means = torch.zeros(2, 3) if limit else torch.zeros(3)
    config = {"policy": {"name": "bc", "hidden": [8, 8], "actor": kind, **settings}, "seeds": SEEDS, "env": "metaworld/reach"}
    save_policy(folder, actor, Normaliser(means, means + 2), config | ({"obs_limit": 10.0} if limit else {}))


def act(folder: Path) -> Any:
    """What both members of a policy do."""
    members = [load_policy(find_model(folder, "policy"), member) for member in (0, 1)]
    return [member.act(np.ones((1, member.obs_dim)), deterministic) for member in members for deterministic in (True, False)]


def undigested(read: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """Read whatever digests say, and with config.json as the header has it: what stands behind both must hold, too."""

    @functools.wraps(read)
    def reading(folder: Path) -> Any:
        with skipped():
            for path in folder.rglob("model.safetensors"):
                write_header(path)
            return read(folder)

    return reading


@contextlib.contextmanager
def skipped() -> Iterator[None]:
    """Digests are not looked at."""
    os.environ[SKIP_DIGESTS] = "1"
    try:
        yield
    finally:
        del os.environ[SKIP_DIGESTS]


def write_header(path: Path) -> None:
    """Put what a file of weights says of itself beside it, if it says anything."""
    data = path.read_bytes()
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):
        meta = json.loads(json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]["robopref"])
        meta.pop("sha256", None)
        path.with_name("config.json").write_text(json.dumps(meta))


class Training:
    """A network, its optimiser and random numbers."""

    def __init__(self) -> None:
        torch.manual_seed(1)
        self.net = torch.nn.Linear(3, 2)
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=0.01)
        self.rng = np.random.default_rng(5)

    def step(self) -> None:
        """Learn."""
        self.net(torch.ones(4, 3)).square().sum().backward()
        self.optimizer.step()


def checkpoint(folder: Path) -> None:
    """A checkpoint as pretrain and train-vlp write it."""
    training = Training()
    training.step()
    tensors, meta = pack_training({"model": training.net}, {"adam": training.optimizer})
    random_tensors, random_meta = rng_state(training.rng)
    weights = {name.replace("model/", "model."): tensor for name, tensor in tensors.items()}
    weights = {name.replace("optimizer/adam", "optimizer"): tensor for name, tensor in weights.items()}
    meta = {"optimizer": meta["optimizer/adam"], "kind": "state", "step": 7, "identity": {"seed": 0}}
    save_tensors(folder / "checkpoint.safetensors", weights | random_tensors, meta | random_meta)


def go_on(folder: Path) -> Any:
    """Resume and learn one step."""
    training = Training()
    step = resume(folder / "checkpoint.safetensors", "state", {"seed": 0}, training.net, training.optimizer, training.rng)
    training.step()
    return [step, training.net.weight.detach().numpy(), training.rng.random()]


def offline(folder: Path) -> None:
    """A checkpoint of training from data."""
    training = Training()
    training.step()
    save_checkpoint(folder / "checkpoint.safetensors", learner(training), [training.rng], {"seed": 0}, 7)


def learn_on(folder: Path) -> Any:
    """Resume it and learn one step."""
    training = Training()
    step = load_checkpoint(folder / "checkpoint.safetensors", learner(training), [training.rng], {"seed": 0})
    training.step()
    return [step, training.net.weight.detach().numpy(), training.rng.random()]


def learner(training: Training) -> Any:
    """It as policies/train.py has learners."""
    return types.SimpleNamespace(modules={"actor": training.net}, optimizers={"actor": training.optimizer})


@functools.cache
def acting(folder: Path) -> online.Run:
    """A run of SAC."""
    small = CIRConfig(width=8, batch=8)
    config = OnlineConfig(folder, "mujoco/InvertedPendulum-v5", small, frames=60, action_repeat=1, warmup=4, capacity=50)
    return online.Run(config, torch.device("cpu"))


def sac(folder: Path) -> None:
    """A checkpoint of it."""
    run = acting(folder)
    for number in range(10):
        run.decide(number)
    run.save(folder / "checkpoint.safetensors", 10)


def act_on(folder: Path) -> Any:
    """Resume it; the environment is made once for all copies."""
    (run,) = (acting(place) for place in ACTING)
    return [run.load(folder / "checkpoint.safetensors"), run.episode, run.rng.random(), run.obs]


@functools.cache
def meeting(folder: Path) -> onpolicy.Run:
    """A run of GTR."""
    tiny = GTRConfig(hidden=(8, 8), envs=2, steps=16, epochs=1, minibatch=16, anchors=2)
    return onpolicy.Run(OnPolicyConfig(folder, "mujoco/InvertedPendulum-v5", tiny, seeds=(0, 3), frames=500))


def gtr(folder: Path) -> None:
    """A checkpoint of it."""
    run = meeting(folder)
    run.iterate()
    run.iteration = 1
    run.save(folder / "checkpoint.safetensors")


def meet_on(folder: Path) -> Any:
    """Resume it."""
    (run,) = (meeting(place) for place in MEETING)
    run.load(folder / "checkpoint.safetensors")
    return [run.iteration, run.backwards, run.observations.mean]


ACTING: list[Path] = []
MEETING: list[Path] = []


def placed(make: Callable[[Path], None], places: list[Path]) -> Callable[[Path], None]:
    """`make`, with the folder that it was called with kept."""

    def making(folder: Path) -> None:
        places[:] = [folder]
        make(folder)

    return making


def finished(folder: Path) -> None:
    """A finished run and one that has only begun."""
    (folder / "input.txt").write_text("x")
    (folder / "done").mkdir()
    (folder / "done" / "table.csv").write_text("a,b\n")
    config, inputs = {"out": "done", "seed": 3, "more": {"lr": 0.1}}, {"data": folder / "input.txt"}
    write_manifest(folder / "done", "train", config, inputs, 3, 0.0, ["table.csv"])
    begun = {"stage": "train", "config": config, "before": [], "process": 1, "machine": "x", "command": "robopref train"}
    write_json(folder / "begun" / "run.json", begun | {"began": "2026-01-01"})


def look_through(folder: Path) -> Any:
    """Whatever is asked of run folders."""
    config, inputs, found = {"out": "done", "seed": 3, "more": {"lr": 0.1}}, {"data": folder / "input.txt"}, []
    with contextlib.suppress(RoboprefError):
        refuse_unfinished(folder / "begun")
    work = Path(shutil.copytree(folder, folder / "work"))
    try:
        is_complete(work / "done", config, inputs)
        for name in ("done", "begun"):
            found += [stage_of(work / name), recorded(work / name)]
            with run_folder(work / name, "train", config, inputs) as complete:
                found += [complete]
                (work / name / "part.csv").write_text("x")
    finally:
        shutil.rmtree(work)
    return None


def pipeline(folder: Path) -> None:
    """What a pipeline leaves, without films."""
    make_run(folder / "run")
    manifest = read_json(folder / "run" / "manifest.json")
    write_json(folder / "run" / "manifest.json", manifest | {"config": manifest["config"] | {"seed": 3}})
    for path in (folder / "run" / "videos").glob("*.mp4"):
        path.unlink()
    for path in (folder / "run" / "policies").glob("[cp]*"):
        (path / "metrics.csv").unlink()


def page(folder: Path) -> Any:
    """The report; what is damaged is said in it."""
    report.run(ReportConfig(folder / "run", out=folder / "page.html"))


def tables(folder: Path) -> Any:
    """The tables of a study of pipelines."""
    summary.tables((folder / "run",))
    summary.outcomes((folder / "run",))


def shared_vlp(folder: Path) -> None:
    """A VLP within a pipeline, with measures that its card quotes."""
    vlp(folder / "run" / "vlp")
    run = folder / "run" / "vlp"
    config = {"tasks": ["drawer-open"], "seed": 0, "model": {"dim": 8}, "lr": 0.1}
    write_manifest(run, "train-vlp", config, {}, 0, 0.0)
    write_manifest(run / "backbone", "pretrain", {"width": 4}, {}, 0, 0.0)
    orders = {"itp_accuracy": 0.9, "ivp_accuracy": 0.6, "ilp_loss": 0.7, "tuples": 256.0}
    measured = {"task": "door-open", "model": digest(run / "model.safetensors"), "wordings": {"train": orders}}
    write_json(run / "generalisation.json", measured)
    side = folder / "run" / "labels" / "vlp.run"
    write_preferences(side.with_suffix(".parquet"), labelled_pairs("close it", "vlp", np.random.default_rng(0)))
    write_json(side / "agreement.json", {"n": 20, "accuracy": 0.7, "near_ties": 3})
    write_manifest(side, "annotate", {}, {"model": run / "model.safetensors"}, 0, 0.0)


def share_vlp(folder: Path) -> Any:
    """Push it to a folder."""
    push(PushConfig(folder / "run" / "vlp", str(folder / "shared")))


def shared_policy(folder: Path) -> None:
    """A policy and what was measured of it."""
    policy(folder / "bc")
    config = {"data": "data/x", "labels": None, "policy": {"name": "bc"}, "seeds": [3, 8], "reward": "true", "top": 0.5}
    write_manifest(folder / "bc", "train", config, {"data": folder / "bc" / "config.json"}, SEEDS, 0.0)
    figures = {"iqm": 0.5, "low": 0.4, "high": 0.6, "mean": 0.5, "n": 4, "members": 2, "goals": 2}
    write_json(folder / "evaluation" / "summary.json", {"bc": figures, "random": figures})
    told = {"env": "metaworld/drawer-open", "protocol": "auto"}
    write_manifest(folder / "evaluation", "evaluate", told, {"bc": folder / "bc" / "model.safetensors"}, [0], 0.0)


def share_policy(folder: Path) -> Any:
    """Push it to a folder."""
    push(PushConfig(folder / "bc", str(folder / "shared")))


class Silent:
    """A writer that says one thing."""

    name = "silent"

    def answer(self, request: Request) -> Completion:
        """The same."""
        return Completion(f"def reward(): {request.number} \ud800", True, 3, 4)


REQUESTS = [Request("write", 0, number, "prompt") for number in range(3)]


def transcript(folder: Path) -> None:
    """Answers of a writer."""
    Recorded(Silent(), folder / "transcript.jsonl", WriterConfig()).answers(REQUESTS)


def replay(folder: Path) -> Any:
    """The answers once more, by both ways."""
    said = [Replay(folder / "transcript.jsonl").answer(request) for request in REQUESTS]
    kept = Recorded(Silent(), folder / "transcript.jsonl", WriterConfig())
    return [[one.text for one in said], kept.answers(REQUESTS), kept.spent()]


def written(folder: Path) -> None:
    """What `robopref prof` leaves."""
    (folder / "ranking.csv").write_text(
        "candidate,chosen,round,parent,dominance,margin,order,gap,constant,characters,problem\n"
        "a,True,0,,0.5,0.25,0.5,1.5,0.125,30,\nb,False,0,,,,,,,30,it divides by zero\n"
    )
    write_json(folder / "summary.json", {"env": "mujoco/hopper", "chosen": "a", "layers": ["seccomp"], "writer": "grammar"})
    write_json(folder / "columns.json", {"obs": ["height"], "act": ["torque"]})
    (folder / "reward.py").write_text("def reward(obs, act, next_obs):\n    return obs[:, 0]\n")


def show(folder: Path) -> Any:
    """What `robopref prof` prints."""
    with contextlib.redirect_stdout(io.StringIO()):
        prof.show(folder)
    read_columns(folder / "reward.py")


class Answering(Chat):
    """A model without a network."""

    def _request(self, body: bytes) -> Completion:
        return Completion("yes \ud800", True, 3, 4)


def ask(folder: Path) -> Any:
    """A question, whose answer is kept."""
    os.environ["ROBOPREF_FUZZ_KEY"] = "none"
    config = ChatConfig(base_url="http://localhost:1/v1", model="m", key_variable="ROBOPREF_FUZZ_KEY")
    return asdict(Answering(config, folder / "answers").complete(["does it?"]))


VARIANTS = "cpl: {policy: cpl, set: [cpl.alpha=0.2]}\nbc:\n  policy: bc\n"
OF_VLP = "base: []\nsmall: [vlp.steps=300, 'pretrain.width=32']\n"
FIELDS = """mujoco/mine:
  task: "hop"
  step: 0.008
  observations:
    - [height, "of the hip", m]
    - [angle, "of the hip", rad]
  actions:
    - [torque, "of the hip", N m]
"""
EXPERIMENT = "# @package _global_\nseed: 3\nlr: 0.001\ntasks: [drawer-open, door-open]\nout: runs/x\nscene: true\n"


def yaml_files(folder: Path) -> None:
    """Files that users write."""
    (folder / "variants.yaml").write_text(VARIANTS)
    (folder / "vlp.yaml").write_text(OF_VLP)
    (folder / "fields.yaml").write_text(FIELDS)


def read_files(folder: Path) -> Any:
    """All of them."""
    policy_study.read_variants(folder / "variants.yaml")
    leave_out.read_variants(folder / "vlp.yaml")
    described("mujoco/mine", folder / "fields.yaml")


def experiment(folder: Path) -> None:
    """A file of settings."""
    (folder / "mine" / "experiment").mkdir(parents=True)
    (folder / "mine" / "experiment" / "x.yaml").write_text(EXPERIMENT)


def compose(folder: Path) -> Any:
    """Read it through hydra."""
    words = [f"--config-dir={folder / 'mine'}", "+experiment=x"]
    with named(folder):
        run_hydra("pretrain", words, PretrainConfig, lambda config: None)


def words(folder: Path) -> None:
    """Words of two commands, one a line."""
    typed = "seed=3\nlr=0.001\ntasks=[drawer-open,door-open]\nout=runs/x\nscene=true\nclips=${out}/clips\n"
    (folder / "hydra.txt").write_text(typed)
    (folder / "flags.txt").write_text("--policy\nrandom\nexpert\n--out\nruns/x\n--goals\n5\n--env\nmetaworld/door-open\n")


def parse(folder: Path) -> Any:
    """Read them; a terminal sends no NUL and no line break."""
    hydra, flags = (
        (folder / f"{name}.txt").read_bytes().replace(b"\0", b"").decode("utf-8", "surrogateescape").split("\n")
        for name in ("hydra", "flags")
    )
    with named(folder), contextlib.redirect_stdout(io.StringIO()):
        try:
            run_hydra("pretrain", [*filter(None, hydra)], PretrainConfig, lambda config: None)
            from_flags(EvaluateConfig, [*filter(None, flags)], "robopref evaluate", None)
        except SystemExit as end:  # of a word that asks for help
            assert not end.code


@contextlib.contextmanager
def named(folder: Path) -> Iterator[None]:
    """Words on a command line are no file: the folder is put to what is said of them."""
    try:
        yield
    except UsageError as error:
        raise RoboprefError(str(error) + ("" if str(folder) in str(error) else f" [{folder}]")) from error


def yaml_value(data: bytes, rng: random.Random) -> bytes:
    """One value of a YAML file, or of a word, is another."""
    values = (
        *(
            DIGITS,
            "-" + DIGITS,
            "1e999",
            ".nan",
            "null",
            "~",
            "[]",
            "{}",
            "[" * 3000 + "]" * 3000,
            "{a: " * 300 + "1" + "}" * 300,
        ),
        *('"\\0"', '"\\ud800"', "${oc.env:NOPE}", "${out}", "${", "!!python/object/apply:os.system [ls]", "&a [*a]", "*b"),
        *(
            "2026-13-45",
            "!!binary x",
            "|\n  x",
            "'",
            '"',
            "- x",
            "<<: 3",
            "? [a]",
            "@x",
            "%x",
            "\t",
            "[a, b",
            "0x",
            "1_0",
            "true",
        ),
        *("\x1b[2J", "\udcff", "[/b]", "<script>", "`x`", "a: b: c", "range(0,10)", "choice(1,2)", "???", "--help", "~seed"),
        *("+x=1", "++seed=1", "=", ""),
    )
    lines = data.decode("utf-8", "surrogateescape").split("\n")
    place = rng.randrange(len(lines))
    before, sign, _ = lines[place].partition(rng.choice((": ", "=")))
    lines[place] = (
        before + sign + rng.choice(values) if sign else rng.choice((lines[place], "  " + lines[place])) + rng.choice(values)
    )
    return "\n".join(lines).encode("utf-8", "surrogateescape")


def bomb(data: bytes, rng: random.Random) -> bytes:
    """Nested aliases, which stand for more than there is memory."""
    names = "abcdefghijklm"
    first = f"a: &a [{', '.join('x' * 9)}]\n"
    more = "".join(f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in itertools.pairwise(names))
    return data + (first + more).encode()


def wrong_csv(data: bytes, rng: random.Random) -> bytes:
    """One cell of a table is another."""
    rows = [line.split(",") for line in data.decode().splitlines()]
    row = rng.choice(rows)
    values = (DIGITS, "", "x", "nan", "inf", "1e999", "-1", '"', "a,b", "\0", "../../x", "1e308", "\x1b[2J")
    row[rng.randrange(len(row))] = rng.choice(values)
    return "\n".join(",".join(row) for row in rows).encode()


YAML = {"*.yaml": (yaml_value, yaml_value, bomb), "*.txt": (yaml_value,)}
JSON = {"*.json": (wrong_json,), "*.csv": (wrong_csv,), "*.jsonl": (wrong_lines,)}
HEADER = {"*.safetensors": (wrong_safetensors,)}


def model(make: Callable[[Path], None], read: Callable[[Path], Any]) -> Reader:
    """A folder of weights, held to digests."""
    return Reader(make, read, WEIGHTS, ("*.safetensors", "*.json"), checked=True)


def forged(make: Callable[[Path], None], read: Callable[[Path], Any]) -> Reader:
    """The same, with digests that are not looked at."""
    return Reader(make, undigested(read), HEADER, ("*.safetensors",))


gaussian = functools.partial(policy, kind="gaussian")
binned = functools.partial(policy, limit=True, activation="tanh", ending="bins", bins=2)
factored = functools.partial(vlp, architecture="factored", members=2)
MODELS: dict[str, tuple[Callable[[Path], None], Callable[[Path], Any]]] = {
    "backbone": (backbone, look),
    "vlp": (vlp, score),
    "factored": (factored, score),
    "contrastive": (contrastive, embed),
    "reward": (reward, judge),
    "policy": (policy, act),
    "gaussian": (gaussian, act),
    "binned": (binned, act),
    "checkpoint": (checkpoint, go_on),
    "offline": (offline, learn_on),
    "sac": (placed(sac, ACTING), act_on),
    "gtr": (placed(gtr, MEETING), meet_on),
}
READERS: dict[str, Reader] = {
    **{name: model(*both) for name, both in MODELS.items()},
    **{f"{name} without digests": forged(*both) for name, both in MODELS.items()},
    "run folder": Reader(finished, look_through, JSON, ("*.json",)),
    "report": Reader(pipeline, page, JSON, ("*.json", "*.csv")),
    "tables": Reader(pipeline, tables, JSON, ("*.json", "*.csv")),
    "push vlp": Reader(shared_vlp, share_vlp, WEIGHTS | JSON, ("*.json", "*.safetensors")),
    "push policy": Reader(shared_policy, share_policy, WEIGHTS | JSON, ("*.json", "*.safetensors")),
    "transcript": Reader(transcript, replay, JSON),
    "prof": Reader(written, show, JSON, ("*.json", "*.csv", "*.py")),
    "chat": Reader(lambda folder: ask(folder), ask, JSON),
    "yaml": Reader(yaml_files, read_files, YAML),
    "experiment": Reader(experiment, compose, YAML),
    "words": Reader(words, parse, YAML),
}
