"""Drawing: the one function behind data, evaluation and video.

A `Renderer` draws an environment as it is, or any saved state of its task (simstate.py), from a copy of the model of
its own: drawing never disturbs the simulation, and two renderers never share a GL context (gymnasium's do, and corrupt
each other's pictures: Metaworld#448).  Pictures are uint8 (H, W, 3) RGB and upright.

`pretty` is the scene as its authors lit it.  `fast` leaves out what costs time and shows little (milliseconds of CPU
time a picture, drawer-close in software; `robopref bench render` measures the sum):

    what                                            64 px          224 px
    the stock scene                                 130            150
    no shadow map, reflections, multisampling       10             14
    robot meshes merged to 0.4 pixels               3.9            9.5     67,795 faces become 18,000 or 38,000
    floor of 4 quads, not 6,400; round shapes       3.1            8.0     of 16 slices, not 28; boxes of 6 quads
    small pictures drawn twice as large, averaged   4.4            -       half the error against 8 x 8 supersampling

Then what stands still (table, floor, wall, the robot's foot, the sky) is drawn once an episode and laid behind what moves, by
depth: about half of the work at either size, and every pixel stays what it was.  Not where glass or a moving camera is.

Tried and left out: culling geoms outside the view (one of 34 is), no haze or fewer lights (nothing), no skybox (1.5 of
the last 8, but the background changes), simplifying by curvature (no better than by cubes at the same number of faces).
Without its own pass the light that casts the shadows saturates: in `fast` table and wall are 15 % darker, others not.
"""

from __future__ import annotations

import atexit
import copy
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, Self, get_args
from weakref import WeakSet

import gymnasium as gym
import mujoco
import numpy as np

from robopref.configs.errors import RoboprefError, nearest
from robopref.embodied import simstate
from robopref.embodied.gl import LIBRARIES, OFF, advice, choose_gl
from robopref.embodied.parts import BACKGROUND, geoms_of, part_names

Quality = Literal["fast", "pretty"]

DEFAULT_CAMERA = "corner2-zoom"
MOVED = {DEFAULT_CAMERA: ("corner2", (0.75, 0.075, 0.7))}  # a camera of the model, moved to where the literature has it

STILL = int(mujoco.mjtCatBit.mjCAT_STATIC)  # all that hangs on the world without a joint; a reset alone moves it
MOVING = int(mujoco.mjtCatBit.mjCAT_DYNAMIC | mujoco.mjtCatBit.mjCAT_DECOR)
ALL = int(mujoco.mjtCatBit.mjCAT_ALL)

SUPERSAMPLED = 128  # pixels; larger pictures are fill-bound, and four times the pixels would cost four times the time
ROBOT_FACES = 1500  # meshes with more faces are links of the robot, not what the task is about
WORKSPACE = np.array([0.0, 0.6, 0.2])  # m, about where every Meta-World task begins


@dataclass(frozen=True)
class CameraPose:
    """A camera at `pos` (m, world) that looks at `lookat`, upright, with vertical field of view `fovy` (degrees)."""

    pos: tuple[float, float, float]
    lookat: tuple[float, float, float]
    fovy: float = 60.0

    def quaternion(self) -> np.ndarray:
        """(4,) MuJoCo orientation: the camera looks along -z, its y axis is the picture's up."""
        backward = np.subtract(self.pos, self.lookat)
        backward /= np.linalg.norm(backward)
        right = np.cross((0.0, 0.0, 1.0), backward)
        if np.linalg.norm(right) < 1e-6:  # straight down: the robot, at y = 0, is at the lower edge
            right = np.array([1.0, 0.0, 0.0])
        right /= np.linalg.norm(right)
        quaternion = np.empty(4)
        mujoco.mju_mat2Quat(quaternion, np.stack([right, np.cross(backward, right), backward], axis=1).ravel())
        return quaternion


@dataclass(frozen=True)
class Layer:
    """What stands still in an episode, drawn once."""

    static: np.ndarray  # (K,), the episode's
    pixels: np.ndarray  # (scale * H, scale * W, 3) uint8
    depths: np.ndarray  # (scale * H, scale * W) float32


