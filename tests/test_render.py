"""Drawing: upright, faithful, undisturbed by other renderers, harmless to the simulation, and clear about a missing GL."""

from __future__ import annotations

import copy
import os
import subprocess
import sys

import mujoco
import numpy as np
import pytest
from gymnasium.envs.mujoco.mujoco_rendering import MujocoRenderer
from scipy.ndimage import binary_dilation

from robopref.configs.errors import RoboprefError
from robopref.embodied import render, simstate
from robopref.embodied.envs import MetaWorldEnv, make_env
from robopref.embodied.gl import is_installed
from robopref.embodied.parts import part_names
from robopref.embodied.render import CameraPose, Renderer, cameras, halve, merge_vertices, place_camera

ANY_GL = [name for name in ("osmesa", "egl") if is_installed(name)]
needs_gl = pytest.mark.skipif(not ANY_GL, reason="neither libosmesa6 nor libegl1 is installed")


@pytest.fixture(scope="module")
def env() -> MetaWorldEnv:
    env = make_env("metaworld/drawer-close")
    env.reset(seed=2)
    for _ in range(10):
        env.step(np.array([0.5, 0.0, -0.5, 0.0]))
    return env


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """Mean absolute difference in grey levels."""
    return float(np.abs(a.astype(float) - b).mean())


@needs_gl
@pytest.mark.parametrize("camera", ["corner2", "topview"])
def test_pictures_are_those_of_gymnasium_turned_upright(env, camera):
    peer = MujocoRenderer(env.unwrapped.model, env.unwrapped.data, width=96, height=64, camera_name=camera)
    theirs = peer.render("rgb_array")
    peer.close()
    with Renderer(env, (64, 96), camera, quality="pretty") as renderer:
        ours = renderer.frame()
    assert ours.shape == (64, 96, 3) and ours.dtype == np.uint8
    upright = theirs[::-1, ::-1] if camera.startswith("corner") else theirs
    assert difference(ours, upright) < 2.5  # half-pixel shifts of edges; a mirrored or turned scene differs by 12 or more
    assert difference(ours[::-1, ::-1], upright) > 8 and difference(ours[:, ::-1], upright) > 8


def test_every_camera_is_upright(env):
    model = env.unwrapped.model
    for name in cameras(model):
        copied = copy.deepcopy(model)
        number, axes = place_camera(copied, name), np.empty(9)
        mujoco.mju_quat2Mat(axes, copied.cam_quat[number])
        assert axes[7] > -1e-6, name  # the height of its y axis


@needs_gl
@pytest.mark.parametrize("size", [64, 160])
def test_fast_shows_what_pretty_shows(env, size):
    with Renderer(env, size) as fast, Renderer(env, size, quality="pretty") as pretty:
        a, b = fast.frame(), pretty.frame()
    assert difference(a, b) < 14  # shadows and the brightness of table and wall
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.96
    green = [(f[..., 1] > f[..., 0].astype(int) + 25) & (f[..., 1] > f[..., 2].astype(int) + 25) for f in (a, b)]
    assert green[0].sum() > 0.01 * size**2  # the drawer
    assert 0.9 < green[0].sum() / green[1].sum() < 1.1


def states(task: str, seed: int = 1, count: int = 4) -> tuple[MetaWorldEnv, np.ndarray, np.ndarray]:
    """An environment, and states of an episode of it in which the hand goes forward and down at random."""
    env = make_env(f"metaworld/{task}")
    env.reset(seed=seed)
    rng, dynamics = np.random.default_rng(0), []
    for _ in range(count):
        for _ in range(6):
            env.step(np.clip(np.add(rng.uniform(-1, 1, 4), [0, 0.3, -0.3, 0]), -1, 1))
        dynamics.append(simstate.save_dynamic(env))
    return env, simstate.save_static(env), np.array(dynamics)


