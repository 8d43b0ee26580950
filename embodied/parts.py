"""What a pixel shows, by the simulator's own names: what the small backbone learns to tell apart (preference/pretrain.py).

A part is named after its material, `btn_red` or `drawer_beige`, which a scene of another task shares when the same thing stands
in it; after its body where it has none.  All of the robot is one part, table, floor and retaining wall are the background [ours].
"""

from __future__ import annotations

import mujoco
import numpy as np

BACKGROUND, ROBOT = "background", "robot"
ROOM = ("world", "tablelink", "RetainingWall")  # bodies that stand in every scene
ROOM_MATERIALS = ("", "basic_floor", "table_wood", "wall_metal")  # in some tasks the thing itself hangs on the world


def part_names(model: mujoco.MjModel) -> list[str]:
    """The part that each geom of `model` belongs to."""
    names = []
    for geom in range(model.ngeom):
        body = model.geom_bodyid[geom]
        root = model.body(model.body_rootid[body]).name
        material = model.mat(model.geom_matid[geom]).name if model.geom_matid[geom] >= 0 else ""
        if root == "base":
            names.append(ROBOT)
        elif root in ROOM and material in ROOM_MATERIALS:
            names.append(BACKGROUND)
        else:
            names.append(material or model.body(body).name or root)
    return names


def geoms_of(colours: np.ndarray, scene: mujoco.MjvScene) -> np.ndarray:
    """Pixels (H, W, 3) drawn with MuJoCo's segment colours -> number of the model's geom, -1 where there is none; (H, W) int."""
    segments = colours.astype(np.int64) @ np.array([1, 256, 65536]) - 1
    geoms = np.full(scene.ngeom + 1, -1)  # the last entry: no segment
    for drawn in scene.geoms[: scene.ngeom]:
        if drawn.objtype == mujoco.mjtObj.mjOBJ_GEOM and drawn.segid >= 0:
            geoms[drawn.segid] = drawn.objid
    return geoms[segments]