class Renderer:
    """Pictures of one task.  Making one takes 0.6 s: keep one per task, not per episode, and close it."""

    def __init__(
        self,
        env: gym.Env,
        size: int | tuple[int, int] = 64,
        camera: str | CameraPose = DEFAULT_CAMERA,
        quality: Quality = "fast",
    ) -> None:
        """Draw `env` at `size` (height, width) pixels; `RoboprefError` where no GL works or no such camera is."""
        if quality not in get_args(Quality):
            raise RoboprefError(f"Unknown quality {quality!r}: fast or pretty.{nearest(quality, get_args(Quality))}")
        self._context: mujoco.MjrContext | None = None
        self._env = env
        self.camera = camera
        self._layout = simstate.layout(env)
        self.height, self.width = (size, size) if isinstance(size, int) else size
        self._scale = 2 if quality == "fast" and max(self.height, self.width) <= SUPERSAMPLED else 1
        self._rectangle = mujoco.MjrRect(0, 0, self.width * self._scale, self.height * self._scale)

        sawyer: Any = env.unwrapped
        self._model = copy.deepcopy(sawyer.model)
        self._data = mujoco.MjData(self._model)
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._camera.fixedcamid = place_camera(self._model, camera)
        buffer = self._model.vis.global_
        buffer.offheight, buffer.offwidth = self._rectangle.height, self._rectangle.width
        if quality == "fast":
            simplify(self._model, cell=0.4 * pixel_size(self._model, self._camera.fixedcamid, self.height))
        self.part_names = tuple(sorted({*part_names(self._model), BACKGROUND}))
        self._layered = quality == "fast" and can_be_layered(self._model, self._camera.fixedcamid)
        self._still: Layer | None = None
        self._option = mujoco.MjvOption()
        self._scene = mujoco.MjvScene(self._model, maxgeom=1000)
        if quality == "fast":
            self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
            self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        self._gl, self._context = make_contexts(self._model)
        self._context.readDepthMap = mujoco.mjtDepthMap.mjDEPTH_ZEROFAR  # as the buffer has it; 1 - depth is rounded
        _open.add(self)
        _close_at_exit()

    def frame(self) -> np.ndarray:
        """The environment as it is now: uint8 (H, W, 3)."""
        return self.frames(simstate.save_static(self._env), simstate.save_dynamic(self._env)[None])[0]

    def frames(self, static: np.ndarray, dynamics: np.ndarray) -> np.ndarray:
        """States of one episode, static (K,) and dynamics (N, S), as uint8 (N, H, W, 3); `env` stays as it is."""
        pictures = np.empty((len(dynamics), self.height, self.width, 3), np.uint8)
        for drawn, picture in zip(self._draw(static, dynamics, self._layered), pictures, strict=True):
            picture[:] = halve(drawn) if self._scale == 2 else drawn
        return pictures

    def parts(self, static: np.ndarray, dynamics: np.ndarray) -> np.ndarray:
        """What each pixel of `frames` shows (parts.py), as indices into `part_names`: uint8 (N, H, W)."""
        part_of = np.array([self.part_names.index(name) for name in (*part_names(self._model), BACKGROUND)], np.uint8)
        numbered = np.array([mujoco.mjtRndFlag.mjRND_SEGMENT, mujoco.mjtRndFlag.mjRND_IDCOLOR], int)
        try:
            self._scene.flags[numbered] = 1
            # Of the larger picture's pixels one in four: numbers cannot be averaged.
            drawn = [
                geoms_of(d[:: self._scale, :: self._scale], self._scene) for d in self._draw(static, dynamics, layered=False)
            ]
        finally:
            self._scene.flags[numbered] = 0
        return part_of[np.stack(drawn)]

    def _draw(self, static: np.ndarray, dynamics: np.ndarray, layered: bool) -> Iterator[np.ndarray]:
        """Pixels as drawn, upright, (scale * H, scale * W, 3) uint8; each is overwritten by the next.

        layered: what cannot move in an episode is drawn once, and shows wherever nothing that moves is nearer.
        """
        if self._context is None:
            raise RoboprefError("This renderer is closed: make a new one.")
        self._layout.check(static, dynamics)
        simstate.write_model(self._layout, self._model, static)
        self._gl.make_current()
        shape = (self._rectangle.height, self._rectangle.width)
        buffer, depths = np.empty((*shape, 3), np.uint8), np.empty(shape, np.float32)
        for dynamic in dynamics:
            simstate.write_pose(self._layout, self._model, self._data, static, dynamic)
            if not layered:
                self._render(ALL, buffer)
            else:
                if self._still is None or not np.array_equal(self._still.static, static, equal_nan=True):
                    self._still = Layer(static.copy(), np.empty_like(buffer), np.empty_like(depths))
                    self._render(STILL, self._still.pixels, self._still.depths)
                self._render(MOVING, buffer, depths)
                behind = np.repeat(depths <= self._still.depths, 3).reshape(buffer.shape)  # numpy broadcasts it 3 times slower
                np.copyto(buffer, self._still.pixels, where=behind)
            yield buffer[::-1]  # GL's first row is the lowest

    def _render(self, category: int, pixels: np.ndarray, depths: np.ndarray | None = None) -> None:
        """Draw geoms of `category` as they were posed, the sky with those that stand still; depths are 0 far away, 1 nearest."""
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SKYBOX] = category != MOVING
        mujoco.mjv_updateScene(self._model, self._data, self._option, None, self._camera, category, self._scene)
        mujoco.mjr_render(self._rectangle, self._scene, self._context)
        mujoco.mjr_readPixels(pixels, depths, self._rectangle, self._context)

    def close(self) -> None:
        """Free the GL context; EGL would complain about it when Python exits."""
        if self._context is not None:
            self._gl.make_current()
            self._context.free()
            self._gl.free()
            self._context = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_context", None) is not None:
            self.close()


