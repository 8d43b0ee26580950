"""The benchmarks run, with fewer rounds, and their last line is the JSON that the README promises."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import astuple, replace
from itertools import cycle
from types import SimpleNamespace

import mujoco
import numpy as np
import pytest
import torch
from gymnasium.envs.mujoco.mujoco_rendering import MujocoRenderer

from robopref.configs import cli
from robopref.configs.annotate import AnnotateConfig
from robopref.configs.errors import RoboprefError
from robopref.configs.policy import CIRConfig, CPLConfig, PIQLConfig
from robopref.configs.run import code_version, processor
from robopref.configs.vlp import ModelConfig
from robopref.datasets import collect as collection
from robopref.datasets.episodes import EpisodeStore
from robopref.datasets.preferences import read_preferences
from robopref.embodied import simstate
from robopref.embodied.envs import make_env
from robopref.embodied.gl import choose_gl
from robopref.embodied.render import Renderer
from robopref.policies import bench
from robopref.policies.benchmarks import annotate, annotate_peer, cir, collect, downstream, gtr, prof, render, turns, vlp
from robopref.policies.cir import CIR
from robopref.policies.cpl import CPL
from robopref.policies.experience import Experience
from robopref.policies.iql import PIQL
from robopref.preference.annotate import run as run_annotate
from robopref.preference.members import member_rngs
from robopref.preference.vlp import VLP


def last_line(capsys, name):
    assert cli.main(["bench", name]) == 0
    return json.loads(capsys.readouterr().out.strip().splitlines()[-1])


def test_vlp(capsys, monkeypatch):
    monkeypatch.setattr(vlp, "ROUNDS", 3)  # the median of three: one step alone is at the mercy of what runs beside it
    monkeypatch.setattr(vlp, "CACHED_STEPS", 2)
    measured = last_line(capsys, "vlp")
    assert set(measured) == {"ratio", "fair", "tuples_per_s"} and min(measured.values()) > 0


def test_the_plain_vlp_scores_as_ours_does():
    torch.manual_seed(0)
    shape = {"frames": 4, "tokens_per_frame": 2, "image_dim": 6, "text_dim": 5}
    ours, plain = (kind(ModelConfig(dim=16, heads=2, layers=1), **shape).eval() for kind in (VLP, vlp.PlainVLP))
    state = ours.state_dict()
    renamed = {
        name: value for name, value in state.items() if not name.startswith(("video_self", "text_self", "video_to", "text_to"))
    }
    for side in ("video_self.0", "text_self.0"):
        names = {
            "norm_in": "norm1",
            "norm_out": "norm2",
            "feed.0": "linear1",
            "feed.2": "linear2",
            "out": "self_attn.out_proj",
        }
        for kind in ("weight", "bias"):
            renamed[f"{side}.self_attn.in_proj_{kind}"] = state[f"{side}.query_key_value.{kind}"]
            renamed |= {f"{side}.{theirs}.{kind}": state[f"{side}.{name}.{kind}"] for name, theirs in names.items()}
    for side, theirs in (("video_to_text", "seen"), ("text_to_video", "said")):
        for kind in ("weight", "bias"):
            parts = [state[f"{side}.{name}.{kind}"] for name in ("query", "key_value")]
            renamed[f"{theirs}.attention.in_proj_{kind}"] = torch.cat(parts)
            renamed[f"{theirs}.attention.out_proj.{kind}"] = state[f"{side}.out.{kind}"]
            renamed |= {f"{theirs}.{norm}.{kind}": state[f"{side}.{norm}.{kind}"] for norm in ("norm_x", "norm_context")}
    plain.load_state_dict(renamed)
    clips, words = torch.randn(3, 5, 2, 6), torch.randn(2, 7, 5)
    mask, pairs = torch.arange(7) < torch.tensor([[4], [7]]), (torch.tensor([0, 1, 2, 0]), torch.tensor([0, 1, 0, 1]))
    scores = [model.score(model.encode_video(clips), model.encode_text(words, mask), mask, *pairs) for model in (ours, plain)]
    assert scores[0].std() > 1e-3
    torch.testing.assert_close(*scores, atol=1e-5, rtol=1e-5)


def test_prof(capsys, monkeypatch):
    monkeypatch.setattr(prof, "TRANSITIONS", 3000)
    monkeypatch.setattr(prof, "CANDIDATES", 2)
    measured = last_line(capsys, "prof")
    assert set(measured) == {"ratio_to_60s", "peak_mb", "seabo_ratio_to_60s", "fair"}
    assert min(measured.values()) > 0 and measured["peak_mb"] < 3000


@pytest.mark.parametrize("search", prof.SEARCHES)
def test_plain_and_our_seabo_give_the_same_rewards(search):
    data, expert = prof.made_up(2000, 0), prof.made_up(300, 1)
    np.testing.assert_allclose(prof.plain_seabo(data, expert, search), prof.seabo_rewards(data, expert), rtol=1e-6)


def test_the_faster_plain_search_is_the_peer(monkeypatch):
    for name, value in {"TRANSITIONS": 3000, "CANDIDATES": 2, "ROUNDS": 1}.items():
        monkeypatch.setattr(prof, name, value)
    taken = {"scipy's k-d tree": 3.0, "scikit-learn's brute force": 5.0}
    monkeypatch.setattr(prof, "seconds", lambda side, *_: taken[side.keywords["search"]] if hasattr(side, "keywords") else 2.0)
    assert prof.run()["fair"] == 1.5


def test_a_table_holds_the_last_run_of_each(tmp_path, monkeypatch, capsys):
    runs = [{"ratio": {"64": 30.0, "224": 15.5}}, {"ratio": 12.4, "tuples_per_s": 857.1}, {"ratio": {"64": 31.0, "224": 16.0}}]
    measured = iter(runs)
    for module in (render, vlp):
        monkeypatch.setattr(module, "run", lambda: next(measured))
    monkeypatch.setattr(bench, "machine", lambda: "a processor")
    monkeypatch.setattr(bench, "code", lambda: "1234567")
    table = tmp_path / "bench.csv"
    for name in ("render", "vlp", "render"):
        assert cli.main(["bench", name, "--csv", str(table)]) == 0
    assert table.read_text().splitlines() == [
        "benchmark,measure,value,machine,code",
        "vlp,ratio,12.4,a processor,1234567",
        "vlp,tuples_per_s,857.1,a processor,1234567",
        "render,ratio.64,31.0,a processor,1234567",
        "render,ratio.224,16.0,a processor,1234567",
    ]
    table.write_text("task,seed\nreach,0\n")
    assert cli.main(["bench", "vlp", "--csv", str(table)]) == 1  # nothing is left to measure: it was told before
    assert "bench.csv: no table of `robopref bench`" in capsys.readouterr().err


def test_a_table_says_which_machine_and_which_code():
    assert torch.backends.cpu.get_cpu_capability() in bench.machine() and processor() in bench.machine()
    found = code_version()
    assert found is None or bench.code().startswith(found["commit"][:7])


@pytest.fixture
def chosen_gl(monkeypatch):
    """mujoco.Renderer has the GL that was set when mujoco was first imported, here perhaps before this package."""
    monkeypatch.setattr(mujoco.gl_context, "GLContext", importlib.import_module(f"mujoco.{choose_gl()}").GLContext)


@pytest.mark.usefixtures("chosen_gl")
def test_render(capsys, monkeypatch):
    monkeypatch.setattr(render, "ROUNDS", 1)
    monkeypatch.setattr(render, "SIZES", (64,))
    made = counted(monkeypatch, render)
    measured = last_line(capsys, "render")
    assert {name: set(ratios) for name, ratios in measured.items()} == {"ratio": {"64"}, "fair": {"64"}}
    assert measured["ratio"]["64"] > 1 and measured["fair"]["64"] > 0
    assert len(made) == 2  # one of each peer for all rounds
    assert [peer.model.vis.quality.offsamples for peer in made] == [4, 0]


@pytest.mark.usefixtures("chosen_gl")
def test_every_side_draws_the_same_clips_and_the_faster_plain_way_is_the_peer(monkeypatch):
    frames, taken = set(), cycle([80.0, 24.0, 16.0, 99.0, 8.0])  # gymnasium, its plain way, mujoco's, our pretty and fast

    def timed(act):
        frames.add(len(act.args[-1]))
        return next(taken)

    monkeypatch.setattr(render, "ROUNDS", 2)
    monkeypatch.setattr(render, "SIZES", (64,))
    monkeypatch.setattr(render, "timed", timed)
    measured = render.run()
    assert frames == {render.CLIP}
    assert measured == {"ratio": {"64": 10.0}, "fair": {"64": 2.0}}


def counted(monkeypatch, module) -> list[MujocoRenderer]:
    """Every renderer of gymnasium's that a benchmark makes from now on."""
    made: list[MujocoRenderer] = []
    make = module.MujocoRenderer
    monkeypatch.setattr(module, "MujocoRenderer", lambda *args, **kwargs: made.append(make(*args, **kwargs)) or made[-1])
    return made


