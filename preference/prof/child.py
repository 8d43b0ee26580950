"""The process in which reward code that a language model wrote is run: `python -I child.py`, nothing but this file and numpy.

The parent (sandbox.py) writes one line of JSON to stdin and hands over the arrays as an open, read-only file, or asks about
rows again and again, which it writes to stdin too.  This process gives up all that it does not need, files, memory, time, system
calls, then runs the code, looks whether what it says of a row depends on that row alone, and writes one line of JSON and the raw
numbers to stdout.  It trusts the code with nothing; what it says of itself the parent does not trust either.  It ends with its
parent, however that ends: the parent alone holds the other end of a pipe.

The lists of allowed names are here because they are enforced twice: in the tree (code.py), and by giving the code nothing else.
"""

from __future__ import annotations

import sys

OF_NUMPY = """
abs absolute add all allclose amax amin any arange arccos arcsin arctan arctan2 argmax argmin around array asarray atleast_1d
atleast_2d average bool_ broadcast_to cbrt ceil clip column_stack concatenate copy copysign cos cosh cross cumsum deg2rad degrees
diff divide dot e empty_like equal exp exp2 expand_dims expm1 fabs float32 float64 floor fmax fmin full full_like greater
greater_equal heaviside hstack hypot inf int32 int64 isclose isfinite isinf isnan less less_equal linalg.norm log log10 log1p log2
logaddexp logical_and logical_not logical_or logical_xor matmul max maximum mean median min minimum mod multiply nan nan_to_num
ndarray negative newaxis not_equal ones ones_like pi power prod rad2deg radians ravel remainder repeat reshape rint round select
sign sin sinh split sqrt square squeeze stack std subtract sum swapaxes tan tanh tile transpose true_divide var vstack where zeros
zeros_like
"""
OF_MATH = """
acos asin atan atan2 ceil cos cosh degrees e exp fabs floor hypot inf isfinite log log10 pi pow radians sin sinh sqrt tan tanh tau
"""
OF_PYTHON = "abs bool float int len max min range round sum True False None"
FUNCTIONS, MATH, PLAIN = (frozenset(names.split()) for names in (OF_NUMPY, OF_MATH, OF_PYTHON))
ROWS = 64  # of the look whether rows depend on each other

# System calls that numpy needs once everything is open: memory, locks, clocks, reading and writing what is open, the end; and
# a timer of the process itself, for each question.
CALLS = {
    "x86_64": (
        0xC000003E,
        (0, 1, 3, 9, 10, 11, 12, 13, 14, 15, 24, 25, 28, 35, 38, 39, 60, 96, 98, 131, 186, 202, 228, 230, 231, 234, 318, 334),
    ),
    "aarch64": (
        0xC00000B7,
        (57, 63, 64, 93, 94, 96, 98, 101, 103, 113, 115, 124, 131, 132, 134, 135, 139,
         165, 169, 172, 178, 214, 215, 216, 222, 226, 233, 278),
    ),
}  # fmt: skip


def main() -> None:
    """Answer the request on stdin.  The first argument is the lifeline."""
    import os

    end_with_parent(int(sys.argv[1]))

    os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"  # before numpy starts threads, which it may not
    import json
    import math
    import mmap
    import random
    import signal
    import unicodedata  # noqa: F401 (Python imports it when it compiles the first name that is not ASCII)

    import numpy as np

    request, arrays, first = json.loads(sys.stdin.buffer.readline()), [], 0
    if "fd" in request:
        held = mmap.mmap(request["fd"], 0, access=mmap.ACCESS_READ)
        os.close(request["fd"])
        for shape in request["shapes"]:
            array = np.frombuffer(held, np.float32, math.prod(shape), first).reshape(shape)
            arrays.append(array)
            first += array.nbytes
    for name in ("sum", "mean", "std", "var", "max", "min", "prod", "any", "all", "clip"):  # numpy imports some when first called
        getattr(np.zeros(1), name)(*([0, 1] if name == "clip" else []))
    np.median(np.zeros((2, 2)), axis=1)
    layers = limit(request["memory"], request["seconds"])

    def answer(work, **known):  # type: ignore[no-untyped-def]
        """Do `work`, tell the parent what it gave, and return it."""
        values, result = b"", None
        try:
            with np.errstate(all="ignore"):
                result = work()
                if isinstance(result, tuple):
                    known["row"], values = result[1], result[0].tobytes()
        except MemoryError:
            known["error"] = "it needs more memory than it is given"
        except BaseException as error:  # whatever it is, it is the code's
            known["error"] = f"{type(error).__name__}: {str(error)[:300]}"
        sys.stdout.buffer.write(json.dumps(known).encode() + b"\n" + values)
        sys.stdout.buffer.flush()
        return result

    def judged(call, arrays):  # type: ignore[no-untyped-def]
        """What the code says of all rows, and a row whose value depends on others."""
        some = random.Random(0).sample(range(len(arrays[0])), max(1, min(ROWS, len(arrays[0]) - 1)))  # in no order
        result = said(call, arrays, np)
        return result, dependence(call, arrays, result, np.array(some), np)

    def compile_it():  # type: ignore[no-untyped-def]
        return compiled(request["source"], request["columns"], np, math)

    if arrays:
        answer(lambda: judged(compile_it(), arrays), layers=layers)
        os._exit(0)
    signal.setitimer(signal.ITIMER_PROF, request["each"])
    call, widths = answer(compile_it, layers=layers), request["widths"]
    while call is not None and len(head := sys.stdin.buffer.read(8)) == 8:
        count = int.from_bytes(head, "little")
        arrays = [np.frombuffer(sys.stdin.buffer.read(4 * count * width), np.float32).reshape(count, width) for width in widths]
        signal.setitimer(signal.ITIMER_PROF, request["each"])  # the parent watches the clock, unless somebody has stopped it
        answer(lambda arrays=arrays: judged(call, arrays))
    os._exit(0)