@needs_gl
@pytest.mark.parametrize("task", ["reach", "door-open", "coffee-push"])  # a target, a moved body, a loose one
def test_two_layers_are_the_picture_that_is_drawn_at_once(task):
    env, static, dynamics = states(task)
    _, other, _ = states(task, seed=5, count=1)
    with Renderer(env, 96) as renderer:
        assert renderer._layered
        layered = [renderer.frames(each, dynamics) for each in (static, other, static)]
        renderer._layered = False
        at_once = [renderer.frames(each, dynamics) for each in (static, other, static)]
    np.testing.assert_array_equal(layered, at_once)
    assert difference(layered[0], layered[1]) > 0.05  # the other episode has its own layer


@needs_gl
def test_what_stands_still_is_drawn_once_an_episode(env, monkeypatch):
    drawn: list[int] = []
    draw = Renderer._render
    monkeypatch.setattr(
        Renderer, "_render", lambda self, category, *buffers: (drawn.append(category), draw(self, category, *buffers))
    )
    static, dynamic = simstate.save_static(env), simstate.save_dynamic(env)
    with Renderer(env) as renderer:
        renderer.frames(static, np.stack([dynamic] * 3))
        renderer.frame()
        renderer.parts(static, dynamic[None])  # numbers of geoms are of one scene
    assert drawn == [render.STILL, *[render.MOVING] * 4, render.ALL]


@needs_gl
def test_glass_and_moving_cameras_are_drawn_at_once(env):
    with Renderer(make_env("metaworld/window-open")) as glass, Renderer(env, camera="gripperPOV") as hand:
        assert not glass._layered and not hand._layered
    with Renderer(env, quality="pretty") as shadowed:  # what moves casts shadows on what does not
        assert not shadowed._layered


@needs_gl
@pytest.mark.parametrize(("size", "most"), [(64, 2.0), (224, 2.2)])
def test_fast_pictures_are_close_to_the_unsimplified_scene_supersampled(size, most, monkeypatch):
    """8 x 8 samples a pixel of every face; in grey levels, mean over the picture.  Drawn plainly at 64 px it is 3.8."""
    env, static, dynamics = states("drawer-close", count=2)
    with Renderer(env, size, "corner2") as renderer:
        ours = renderer.frames(static, dynamics)
    monkeypatch.setattr(render, "pixel_size", lambda *_: 0.0)
    with Renderer(env, 8 * size, "corner2") as renderer:
        fine = renderer.frames(static, dynamics)
    assert difference(ours, fine.reshape(2, size, 8, size, 8, 3).mean((2, 4))) < most


@needs_gl
def test_an_object_moves_in_the_picture_as_it_moves_in_the_world():
    env = make_env("metaworld/reach")
    env.reset(seed=0)
    state = simstate.save(env)
    look = CameraPose(pos=(0.0, 1.6, 0.3), lookat=(0.0, 0.6, 0.2), fovy=45.0)  # from behind the table: right is -x
    with Renderer(env, 96, look) as renderer:
        centres = []
        for goal in ((0.0, 0.8, 0.2), (0.1, 0.8, 0.2), (0.0, 0.8, 0.3)):
            static = state.static.copy()
            target = np.flatnonzero(np.isclose(static, env.unwrapped._target_pos[0]))
            for start in target:
                static[start : start + 3] = goal
            blank = static.copy()
            for start in target:
                blank[start : start + 3] = (0.0, 0.0, -5.0)
            changed = np.abs(
                renderer.frames(static, state.dynamic[None])[0].astype(int) - renderer.frames(blank, state.dynamic[None])[0]
            ).sum(-1)
            centres.append(np.average(np.indices(changed.shape).reshape(2, -1), axis=1, weights=changed.ravel()))
    (row, column), (_, aside), (above, _) = centres
    assert aside < column - 5 and above < row - 5


