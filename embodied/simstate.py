"""Simulator states, saved and restored exactly: no pixel need be stored, any moment can be drawn or continued.

Comes after envs.py and before rendering.  A state is two float64 vectors: `dynamic` (S,) changes with every step
(physics, previous observation, step count; 61-83 numbers), `static` (K,) is fixed by the reset (moved bodies and sites,
targets, initial positions; 151-188 numbers).  S and K depend on the task alone.  Meta-World's own get_env_state omits
the mocap body that drives the hand; after ours the same actions give the same observations and rewards, bit for bit.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import gymnasium as gym
import mujoco
import numpy as np

from robopref.configs.errors import RoboprefError

FORMAT = 1  # part of the fingerprint: raise it when the meaning of the vectors changes

_bit = mujoco.mjtState
# mjSTATE_INTEGRATION without applied forces (zero in every task, and six numbers a body), user data and plugins (none).
PHYSICS = int(
    _bit.mjSTATE_TIME | _bit.mjSTATE_QPOS | _bit.mjSTATE_QVEL | _bit.mjSTATE_ACT | _bit.mjSTATE_WARMSTART
    | _bit.mjSTATE_CTRL | _bit.mjSTATE_EQ_ACTIVE | _bit.mjSTATE_MOCAP_POS | _bit.mjSTATE_MOCAP_QUAT
)  # fmt: skip

MODEL_FIELDS = ("body_pos", "site_pos")  # all that resets change in any of the 50 models (a test looks)
STEP_ATTRIBUTES = frozenset(
    {"_prev_obs", "curr_path_length", "_target_to_obj_init", "pickCompleted", "placeCompleted", "reachCompleted"}
)
# Choices of whoever made the environment, or dead: a state must not carry them into another environment.
SETTINGS = frozenset(
    {"action_scale", "action_rot_scale", "hand_low", "hand_high", "mocap_low", "mocap_high", "seeded_rand_vec",
     "_freeze_rand_vec", "num_resets", "current_seed", "width", "height", "_partially_observable", "frame_skip",
     "_did_see_sim_exception", "_obs_obj_max_len", "_set_task_called", "_last_stable_obs", "_np_random_seed",
     "init_qpos", "init_qvel", "discrete_goal_space", "active_discrete_goal", "render_mode", "camera_name", "camera_id"}
)  # fmt: skip


@dataclass(frozen=True)
class SimState:
    """One moment of one environment; states of an episode share `static`."""

    static: np.ndarray  # (K,) float64, its first entry is the layout's fingerprint
    dynamic: np.ndarray  # (S,) float64


class Layout:
    """Where the numbers of one task's states lie; made from an environment that has been reset."""

    def __init__(self, env: gym.Env) -> None:
        sawyer: Any = env.unwrapped
        self.task: str = type(sawyer).__name__
        self.physics_size: int = mujoco.mj_stateSize(sawyer.model, PHYSICS)
        names = sorted(name for name, value in vars(sawyer).items() if name not in SETTINGS and _is_plain(value))
        shapes = {name: np.shape(_numbers(getattr(sawyer, name))) for name in names}
        self.step_shapes = {name: shapes[name] for name in names if name in STEP_ATTRIBUTES}
        self.reset_shapes = {name: shapes[name] for name in names if name not in STEP_ATTRIBUTES}
        self.model_shapes = {name: getattr(sawyer.model, name).shape for name in MODEL_FIELDS}
        self.site_ids = tuple(int(sawyer.model.site(name).id) for name, _ in sawyer._target_site_config)
        self.dynamic_size = self.physics_size + _total(self.step_shapes) + 1  # 1: the wrapper's "succeeded"
        self.static_size = 1 + _total(self.model_shapes) + 3 * len(self.site_ids) + _total(self.reset_shapes)
        shape_of_all = (self.step_shapes, self.reset_shapes, self.model_shapes, self.site_ids)
        self.fingerprint = float(zlib.crc32(repr((FORMAT, self.task, self.physics_size, shape_of_all)).encode()))

    def check(self, static: np.ndarray, dynamics: np.ndarray) -> None:
        """Raise `RoboprefError` unless static (K,) and dynamics (..., S) are of this layout."""
        found, expected = (static.shape, dynamics.shape[-1:]), ((self.static_size,), (self.dynamic_size,))
        if found != expected or static[0] != self.fingerprint:
            raise RoboprefError(
                f"These simulator states {found} do not belong to {self.task}: {expected}, format {FORMAT}. "
                "They come from another task or another version of metaworld or robopref: collect the episodes again."
            )
        if not np.isfinite(dynamics[..., : self.physics_size]).all():
            raise RoboprefError(f"NaN or infinity in the simulator states of {self.task}: collect the episodes again.")


_layouts: WeakKeyDictionary[gym.Env, Layout] = WeakKeyDictionary()


def layout(env: gym.Env) -> Layout:
    """The layout of `env`'s task, found once; an environment that was never reset is reset, for it lacks attributes."""
    sawyer: Any = env.unwrapped
    if sawyer not in _layouts:
        if "init_tcp" not in vars(sawyer):
            env.reset()
        _layouts[sawyer] = Layout(env)
    return _layouts[sawyer]


def save(env: gym.Env) -> SimState:
    """The present state of `env`; the random stream of later resets is not part of it."""
    return SimState(save_static(env), save_dynamic(env))