@pytest.mark.usefixtures("chosen_gl")
def test_the_plain_renderer_has_the_flags_of_ours_and_shows_the_same():
    env = make_env(f"metaworld/{render.TASK}")
    static, dynamics = render.clip_states(env, seed=0)
    plain, default = (render.make_peer(env, 64, plain=plain) for plain in (True, False))
    with Renderer(env, 64, render.CAMERA) as ours:
        wanted = ours.frames(static, dynamics)
        for name in ("SHADOW", "REFLECTION"):
            flag = getattr(mujoco.mjtRndFlag, f"mjRND_{name}")
            assert plain._get_viewer("rgb_array").scn.flags[flag] == ours._scene.flags[flag] == 0
            assert default._get_viewer("rgb_array").scn.flags[flag] == 1
        for name in ("offsamples", "shadowsize"):
            assert getattr(plain.model.vis.quality, name) == getattr(ours._model.vis.quality, name) == 0
    with render.PlainRenderer(env, 64) as bare:
        pictures = [
            np.stack(bare.frames(static, dynamics)),
            np.stack(render.peer_frames(plain, simstate.layout(env), static, dynamics)),
        ]
    np.testing.assert_array_equal(*pictures)  # mujoco's own renderer and gymnasium's with the same flags
    distances = {}
    for name, peer in (("plain", plain), ("default", default)):
        pictures = np.stack(render.peer_frames(peer, simstate.layout(env), static, dynamics))[:, ::-1, ::-1]
        assert pictures.shape == wanted.shape
        distances[name] = np.abs(pictures - wanted.astype(float)).mean()
        peer.close()
    assert distances["plain"] < 5 < distances["default"]  # half a pixel of its edges; the default has shadows, too


