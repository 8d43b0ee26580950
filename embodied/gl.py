"""Choosing how MuJoCo draws, before mujoco is first imported; everything that does not draw works without any GL.

Also tells whether this process has drawn: from then on it must not be forked.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
from pathlib import Path

from robopref.configs.errors import RoboprefError, nearest

# backend -> what PyOpenGL loads for it: of each group of shared libraries one.  libEGL alone, all that libegl1 brings, is
# not enough: mujoco's import then ends in a ctypes error.
LIBRARIES = {"egl": (("libEGL.so",), ("libOpenGL.so", "libGL.so")), "osmesa": (("libOSMesa.so",),)}
PACKAGES = {"egl": "libegl1 libopengl0 libgl1-mesa-dri", "osmesa": "libosmesa6"}
WINDOWED = ("glfw", "glx", "enable", "enabled", "on", "true", "1")  # what it takes for the window system
OFF = ("disable", "disabled", "off", "false", "0")  # what mujoco takes for "never draw"


def choose_gl() -> str:
    """Set MUJOCO_GL where the user has not, and return it: egl on a GPU, else osmesa, else software egl, else disable.

    OSMesa and EGL in software have one rasteriser, llvmpipe, and cost the same (11.2 and 10.9 ms of CPU time a picture
    at 64 px, 16.8 and 16.2 at 224 px, whatever LP_NUM_THREADS says); OSMesa comes first because it needs no driver
    beside it.  A backend that the user asked for without its library raises `RoboprefError`, because `import mujoco`
    would fail obscurely.
    """
    asked = os.environ.get("MUJOCO_GL", "").lower().strip()
    if asked and asked not in (*LIBRARIES, *WINDOWED, *OFF):
        raise RoboprefError(f"MUJOCO_GL={asked} is not egl, osmesa, glfw or disable.{nearest(asked, LIBRARIES)}")
    if asked in LIBRARIES and not is_installed(asked):
        raise RoboprefError(f"MUJOCO_GL={asked}, but a library that it needs is not installed. {advice(asked)}")
    if not asked:
        order = ("egl", "osmesa") if has_gpu() else ("osmesa", "egl")
        asked = next((name for name in order if is_installed(name)), OFF[0])
        os.environ["MUJOCO_GL"] = asked
    if asked in LIBRARIES:
        load_triton_first()
    return asked


def load_triton_first() -> None:
    """Bind libtriton to its own LLVM before Mesa puts another into the global symbol table.

    In the other order torch, which imports triton with its first optimiser, dies of a segmentation fault once anything
    has been drawn; so with EGL and OSMesa alike.  Loading the library takes 0.04 s, importing triton 0.3 s.
    """
    triton = importlib.util.find_spec("triton")
    if triton is not None and triton.origin is not None:
        for library in (Path(triton.origin).parent / "_C").glob("libtriton*.so"):
            ctypes.CDLL(str(library))


def has_drawn() -> bool:
    """Whether a GL driver may run in this process: a fork has its locks but not its threads, and waits for them for ever.

    Whoever made the context: EGL keeps its display, Mesa's software rasteriser its threads (so with OSMesa), and the window
    system's library begins its work when it is imported.
    """
    egl = getattr(sys.modules.get("mujoco.egl"), "EGL_DISPLAY", None)
    return egl is not None or "mujoco.glfw" in sys.modules or any(name.startswith("llvmpipe") for name in thread_names())


def thread_names() -> list[str]:
    """Of all threads of this process, also those that Python did not start; none where the system does not list them."""
    names = []
    for path in Path("/proc/self/task").glob("*/comm"):
        try:
            names.append(path.read_text(encoding="utf-8").strip())
        except OSError:  # it has ended in between
            continue
    return names


def has_gpu() -> bool:
    """Whether a device that EGL can draw on is there: NVIDIA's own nodes or a DRI render node."""
    return any(Path("/dev").glob("nvidia[0-9]*")) or any(Path("/dev/dri").glob("renderD*"))


def is_installed(backend: str) -> bool:
    """Whether the libraries of "egl" or "osmesa" are there, under one of the names that PyOpenGL tries."""
    return all(any(_loads(stem) for stem in group) for group in LIBRARIES[backend])


def _loads(stem: str) -> bool:
    for name in (stem, *(f"{stem}.{number}" for number in range(9, -1, -1))):
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return True
    return False


def advice(backend: str = "osmesa") -> str:
    """The way out when drawing is impossible."""
    first = backend if backend in LIBRARIES else "osmesa"
    other = "egl" if first == "osmesa" else "osmesa"
    return (
        f"Install the driver with `apt-get install {PACKAGES[first]}`, or install {PACKAGES[other]} and set "
        f"MUJOCO_GL={other}; leave MUJOCO_GL unset to let robopref choose."
    )
