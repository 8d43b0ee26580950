"""Pictures of dmc/... and mujoco/... while an episode runs; Meta-World's are drawn afterwards, from states (render.py)."""

from __future__ import annotations

from typing import Any, Self

import mujoco
import numpy as np

from robopref.configs.errors import RoboprefError, nearest
from robopref.embodied.control import ControlEnv
from robopref.embodied.gl import OFF, advice, choose_gl


class Camera:
    """One environment, drawn as it is with shadows; `camera` is one of the model's, without a name its first."""

    def __init__(self, env: ControlEnv, size: int, camera: str | None = None) -> None:
        backend = choose_gl()
        if backend in OFF:
            raise RoboprefError(f"Cannot draw: MUJOCO_GL={backend}. {advice()}")
        self._env = env
        model = self._model()
        names = [model.camera(number).name for number in range(model.ncam)]
        if camera is not None and camera not in names:
            raise RoboprefError(f"{env.env_id} has no camera {camera!r}: {', '.join(names) or 'none'}.{nearest(camera, names)}")
        self._camera: int | str = camera if camera is not None else 0 if names else -1  # -1: free, at the scene's centre
        buffer = model.vis.global_
        buffer.offheight, buffer.offwidth = max(buffer.offheight, size), max(buffer.offwidth, size)
        try:
            self._renderer = mujoco.Renderer(model, size, size)
        except Exception as error:  # drivers, PyOpenGL and mujoco fail with exceptions of many kinds
            raise RoboprefError(f"Cannot draw with MUJOCO_GL={backend}: {error} {advice(backend)}") from error

    def picture(self) -> np.ndarray:
        """The environment now: uint8 (H, W, 3), upright."""
        self._renderer.update_scene(self._data(), self._camera)
        return self._renderer.render().copy()

    def _model(self) -> mujoco.MjModel:
        world: Any = self._env.unwrapped
        return world.physics.model.ptr if hasattr(world, "physics") else world.model

    def _data(self) -> mujoco.MjData:
        world: Any = self._env.unwrapped
        return world.physics.data.ptr if hasattr(world, "physics") else world.data

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._renderer.close()