@needs_gl
def test_frames_of_saved_states_are_the_frames_that_were_seen_live():
    env = make_env("metaworld/door-open")
    env.reset(seed=1)
    static = simstate.save_static(env)
    with Renderer(env) as renderer:
        live, dynamics = [], []
        for _ in range(4):
            for _ in range(5):
                env.step(np.array([-0.5, 1.0, 0.2, 0.0]))
            live.append(renderer.frame())
            dynamics.append(simstate.save_dynamic(env))
        env.reset(seed=7)  # another door position: pictures come from the states alone
        later = renderer.frames(static, np.array(dynamics))
        np.testing.assert_array_equal(later, np.array(live))
    other = make_env("metaworld/door-open", seed=3)
    other.reset()
    for _ in range(30):
        other.step(np.array([1.0, -1.0, 1.0, 1.0]))
    with Renderer(other) as elsewhere:
        np.testing.assert_array_equal(elsewhere.frames(static, np.array(dynamics)), later)


@needs_gl
def test_drawing_does_not_disturb_the_simulation(env):
    before, model = simstate.save(env), env.unwrapped.model
    meshes, cameras_before = model.mesh_facenum.copy(), model.cam_pos.copy()
    with Renderer(env) as renderer:
        other = before.dynamic.copy()
        other[1:4] += 0.1
        renderer.frames(before.static, other[None])
    after = simstate.save(env)
    np.testing.assert_array_equal(after.dynamic, before.dynamic)
    np.testing.assert_array_equal(after.static, before.static)
    np.testing.assert_array_equal(model.mesh_facenum, meshes)
    np.testing.assert_array_equal(model.cam_pos, cameras_before)


@needs_gl
def test_two_renderers_by_turns_do_not_corrupt_each_other(env):
    door = make_env("metaworld/door-open")
    door.reset(seed=0)
    with Renderer(env) as renderer:
        drawer_alone = renderer.frame()
    with Renderer(door, 48) as renderer:
        door_alone = renderer.frame()
    with Renderer(env) as first, Renderer(door, 48) as second:
        for _ in range(3):
            np.testing.assert_array_equal(first.frame(), drawer_alone)
            np.testing.assert_array_equal(second.frame(), door_alone)
        second.close()
        np.testing.assert_array_equal(first.frame(), drawer_alone)


@needs_gl
def test_a_camera_pose_equal_to_a_named_camera_gives_its_picture(env):
    with Renderer(env, 96, "corner") as renderer:  # the one corner camera that is not rolled by a few degrees
        named = renderer.frame()
    data, number = env.unwrapped.data, env.unwrapped.model.camera("corner").id
    pos, backward = data.cam_xpos[number], data.cam_xmat[number].reshape(3, 3)[:, 2]
    with Renderer(env, 96, CameraPose(tuple(pos), tuple(pos - backward), fovy=45.0)) as renderer:
        assert difference(named, renderer.frame()) < 0.5


def test_a_camera_straight_above_has_a_defined_up():
    quaternion = CameraPose((0.0, 0.6, 1.5), (0.0, 0.6, 0.0)).quaternion()
    np.testing.assert_allclose(quaternion, [1, 0, 0, 0], atol=1e-12)


@needs_gl
def test_mistaken_names_and_closed_renderers_are_explained(env):
    with pytest.raises(RoboprefError, match=r"No camera 'corner2-zom'.*Did you mean 'corner2-zoom'"):
        Renderer(env, camera="corner2-zom")
    with pytest.raises(RoboprefError, match=r"quality 'prety'.*'pretty'"):
        Renderer(env, quality="prety")  # type: ignore[arg-type]
    assert set(cameras(env.unwrapped.model)) > {"corner2-zoom", "corner", "topview"}
    renderer = Renderer(env)
    renderer.close()
    renderer.close()
    with pytest.raises(RoboprefError, match="closed"):
        renderer.frame()


def test_halving_rounds_the_mean_of_four_pixels():
    picture = np.zeros((2, 4, 3), np.uint8)
    picture[0, 0], picture[1, 1], picture[:, 2:] = 255, 3, 255
    np.testing.assert_array_equal(halve(picture)[0, :, 0], [65, 255])  # (255 + 3) / 4 = 64.5, rounded up