def test_collect(capsys, monkeypatch):
    monkeypatch.setattr(collect, "TASKS", ("drawer-open", "reach"))
    monkeypatch.setattr(collect, "EPISODES", 1)
    monkeypatch.setattr(collect, "TURNS", 1)
    measured = last_line(capsys, "collect")
    assert list(measured) == ["ratio", "fair", "scaling", "clips_per_s"] and measured["ratio"] > 1 and measured["fair"] > 0


def test_the_best_plain_collection_makes_what_ours_makes(tmp_path, monkeypatch):
    tasks = ("drawer-open", "reach")
    made, environments = counted(monkeypatch, collect), []
    monkeypatch.setattr(collect, "make_env", lambda *args: environments.append(make_env(*args)) or environments[-1])
    plain, ours = (collect.config(tmp_path / side, tasks, episodes=2) for side in ("plain", "ours"))
    collect.collect_plainly(plain)
    assert len(made) == len(environments) == len(tasks)  # one a task for six episodes
    collection.run(ours)
    for task in tasks:
        store, arrays = EpisodeStore(ours.out / task), np.load(plain.out / f"{task}.npz")
        for number in range(len(store)):
            for name, value in vars(store.episode(number)).items():
                np.testing.assert_array_equal(arrays[f"{number}/{name}"], value)
        frames = np.load(ours.clips / task / "frames.npy")
        theirs = np.load(plain.clips / f"{task}.npy")
        assert frames.shape == theirs.shape and frames.dtype == theirs.dtype
        assert np.abs(frames - theirs[:, ::-1, ::-1].astype(float)).mean() < 5  # of the same states, from the same side
        assert f"{len(store)}/actions" not in arrays