_open: WeakSet[Renderer] = WeakSet()


@cache
def _close_at_exit() -> None:
    """Register after the first context was made: EGL's exit handler came with it and must run later."""
    atexit.register(_close_all)


def _close_all() -> None:
    for renderer in list(_open):
        renderer.close()


def cameras(model: mujoco.MjModel) -> tuple[str, ...]:
    """The camera names that a `Renderer` of this model takes."""
    return (*MOVED, *(model.camera(index).name for index in range(model.ncam)))


def place_camera(model: mujoco.MjModel, camera: str | CameraPose) -> int:
    """Put a camera of `model` where `camera` says, upright, and return its number."""
    if isinstance(camera, CameraPose):
        model.cam_bodyid[0], model.cam_mode[0] = 0, mujoco.mjtCamLight.mjCAMLIGHT_FIXED
        model.cam_pos[0], model.cam_quat[0], model.cam_fovy[0] = camera.pos, camera.quaternion(), camera.fovy
        return 0
    name, position = MOVED.get(camera, (camera, None))
    number = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, name)
    if number < 0:
        known = cameras(model)
        raise RoboprefError(f"No camera {camera!r} here; there are {', '.join(known)}.{nearest(camera, known)}")
    if position is not None:
        model.cam_pos[number] = position
    axes = np.empty(9)
    mujoco.mju_quat2Mat(axes, model.cam_quat[number])
    if model.cam_bodyid[number] == 0 and axes[7] < -1e-6:  # its y axis points down: Meta-World's corner cameras
        upside_down = model.cam_quat[number].copy()
        mujoco.mju_mulQuat(model.cam_quat[number], upside_down, np.array([0.0, 0.0, 0.0, 1.0]))
    return number


def can_be_layered(model: mujoco.MjModel, camera: int) -> bool:
    """Whether what hangs on the world looks the same throughout an episode, and nothing is seen through anything else.

    Not with a camera or a light that moves, nor with glass, which mixes what is behind it: that may be in the other layer.
    """
    fixed = mujoco.mjtCamLight.mjCAMLIGHT_FIXED
    views = (model.cam_bodyid[camera], *model.light_bodyid), (model.cam_mode[camera], *model.light_mode)
    if np.any(views[0]) or any(mode != fixed for mode in views[1]):
        return False
    for kind in ("geom", "site"):
        body, group, material, colour = (getattr(model, f"{kind}_{field}") for field in ("bodyid", "group", "matid", "rgba"))
        opacity = np.minimum(colour[:, 3], np.where(material >= 0, model.mat_rgba[material, 3], 1.0))
        drawn = (opacity > 0) & np.isin(group, np.flatnonzero(getattr(mujoco.MjvOption(), f"{kind}group")))
        if np.any(drawn & ((opacity < 1) | (model.body_mocapid[body] >= 0))):  # a body that is carried has no joint and moves
            return False
    return True