def test_merging_vertices_keeps_the_shape_within_two_cells(env):
    model = mujoco.MjModel.from_xml_path(env.unwrapped.fullpath)
    mesh = int(model.mesh_facenum.argmax())
    rows = slice(model.mesh_faceadr[mesh], model.mesh_faceadr[mesh] + model.mesh_facenum[mesh])
    vertices = model.mesh_vert[model.mesh_vertadr[mesh] :][: model.mesh_vertnum[mesh]]
    before, faces = model.mesh_face[rows].copy(), model.mesh_facenum[mesh]
    merge_vertices(model, mesh, cell=0.01)
    assert 50 < model.mesh_facenum[mesh] < faces / 2
    after = model.mesh_face[rows][: model.mesh_facenum[mesh]]
    assert all(len(set(face)) == 3 for face in after.tolist()) and set(after.ravel()) <= set(before.ravel())
    distances = np.linalg.norm(vertices[np.unique(before)][:, None] - vertices[np.unique(after)][None], axis=2).min(axis=1)
    assert distances.max() < 2 * 0.01 * np.sqrt(3)  # two, because the nearest vertex may have lost all its faces


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run in an interpreter of its own: GL is chosen once a process."""
    inherited = {key: value for key, value in os.environ.items() if key not in ("MUJOCO_GL", "PYOPENGL_PLATFORM")}
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], env=inherited | environment, capture_output=True, text=True, timeout=120
    )


# As on a machine without the libraries named: the loader finds none of their names.
WITHOUT = """
import ctypes
found = ctypes.CDLL
class CDLL(found):
    def __init__(self, name=None, *args, **kwargs):
        if name is not None and any(missing in str(name) for missing in {missing}):
            raise OSError(name)
        super().__init__(name, *args, **kwargs)
ctypes.CDLL = CDLL
from robopref.configs.errors import RoboprefError
try:
    import os, robopref.embodied
    print("chosen", os.environ["MUJOCO_GL"])
    from robopref.embodied.envs import make_env
    env = make_env("metaworld/reach")
    print("stepped", env.reset(seed=0)[0].shape)
    from robopref.embodied.render import Renderer
    Renderer(env)
except RoboprefError as error:
    print("error:", error)
"""


def test_a_backend_asked_for_without_its_library_names_the_package():
    done = run_python(WITHOUT.format(missing=["libOSMesa"]), MUJOCO_GL="osmesa")
    assert done.returncode == 0, done.stderr
    assert "error: MUJOCO_GL=osmesa" in done.stdout and "apt-get install libosmesa6" in done.stdout


def test_egl_without_opengl_names_the_packages():
    """Debian's libegl1 brings no OpenGL; `import mujoco` would end in a ctypes.ArgumentError."""
    done = run_python(WITHOUT.format(missing=["libOpenGL", "libGL."]), MUJOCO_GL="egl")
    assert done.returncode == 0, done.stderr
    assert "error: MUJOCO_GL=egl" in done.stdout and "apt-get install libegl1 libopengl0" in done.stdout


def test_without_any_gl_everything_but_drawing_works():
    done = run_python(WITHOUT.format(missing=["libOSMesa", "libEGL"]))
    assert done.returncode == 0, done.stderr
    assert "chosen disable" in done.stdout and "stepped (39,)" in done.stdout
    assert "error: Cannot draw" in done.stdout and "apt-get install libosmesa6" in done.stdout


def test_an_unknown_backend_is_named():
    done = run_python(WITHOUT.format(missing=[]), MUJOCO_GL="elg")
    assert "error: MUJOCO_GL=elg is not egl" in done.stdout and "'egl'" in done.stdout


@pytest.mark.skipif("egl" not in ANY_GL, reason="libegl1 is not installed")
def test_egl_without_a_driver_names_the_package():
    done = run_python(WITHOUT.format(missing=[]), MUJOCO_GL="egl", __EGL_VENDOR_LIBRARY_DIRS="/nonexistent")
    assert done.returncode == 0, done.stderr
    assert "error: Cannot draw with MUJOCO_GL=egl" in done.stdout and "apt-get install libegl1" in done.stdout


DRAW = """
import robopref.embodied
from robopref.embodied.envs import make_env
from robopref.embodied.render import Renderer
env = make_env("metaworld/reach")
env.reset(seed=0)
renderer = Renderer(env)
print("drawn", renderer.frame().mean() > 10)
"""
TRAIN = """
import torch
torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])
print("trained")
"""