def test_annotate(capsys, monkeypatch):
    for name, value in {"PAIRS": 20, "CLIPS": 8, "SAMPLE": 4, "FEW": 2, "MANY": 4, "ROUNDS": 1}.items():
        monkeypatch.setattr(annotate, name, value)
    monkeypatch.setattr(annotate, "WAYS", {"two processes": (2, 1)})
    measured = last_line(capsys, "annotate")
    assert set(measured) == {"ratio", "fair", "reuse", "clips_per_s", "peak_mb"} and min(measured.values()) > 0
    assert measured["reuse"] == 5.0


def test_the_plain_script_scores_the_clips_that_annotate_scores(tmp_path):
    model, episodes = annotate.untrained_vlp(tmp_path / "vlp"), annotate.record_episodes(tmp_path / "made", 3, steps=60)
    config = AnnotateConfig(out=tmp_path / "ours.parquet", episodes=episodes, model=(model,), pairs=4, clips=6, threads=1)
    table = read_preferences(run_annotate(config))
    annotate.time_command(annotate.plain(replace(config, processes=2), tmp_path / "plain.npz"))
    with np.load(tmp_path / "plain.npz") as file:
        found = dict(file)
    assert len(found["scores"]) == 6 and np.unique(found["scores"]).size > 1
    alone = annotate_peer.label(replace(config, processes=1))
    np.testing.assert_allclose(found["scores"], alone["scores"], atol=1e-5)  # whichever process draws a clip
    segments = annotate.plan_pairs(config, episodes)
    listed = [[table[f"{name}_{side}"].tolist() for name in ("episode", "start", "stop")] for side in "ab"]
    for side, columns in enumerate(listed):
        assert list(zip(*columns, strict=True)) == [astuple(pair[side]) for pair in segments]
    # Of other pictures, from another place: labels need not agree, but they are of the same pairs.
    numbers = {clip: number for number, clip in enumerate(sorted({c for pair in segments for c in pair}, key=astuple))}
    assert found["pairs"].tolist() == [[numbers[clip] for clip in pair] for pair in segments]


@pytest.mark.parametrize(
    ("name", "drawn", "method"), [("peer", False, "spawn"), ("__main__", True, "spawn"), ("__main__", False, "fork")]
)
def test_the_plain_script_forks_only_a_process_of_its_own(tmp_path, monkeypatch, name, drawn, method):
    asked = []

    class Pool:
        def __init__(self, count):
            asked.append(count)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def starmap(self, function, parts):
            return [np.arange(len(part), dtype=float) for _, part in parts]

    def get_context(kind):
        asked.append(kind)
        return SimpleNamespace(Pool=Pool)

    monkeypatch.setattr(annotate_peer, "__name__", name)
    monkeypatch.setattr(annotate_peer, "has_drawn", lambda: drawn)
    monkeypatch.setattr(annotate_peer, "get_context", get_context)
    episodes = annotate.record_episodes(tmp_path / "made", 3, steps=60)
    config = AnnotateConfig(out=tmp_path / "x", episodes=episodes, pairs=4, clips=6, processes=2)
    assert annotate_peer.label(config)["scores"].tolist() == [0, 1, 2, 0, 1, 2]
    assert asked == [method, 2]