def save_static(env: gym.Env) -> np.ndarray:
    """(K,) float64: what the last reset fixed.  Once per episode is enough."""
    spec = layout(env)
    sawyer: Any = env.unwrapped
    fields = [getattr(sawyer.model, name).ravel() for name in MODEL_FIELDS]
    sites = [np.ravel(position)[:3] for _, position in sawyer._target_site_config]
    attributes = [np.ravel(_numbers(getattr(sawyer, name))) for name in spec.reset_shapes]
    return np.concatenate([[spec.fingerprint], *fields, *sites, *attributes])


def save_dynamic(env: gym.Env) -> np.ndarray:
    """(S,) float64: what changes with every step; 15 us."""
    spec = layout(env)
    sawyer: Any = env.unwrapped
    vector = np.empty(spec.dynamic_size)
    mujoco.mj_getState(sawyer.model, sawyer.data, vector[: spec.physics_size], PHYSICS)
    at = spec.physics_size
    for name, shape in spec.step_shapes.items():
        size = int(np.prod(shape))
        vector[at : at + size] = np.ravel(_numbers(getattr(sawyer, name)))
        at += size
    vector[-1] = any(layer._succeeded for layer in _counting_layers(env))
    return vector


def restore(env: gym.Env, state: SimState) -> None:
    """Put `env` (any seed, reset or not) into `state`: the same actions then give the same observations and rewards."""
    spec = layout(env)
    sawyer: Any = env.unwrapped
    spec.check(state.static, state.dynamic)
    _write_attributes(sawyer, spec.reset_shapes, state.static[spec.static_size - _total(spec.reset_shapes) :])
    _write_attributes(sawyer, spec.step_shapes, state.dynamic[spec.physics_size : -1])
    for layer in _counting_layers(env):
        layer._succeeded = bool(state.dynamic[-1])
    sawyer.data.xfrc_applied[:] = 0.0
    sawyer.data.qfrc_applied[:] = 0.0
    write_model(spec, sawyer.model, state.static)
    physics = state.dynamic[: spec.physics_size]
    mujoco.mj_setState(sawyer.model, sawyer.data, physics, PHYSICS)
    mujoco.mj_forward(sawyer.model, sawyer.data)
    mujoco.mj_setState(sawyer.model, sawyer.data, physics, PHYSICS)  # mj_forward has replaced the solver's warm start
    _write_sites(spec, sawyer.data, state.static)


def pose(env: gym.Env, static: np.ndarray, dynamic: np.ndarray) -> None:
    """Move bodies, cameras, lights and targets of `env` to a state, for looking only: a fifth of the cost of `restore`.

    Velocities, contacts and Python attributes stay behind, so the environment must be reset or restored before a step.
    """
    spec = layout(env)
    sawyer: Any = env.unwrapped
    spec.check(static, dynamic)
    write_model(spec, sawyer.model, static)
    write_pose(spec, sawyer.model, sawyer.data, static, dynamic)


def write_model(spec: Layout, model: mujoco.MjModel, static: np.ndarray) -> None:
    """Write the model fields of static (K,) into `model`, the environment's own or a copy."""
    at = 1
    for name, shape in spec.model_shapes.items():
        size = int(np.prod(shape))
        getattr(model, name)[:] = static[at : at + size].reshape(shape)
        at += size


def write_pose(spec: Layout, model: mujoco.MjModel, data: mujoco.MjData, static: np.ndarray, dynamic: np.ndarray) -> None:
    """Write dynamic (S,) into `data` and compute where everything is; `write_model` comes first."""
    mujoco.mj_setState(model, data, dynamic[: spec.physics_size], PHYSICS)
    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)
    mujoco.mj_camlight(model, data)
    _write_sites(spec, data, static)


def _write_sites(spec: Layout, data: mujoco.MjData, static: np.ndarray) -> None:
    """Put the targets where the task means them: kinematics has them where the model file has, up to 10 m away."""
    at = 1 + _total(spec.model_shapes)
    for number, site in enumerate(spec.site_ids):
        data.site_xpos[site] = static[at + 3 * number : at + 3 * number + 3]


def _write_attributes(sawyer: Any, shapes: dict[str, tuple[int, ...]], numbers: np.ndarray) -> None:
    at = 0
    for name, shape in shapes.items():
        size = int(np.prod(shape))
        values, at, present = numbers[at : at + size].reshape(shape), at + size, getattr(sawyer, name)
        if shape:
            new: Any = values.copy() if isinstance(present, np.ndarray) else list(values)
        elif np.isnan(values):
            new = None
        else:
            new = type(present)(values) if present is not None else float(values)
        setattr(sawyer, name, new)


def _is_plain(value: object) -> bool:
    """Numbers and arrays that the environment owns; a view into MjData follows the physics by itself."""
    if isinstance(value, np.ndarray):
        owner = value
        while isinstance(owner.base, np.ndarray):
            owner = owner.base
        return owner.base is None and np.issubdtype(value.dtype, np.number)
    if isinstance(value, list):
        return bool(value) and all(isinstance(item, int | float | np.number) for item in value)
    return value is None or isinstance(value, bool | int | float | np.number | np.bool_)


def _numbers(value: Any) -> Any:
    return np.nan if value is None else value


def _total(shapes: dict[str, tuple[int, ...]]) -> int:
    return sum(int(np.prod(shape)) for shape in shapes.values())


def _counting_layers(env: gym.Env) -> list[Any]:
    """The wrappers of ours that remember a success (envs.py); none for a bare environment."""
    layers = []
    while env is not env.unwrapped:
        if "_succeeded" in vars(env):
            layers.append(env)
        env = env.env  # type: ignore[attr-defined]
    return layers