@pytest.mark.parametrize("backend", ANY_GL)
def test_a_renderer_left_open_makes_no_noise_at_exit(backend):
    done = run_python(DRAW, MUJOCO_GL=backend)
    assert (done.returncode, done.stdout, done.stderr) == (0, "drawn True\n", "")


INTERRUPTED = """
import importlib, os
from robopref.embodied.envs import make_env
from robopref.embodied.render import Renderer

env = make_env("metaworld/reach")
env.reset(seed=0)

def interrupt(*_):
    raise KeyboardInterrupt

importlib.import_module("mujoco." + os.environ["MUJOCO_GL"]).GLContext.__init__ = interrupt
try:
    Renderer(env)
except KeyboardInterrupt:
    print("stopped")
"""


@pytest.mark.parametrize("backend", ANY_GL)
def test_an_interrupt_while_the_driver_begins_makes_no_noise(backend):
    done = run_python(INTERRUPTED, MUJOCO_GL=backend)
    assert (done.returncode, done.stdout, done.stderr) == (0, "stopped\n", "")


@needs_gl
def test_torch_can_train_after_drawing():
    done = run_python(DRAW + TRAIN)
    assert done.returncode == 0, "two LLVMs met: see load_triton_first in gl.py"
    assert done.stdout == "drawn True\ntrained\n"


@needs_gl
def test_parts_are_named_and_lie_where_the_picture_shows_them():
    press = make_env("metaworld/button-press")
    press.reset(seed=0)
    static, dynamic = simstate.save_static(press), simstate.save_dynamic(press)[None]
    with Renderer(press, 128) as renderer:
        before = renderer.frames(static, dynamic)
        parts = renderer.parts(static, dynamic)[0]
        np.testing.assert_array_equal(renderer.frames(static, dynamic), before)
        names = renderer.part_names
    assert parts.shape == (128, 128) and parts.dtype == np.uint8
    shown = {names[number] for number in np.unique(parts)}
    assert {"background", "robot", "btn_red", "btn_yellow", "btn_black"} <= shown
    red, green, blue = before[0][parts == names.index("btn_red")].mean(0)
    assert red > 2 * green and red > 2 * blue
    red, green, blue = before[0][parts == names.index("btn_yellow")].mean(0)
    assert min(red, green) > 2 * blue
    assert 0.05 < (parts == names.index("robot")).mean() < 0.6


@needs_gl
@pytest.mark.parametrize("size", [64, (48, 96)])
def test_masks_lie_upright_on_their_pictures(size):
    """Whatever changes when the arm moves is where the robot was or is; so it is nowhere but with the mask as it stands."""
    env, static, dynamics = states("reach", count=4)
    with Renderer(env, size) as renderer:
        pictures = renderer.frames(static, dynamics[[0, -1]]).astype(int)
        robot = (renderer.parts(static, dynamics[[0, -1]]) == renderer.part_names.index("robot")).any(0)
    changed = np.abs(pictures[0] - pictures[1]).max(-1) > 40
    near = binary_dilation(robot)  # a pixel of the picture is the mean of several
    assert changed.sum() > 10 and (changed & near).sum() > 0.97 * changed.sum()
    for wrong in (near[::-1], near[:, ::-1], near[::-1, ::-1]):
        assert (changed & wrong).sum() < 0.9 * changed.sum()


@needs_gl
def test_a_thing_has_the_same_name_in_every_scene():
    """What match learns from one task must hold in another: the same thing, another opening."""
    pairs = {"drawer-open": "drawer-close", "door-open": "door-close", "button-press-wall": "button-press", "push": "pick-place"}
    for one, other in pairs.items():
        found = []
        for name in (one, other):
            env = make_env(f"metaworld/{name}")
            drawn = {part for part in part_names(env.unwrapped.model) if not part.endswith("_col")}  # collisions' shapes are not
            found.append(drawn - {"background", "robot", "wall_brick"})
        assert found[0] == found[1] and found[0], (one, other)