def test_gtr(capsys, monkeypatch):
    for name, value in {"ROUNDS": 1, "TURN_S": 0.0, "THREADS": (1,)}.items():
        monkeypatch.setattr(gtr, name, value)
    monkeypatch.setattr(gtr, "ENVS", {"halfcheetah": gtr.ENVS["halfcheetah"]})
    compose = gtr.compose  # fewer decisions an iteration, for ten processes make them by turns
    monkeypatch.setattr(gtr, "compose", lambda name, words: compose(name, [*words, "policy.steps=32", "policy.epochs=1"]))
    measured = last_line(capsys, "gtr")
    assert set(measured) == {"ratio", "fair"} and all(set(ratios) == {"halfcheetah"} for ratios in measured.values())
    assert measured["fair"]["halfcheetah"] > 0 and measured["ratio"]["halfcheetah"] > 0


def test_downstream(capsys, monkeypatch):
    monkeypatch.setattr(downstream, "ROUNDS", 1)
    monkeypatch.setattr(downstream, "TURN_S", 0.0)
    monkeypatch.setattr(downstream, "THREADS", (1,))
    small = {"hidden": (8, 8), "batch": 8, "pairs": 4}
    configs = (PIQLConfig(**small), CPLConfig(**small))
    monkeypatch.setattr(downstream, "sizes", lambda: {"paper": configs, "quick": configs})
    calls = []

    @contextmanager
    def here(count):  # not in processes, which take seconds to start
        def call(function, *arguments):
            calls.append(arguments[:2])
            return [function(*arguments) for _ in range(count)]

        yield call

    monkeypatch.setattr(downstream, "processes", here)
    measured = last_line(capsys, "downstream")
    assert set(measured) == {"ratio", "paper", "fair", "fair_paper"} and min(measured.values()) > 0
    assert set(calls) == {(config, side) for config in configs for side in ("plain", "batched")}


def test_two_processes_work_at_once(tmp_path):
    meet = (  # each waits for the other
        "import os, sys, time\n"
        "open(os.path.join(sys.argv[1], str(os.getpid())), 'w').close()\n"
        "for _ in range(600):\n"
        "    if len(os.listdir(sys.argv[1])) == 2: sys.exit(0)\n"
        "    time.sleep(0.1)\n"
        "sys.exit(1)\n"
    )
    with turns.processes(2) as both:
        assert both(subprocess.call, [sys.executable, "-c", meet, str(tmp_path)]) == [0, 0]


def test_the_rate_of_a_side_that_runs_twice_is_the_sum_of_both(monkeypatch):
    @contextmanager
    def here(count, begin, make):
        yield lambda turn, threads, seconds: [make * threads] * count

    monkeypatch.setattr(turns, "processes", here)
    rates = turns.measure({"alone": 3.0, "twice": 3.0}, (1, 2), rounds=1, seconds=0.0, twice=["twice"])
    assert rates == {"alone": {1: 3.0, 2: 6.0}, "twice": {1: 6.0}}  # two processes of two threads would be too many


SIZES = {"hidden": (16, 16), "batch": 16, "dropout": 0.0, "pairs": 4}


def put_into(plain: torch.nn.Module, batched: torch.nn.Module, member: int) -> None:
    """A member's weights into plain layers."""
    linear = [module for module in plain.modules() if isinstance(module, torch.nn.Linear)]
    with torch.no_grad():
        for ours, theirs in zip(linear, batched.mlp.layers if hasattr(batched, "mlp") else batched.layers, strict=True):
            ours.weight.copy_(theirs.weight[member].T)
            ours.bias.copy_(theirs.bias[member, 0])