def make_contexts(model: mujoco.MjModel) -> tuple[Any, mujoco.MjrContext]:
    """A GL context of its own and the model's geometry in it; `RoboprefError` says what to install where none works."""
    backend = choose_gl()
    if backend in OFF:
        raise RoboprefError(f"Cannot draw: MUJOCO_GL={backend}. {advice()}")
    try:
        # mujoco.GLContext is of the backend that was set when somebody first imported mujoco, perhaps before us.
        module = importlib.import_module(f"mujoco.{backend if backend in LIBRARIES else 'glfw'}")
        module.GLContext._context = None  # its __del__ asks for it also where an interrupt has ended its __init__
        gl = module.GLContext(model.vis.global_.offwidth, model.vis.global_.offheight)
        try:
            gl.make_current()
            context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50)
        except BaseException:  # an interrupt, too: when Python ends the display has gone before the context
            gl.free()
            raise
    except Exception as error:  # drivers, PyOpenGL, glfw and mujoco fail with exceptions of many kinds
        raise RoboprefError(f"Cannot draw with MUJOCO_GL={backend}: {error} {advice(backend)}") from error
    mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, context)
    return gl, context


def halve(picture: np.ndarray) -> np.ndarray:
    """Mean over 2 x 2 pixels, uint8 (2H, 2W, 3) -> (H, W, 3)."""
    rows = picture[::2].astype(np.uint16) + picture[1::2]
    return (rows[:, ::2] + rows[:, 1::2] + 2) >> 2


def pixel_size(model: mujoco.MjModel, camera: int, height: int) -> float:
    """Metres of the workspace that a pixel shows; 0 for a camera that moves with the hand and may see it from anywhere.

    Of a fixed point, not of the robot as it stands: pictures must not depend on when their renderer was made.
    """
    if model.cam_bodyid[camera] != 0:
        return 0.0
    distance = np.linalg.norm(model.cam_pos[camera] - WORKSPACE)
    return float(2 * distance * np.tan(np.radians(model.cam_fovy[camera]) / 2) / height)


def simplify(model: mujoco.MjModel, cell: float) -> None:
    """Change a model that is only drawn, in place: no more detail than `cell` (m) shows.  Sizes of arrays stay."""
    model.vis.quality.offsamples = 0
    model.vis.quality.shadowsize = 0
    model.vis.quality.numslices, model.vis.quality.numstacks, model.vis.quality.numquads = 16, 8, 1
    planes = model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE
    model.geom_size[planes, 2] = model.geom_size[planes, :2].max(axis=1)  # spacing of the grid that a plane is drawn as
    if cell > 0:
        for mesh in np.flatnonzero(model.mesh_facenum > ROBOT_FACES):
            merge_vertices(model, int(mesh), cell)


def merge_vertices(model: mujoco.MjModel, mesh: int, cell: float) -> None:
    """Cluster vertices: in each cube of side `cell` (m) the one nearest to the mean stands for all of them.

    Faces that collapse or coincide go; corners keep their normals, so that the shading stays as it was.
    """
    start, count = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
    vertices = model.mesh_vert[start : start + count]  # (V, 3)
    cubes, cube = np.unique(packed(np.floor(vertices / cell).astype(np.int64)), return_inverse=True)
    mean = np.stack([np.bincount(cube, axis) for axis in vertices.T], axis=1) / np.bincount(cube)[:, None]
    by_cube = np.lexsort((np.linalg.norm(vertices - mean[cube], axis=1), cube))
    nearest_vertex = by_cube[np.searchsorted(cube[by_cube], np.arange(len(cubes)))]

    start, count = model.mesh_faceadr[mesh], model.mesh_facenum[mesh]
    rows = slice(start, start + count)
    faces = nearest_vertex[cube[model.mesh_face[rows]]]  # (F, 3)
    corners = np.sort(faces, axis=1)
    whole = np.flatnonzero((np.diff(corners, axis=1) > 0).all(axis=1))
    _, first = np.unique(packed(corners[whole].astype(np.int64)), return_index=True)
    kept = whole[np.sort(first)]
    model.mesh_face[start : start + len(kept)] = faces[kept]
    for field in (model.mesh_facenormal, model.mesh_facetexcoord):
        field[start : start + len(kept)] = field[rows][kept]
    model.mesh_facenum[mesh] = len(kept)


def packed(rows: np.ndarray) -> np.ndarray:
    """One number for each row, (N, 3) int64 -> (N,), another for another row: `np.unique` of rows takes ten times as long."""
    rows = rows - rows.min(axis=0, initial=0)
    return (rows[:, 0] * (rows[:, 1].max(initial=0) + 1) + rows[:, 1]) * (rows[:, 2].max(initial=0) + 1) + rows[:, 2]
