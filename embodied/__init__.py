"""The world: tasks, environments, simulator states, rendering, rollouts, evaluation and video."""

from robopref.embodied.gl import choose_gl

# mujoco reads MUJOCO_GL once, when it is first imported; every module of this package imports mujoco after this line.
choose_gl()