def assert_same(plain: torch.nn.Module, batched: torch.nn.Module, member: int) -> None:
    linear = [module for module in plain.modules() if isinstance(module, torch.nn.Linear)]
    for ours, theirs in zip(linear, batched.mlp.layers if hasattr(batched, "mlp") else batched.layers, strict=True):
        torch.testing.assert_close(ours.weight, theirs.weight[member].T, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(ours.bias, theirs.bias[member, 0], atol=1e-5, rtol=1e-5)


def test_plain_and_batched_p_iql_take_the_same_step():
    data, pairs = downstream.noise()
    config, seeds, member = PIQLConfig(**SIZES, learning_rate=1e-3, segment_steps=5), (3, 4), 1
    batched, rngs = PIQL(config, data, pairs, seeds), member_rngs(seeds, "training")
    plain = downstream.PlainPIQL(config, data, pairs, seeds[member])
    networks = batched.iql.networks
    put_into(plain.actor, batched.actor, member)
    put_into(plain.value, networks.value, member)
    put_into(plain.reward, batched.reward, member)
    for critic in range(2):  # networks 0 and 1 are the first critics of both members, 2 and 3 the second
        put_into(plain.critics[critic], networks.critic, 2 * critic + member)
        put_into(plain.targets[critic], networks.critic, 2 * critic + member)

    said = [batched.update_reward(rngs)["reward"][member], plain.update_reward()]
    torch.testing.assert_close(*said)
    assert_same(plain.reward, batched.reward, member)
    plain.rewards = batched.iql.rewards[member]
    ours, theirs = batched.iql.update(7, rngs), plain.update(7)
    for name, loss in theirs.items():
        torch.testing.assert_close(ours[name][member], loss)
    assert_same(plain.actor, batched.actor, member)
    assert_same(plain.value, networks.value, member)
    for critic in range(2):
        assert_same(plain.critics[critic], networks.critic, 2 * critic + member)
        assert_same(plain.targets[critic], networks.target, 2 * critic + member)


def test_plain_and_batched_cpl_take_the_same_steps():
    data, pairs = downstream.noise()
    config, seeds, member = CPLConfig(**SIZES, clone_weight=0.3, clone_from="transitions"), (3, 4), 1
    batched, rngs = CPL(replace(config, steps=10), data, pairs, seeds), member_rngs(seeds, "training")
    plain = downstream.PlainCPL(replace(config, steps=10), data, pairs, seeds[member])
    put_into(plain.actor, batched.actor, member)
    torch.testing.assert_close(batched.clone(rngs)["clone"][member], plain.clone())
    assert_same(plain.actor, batched.actor, member)
    torch.testing.assert_close(batched.prefer(0, rngs)["cpl"][member], plain.prefer(0))
    assert_same(plain.actor, batched.actor, member)


@pytest.mark.parametrize(("fast", "precisions"), [(True, ["bfloat16", "bfloat16 products"]), (False, [])])
def test_precisions_that_a_processor_does_not_have_are_no_rows(fast, precisions, monkeypatch, tmp_path):
    """Products that are asked for in bfloat16 are float32's there, and would be a second draw of the same program."""
    monkeypatch.setattr(cir, "has_bfloat16", lambda device: fast)
    assert [side.precision for side in cir.lower(tmp_path, CIRConfig()).values()] == precisions


def test_cir(capsys, monkeypatch):
    for name, value in {"ROUNDS": 1, "TURN_S": 0.0, "THREADS": (1,), "WARMUP": 110}.items():
        monkeypatch.setattr(cir, name, value)
    monkeypatch.setattr(cir.shutil, "which", lambda name: None)  # compiling takes half a minute
    monkeypatch.setattr(cir, "compose", lambda name, words: {"policy": {"width": 16, "batch": 16}})
    measured = last_line(capsys, "cir")
    by_width = {name: measured.pop(name) for name in ("precision", "fair", "fastest")}
    assert list(measured) == ["ratio_256", "float32_256", "ratio_512", "float32_512"]
    assert all(list(values) == ["256", "512"] for values in by_width.values())
    assert min(*measured.values(), *by_width["fair"].values()) > 0
    assert set(by_width["precision"].values()) <= {"float32", "bfloat16 products"}


def put_flat(plain: torch.nn.Module, flat: torch.nn.Module, names: list[str], head: int) -> None:
    """Weights of one network of a flat array into plain layers."""
    linear = [module for module in plain.modules() if isinstance(module, torch.nn.Linear)]
    with torch.no_grad():
        for layer, name in zip(linear, names, strict=True):
            layer.weight.copy_(flat.weights[f"{name}.weight"][head].T)
            layer.bias.copy_(flat.weights[f"{name}.bias"][head, 0])


def test_the_peer_in_jax_runs_under_its_own_python(tmp_path, monkeypatch):
    """Here with a stand-in for sbx, which is not a dependency: it writes down what it is asked to learn."""
    log = tmp_path / "log"
    (tmp_path / "sbx.py").write_text(
        "import os\n"
        "class SAC:\n"
        "    def __init__(self, *_, **settings): self.settings = settings\n"
        "    def learn(self, count, **_):\n"
        f"        line = f'{{count}} of {{self.settings[\"learning_starts\"]}} on {{len(os.sched_getaffinity(0))}}'\n"
        f"        print(line, file=open({str(log)!r}, 'a'))\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    steps = cir.in_jax(sys.executable, 7)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        steps(3)
        steps(5)
    finally:
        torch.set_num_threads(before)
    assert log.read_text().splitlines() == ["7 of 7 on 1", "3 of 7 on 1", "5 of 7 on 1"]

    (tmp_path / "sbx.py").write_text("raise ImportError\n")
    with pytest.raises(RoboprefError, match="needs sbx-rl"):
        cir.in_jax(sys.executable, 7)(1)
    with pytest.raises(RoboprefError, match="No such file"):
        cir.in_jax(str(tmp_path / "python"), 7)(1)


def test_plain_and_our_cir_take_the_same_step():
    config = CIRConfig(width=16)
    fast, plain = CIR(config, 3, 2, seed=0), cir.PlainCIR(config, 3, 2, seed=0)
    layers, actor = ["d0", "d1", "d2", "u1", "m1", "u2", "m2", "q"], ["d0", "d1", "out"]
    for head in range(2):
        put_flat(plain.critics[head], fast.critic, layers, head)
        put_flat(plain.targets[head], fast.target, layers, head)
    put_flat(plain.actor, fast.actor, actor, 0)
    rng = torch.Generator().manual_seed(0)
    for _ in range(3):
        obs, next_obs = torch.randn(2, 8, 3, generator=rng)
        actions, rewards = torch.rand(8, 2, generator=rng) * 2 - 1, torch.randn(8, generator=rng)
        batch = Experience(obs, actions, rewards, torch.zeros(8), next_obs)
        ours, theirs = fast.update(batch), plain.update(batch)
        for name, loss in theirs.items():
            torch.testing.assert_close(ours[name], loss, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(plain.log_alpha.detach(), fast.actor.weights["log_alpha"], atol=1e-5, rtol=1e-3)
    norm = plain.critics[0].norm
    torch.testing.assert_close(norm.weight.detach(), fast.critic.weights["all.scale"].view(-1), atol=1e-4, rtol=1e-4)
    for plains, flat in ((plain.critics, fast.critic), (plain.targets, fast.target)):
        for head in range(2):
            linear = [module for module in plains[head].modules() if isinstance(module, torch.nn.Linear)]
            theirs = torch.cat([value.detach().flatten() for layer in linear for value in (layer.weight.T, layer.bias)])
            ours = torch.cat([flat.weights[f"{name}.{kind}"][head].flatten() for name in layers for kind in ("weight", "bias")])
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3)


def test_a_mistyped_name_is_an_error_that_lists_the_choices(capsys):
    assert cli.main(["bench", "rendr"]) == 2
    assert "Expected one of ('render'" in capsys.readouterr().err
