"""Workers that draw are forked only from a process in which no GL driver, no torch and no other thread runs."""

from __future__ import annotations

import sys
import threading

import pytest
from test_render import ANY_GL, needs_gl, run_python

from robopref.preference import drawing

BEFORE_AND_AFTER = """
import sys
from robopref.preference.drawing import can_fork
from robopref.embodied.envs import make_env
env = make_env("metaworld/reach")
env.reset(seed=0)
print(can_fork())
DRAW
print(can_fork())
"""
WAYS = {
    "ours": """
from robopref.embodied.render import Renderer
with Renderer(env) as renderer:
    renderer.frame()
""",
    "gymnasium's": """
from gymnasium.envs.mujoco.mujoco_rendering import MujocoRenderer
renderer = MujocoRenderer(env.unwrapped.model, env.unwrapped.data, width=64, height=64, camera_name="corner2")
renderer.render("rgb_array")
renderer.close()
""",
}
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux forks")


@linux
@pytest.mark.parametrize("backend", ANY_GL)
@pytest.mark.parametrize("way", WAYS)
def test_a_process_that_has_drawn_is_not_forked(backend, way):
    done = run_python(BEFORE_AND_AFTER.replace("DRAW", WAYS[way]), MUJOCO_GL=backend)
    assert done.stdout == "True\nFalse\n", done.stderr


@linux
@needs_gl
def test_workers_of_a_process_that_has_drawn_draw(tmp_path):
    """A fork of it would hang, which the timeout of `run_python` ends."""
    code = f"""
if __name__ == "__main__":
    from pathlib import Path
    import numpy as np
    from robopref.datasets.clips import Segment
    from robopref.datasets.episodes import EpisodeStore, write_episodes
    from robopref.embodied.envs import make_env
    from robopref.embodied.experts import uniform
    from robopref.embodied.render import Renderer
    from robopref.embodied.rollout import rollout
    from robopref.preference.drawing import Drawers, Look
    env = make_env("metaworld/reach")
    episode = rollout(env, uniform(np.random.default_rng(0)), seed=0, level="random", policy="uniform", max_steps=60)
    write_episodes(Path({str(tmp_path / "made")!r}), env.env_id, [episode], {{}})
    with Renderer(env) as renderer:
        renderer.frame()
        with Drawers(EpisodeStore(Path({str(tmp_path / "made")!r})), [Segment(0, 0, 50)], 2) as drawers:
            (drawn,) = drawers.draw(Look("corner2-zoom", 64, 8), [[0]])
    print(drawn.shape)
"""
    done = run_python(code)
    assert done.stdout == "(1, 9, 64, 64, 3)\n", done.stderr


@linux
def test_a_process_with_torch_or_another_thread_is_not_forked(monkeypatch):
    monkeypatch.setattr(drawing, "has_drawn", lambda: False)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    assert drawing.can_fork()
    monkeypatch.setattr(threading, "active_count", lambda: 2)
    assert not drawing.can_fork()
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    monkeypatch.setitem(sys.modules, "torch", threading)
    assert not drawing.can_fork()