def end_with_parent(lifeline):  # type: ignore[no-untyped-def]
    """Let the kernel kill this process when the other end of the pipe `lifeline` is closed, as it is when the parent ends.

    PR_SET_PDEATHSIG would look at the thread that started this process, and that may end before.
    """
    import fcntl
    import os
    import select
    import signal

    if sys.platform == "linux":
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
        watch = select.poll()
        watch.register(lifeline, 0)
        if watch.poll(0):  # it has ended already
            os._exit(1)


def compiled(source, columns, np, math):  # type: ignore[no-untyped-def]
    """The function `reward`, in a world of the allowed names alone."""
    import builtins
    import importlib
    from types import SimpleNamespace

    tops = {name: getattr(np, name) for name in FUNCTIONS if "." not in name}
    few_np = SimpleNamespace(**tops, linalg=SimpleNamespace(norm=np.linalg.norm))
    few_math = SimpleNamespace(**{name: getattr(math, name) for name in MATH})
    modules = {"numpy": few_np, "math": few_math}

    def known(name, *_):  # type: ignore[no-untyped-def]
        if name.startswith("numpy._core."):  # methods of arrays ask for it by this way
            return importlib.import_module(name)
        return modules[name]

    plain = {name: getattr(builtins, name) for name in PLAIN}
    world = {"__builtins__": plain | {"__import__": known}, "__name__": "reward", "np": few_np, "math": few_math, **columns}
    exec(compile(source.removeprefix("\ufeff"), "reward.py", "exec"), world)
    return world["reward"]


def said(call, arrays, np):  # type: ignore[no-untyped-def]
    """(N,) float64 of the given rows; ValueError where it is anything else."""
    rows = len(arrays[0])
    result = call(*arrays)
    if not isinstance(result, np.ndarray | np.generic | float | int):
        raise TypeError(f"it returns a {type(result).__name__}, not an array of {rows} numbers")
    result = np.asarray(result)
    if result.shape == (rows, 1):
        result = result[:, 0]
    if result.shape != (rows,):
        raise ValueError(f"it returns an array of shape {result.shape}, not ({rows},)")
    if result.dtype.kind not in "fiub":
        raise TypeError(f"it returns an array of {result.dtype}, not of numbers")
    return np.array(result, np.float64)


def dependence(call, arrays, result, chosen, np):  # type: ignore[no-untyped-def]
    """Number of a row whose value changes when other rows are there, or None: a reward is of one transition."""
    for some in (chosen, chosen[:1]):
        alone, expected = said(call, [array[some] for array in arrays], np), result[some]
        same = np.isclose(alone, expected, rtol=1e-4, atol=1e-5, equal_nan=True)
        if not same.all():
            return int(some[np.flatnonzero(~same)[0]])
    return None


def limit(memory, seconds):  # type: ignore[no-untyped-def]
    """Give up what is not needed; names of the layers that hold."""
    import gc
    import resource

    gc.disable()  # nothing of ours is to be looked at while the code runs
    try:
        with open("/proc/self/statm") as file:
            now = int(file.read().split()[0]) * resource.getpagesize()
    except FileNotFoundError:  # not Linux
        now = 2**32
    most = {
        resource.RLIMIT_AS: now + memory,
        resource.RLIMIT_CPU: seconds or resource.RLIM_INFINITY,  # who is asked again and again is watched by the parent
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_NOFILE: 3,
    }
    for kind, value in most.items():
        resource.setrlimit(kind, (value, value))
    return ["limits", *(["system calls"] if forbid_calls() else [])]


def forbid_calls():  # type: ignore[no-untyped-def]
    """Let the kernel refuse every system call that is not in CALLS, to this process for good; whether it does."""
    import ctypes
    import platform
    import struct

    if platform.machine() not in CALLS or sys.platform != "linux":
        return False
    arch, numbers = CALLS[platform.machine()]
    refuse, allow, kill = 0x00050001, 0x7FFF0000, 0x80000000  # EPERM; as it asked; end the process
    load, equal, end = 0x20, 0x15, 0x06
    program = [(load, 0, 0, 4), (equal, 1, 0, arch), (end, 0, 0, kill), (load, 0, 0, 0)]
    count = len(numbers)
    program += [(equal, count - number, 0, call) for number, call in enumerate(numbers)]
    program += [(end, 0, 0, refuse), (end, 0, 0, allow)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("lines", ctypes.c_void_p)]

    asked = Program(len(program), ctypes.cast(code, ctypes.c_void_p))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    no_new_privileges, seccomp, by_filter = 38, 22, 2
    prctl(no_new_privileges, 1, 0, 0, 0)
    return prctl(seccomp, by_filter, ctypes.byref(asked), 0, 0) == 0


if __name__ == "__main__":
    main()
