"""The process in which reward code that a language model wrote is run: `python -I child.py`, nothing but this file and numpy.

It talks with the parent (sandbox.py) by lines of JSON on stdin and stdout, and raw numbers behind them.  The parent says how much
may be used, and hands over the arrays as an open, read-only file, or asks about rows again and again, which it writes to stdin
too.  This process gives up all that it does not need, files, memory, time, system calls, and says what holds, in an answer that
bears the parent's nonce.  Only then does it get the code.  It runs the code and looks whether what that says of a row depends on
the row alone.  It trusts the code with nothing; what it says of the code the parent does not trust either.  It ends with its
parent, however that ends: the parent alone holds the other end of a pipe, and the kernel is asked for a signal as well.
"""

from __future__ import annotations

import sys

ROWS = 64  # of the first look whether rows depend on each other
MANY_ROWS = 4096  # of the second, of which code can know neither number nor rows: at most so many
COMPANY = 8  # rows that are none of those asked about, beside few
BEHIND = 2**14  # rows behind the expert's, its noisy copies: at most so many
ROUNDING = 1e-6  # of a value and of their median: what matrix products of float32 differ by when they have other rows
LISTED = "<listed>"  # a name that no code can write
MOST_REPEATED = 10**8  # numbers that np.repeat gives; it adds counts without looking whether the sum fits, and writes beyond

# System calls that numpy needs once everything is open: memory, locks, clocks, reading and writing what is open, the end; and
# a timer of the process itself, for each question.
CALLS = {
    "x86_64": (
        0xC000003E,
        (0, 1, 3, 9, 10, 11, 12, 13, 14, 15, 24, 25, 28, 35, 38, 39, 60, 96, 98, 131, 186, 202, 228, 230, 231, 318, 334),
    ),
    "aarch64": (
        0xC00000B7,
        (57, 63, 64, 93, 94, 96, 98, 101, 103, 113, 115, 124, 132, 134, 135, 139,
         165, 169, 172, 178, 214, 215, 216, 222, 226, 233, 278),
    ),
}  # fmt: skip


def main() -> None:
    """Answer the requests on stdin.  The first argument is the lifeline."""
    import os

    end_with_parent(int(sys.argv[1]))

    os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"  # before numpy starts threads, which it may not
    import ast
    import functools
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
    compile(ast.parse("1"), "", "exec")
    secret = random.Random(int.from_bytes(os.urandom(16), "little"))

    def tell(known, values=b""):  # type: ignore[no-untyped-def]
        sys.stdout.buffer.write(json.dumps(known).encode() + b"\n" + values)
        sys.stdout.buffer.flush()

    def answer(work):  # type: ignore[no-untyped-def]
        """Do `work`, tell the parent what it gave, and return it."""
        known, values, result = {}, b"", None
        try:
            with np.errstate(all="ignore"):
                result = work()
                if isinstance(result, tuple):
                    known["row"], values = result[1], result[0].tobytes()
        except MemoryError:
            known["error"] = "it needs more memory than it is given"
        except BaseException as error:  # whatever it is, it is the code's
            known["error"] = f"{type(error).__name__}: {str(error)[:300]}"
            if "read-only" in known["error"]:
                known["error"] += " (change a copy, as in obs[:, 0].copy())"
        tell(known, values)
        return result

    @functools.cache
    def strangers(width):  # type: ignore[no-untyped-def]
        """Numbers (ROWS + COMPANY, width) that nobody knows."""
        return np.array([[secret.gauss(0, 1) for _ in range(width)] for _ in range(ROWS + COMPANY)], np.float32)

    def judged(call, arrays, always=(0, 0)):  # type: ignore[no-untyped-def]
        """What the code says of all rows, and a row whose value depends on others."""
        result = said(call, arrays, np)
        drawn = draws(len(result), always, random.Random(0), secret)
        if len(result) <= ROWS:  # then others are made up beside them, which is quicker than to look often
            place = secret.randrange(ROWS)
            near = [array[:1] + strangers(array.shape[1])[place : place + COMPANY] for array in arrays]
            arrays = [np.concatenate(parts) for parts in zip(arrays, near)]  # noqa: B905 (as many)
            drawn = in_company(len(result), secret)
        return result, dependence(call, arrays, result, drawn, np)

    tell({"nonce": request["nonce"], "layers": limit(request["memory"], request["cpu"])})
    code = json.loads(sys.stdin.buffer.readline())

    def compile_it():  # type: ignore[no-untyped-def]
        return compiled(code["source"], code["columns"], request["names"], np, math)

    if arrays:
        answer(lambda: judged(compile_it(), arrays, code["always"]))
        os._exit(0)
    signal.setitimer(signal.ITIMER_PROF, request["each"])
    call, widths = answer(compile_it), request["widths"]
    while call is not None and len(head := sys.stdin.buffer.read(8)) == 8:
        count = int.from_bytes(head, "little")
        arrays = [np.frombuffer(sys.stdin.buffer.read(4 * count * width), np.float32).reshape(count, width) for width in widths]
        signal.setitimer(signal.ITIMER_PROF, request["each"])  # the parent watches the clock, unless somebody has stopped it
        answer(lambda arrays=arrays: judged(call, arrays))
    os._exit(0)


def end_with_parent(lifeline):  # type: ignore[no-untyped-def]
    """Let the kernel kill this process when the other end of the pipe `lifeline` is closed, as it is when the parent ends.

    PR_SET_PDEATHSIG, beside it because code cannot take it back, looks at the thread that started this process: the parent uses
    one that lasts.
    """
    import ctypes
    import fcntl
    import os
    import select
    import signal

    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
        watch = select.poll()
        watch.register(lifeline, 0)
        if watch.poll(0):  # it has ended already
            os._exit(1)


def compiled(source, columns, names, np, math):  # type: ignore[no-untyped-def]
    """The function `reward`, without annotations, in a world of the allowed names alone.

    names: of numpy, math and Python.  Nothing in this world keeps anything from one call to the next.
    """
    import ast
    import builtins
    import importlib

    def sealed(name, parts):  # type: ignore[no-untyped-def]
        """A module of these parts; without a place to write to."""
        return type(name, (), {"__slots__": (), **{key: staticmethod(part) for key, part in parts.items()}})()

    def numbers_only(function):  # type: ignore[no-untyped-def]
        """Arrays of objects are refused: their parts are no numbers."""

        def call(*arguments, **words):  # type: ignore[no-untyped-def]
            result = function(*arguments, **words)
            if getattr(getattr(result, "dtype", None), "kind", "") == "O":
                raise TypeError("an array of objects, not of numbers")
            return result

        return function if isinstance(function, type) or not callable(function) else call

    def repeat(values, counts, *axis, **words):  # type: ignore[no-untyped-def]
        """np.repeat, where it does not overflow."""
        counts = np.asarray(counts)
        if counts.astype(float).sum() * (np.size(values) if counts.size == 1 else 1) > MOST_REPEATED:
            raise MemoryError
        return np.repeat(values, counts, *axis, **words)

    def listed(values):  # type: ignore[no-untyped-def]
        """The same list or tuple, if it holds numbers and arrays; of other things an array would be one of objects."""
        for value in values:
            if value is None or value is ... or (type(value) is int and not -(2**63) <= value < 2**64):
                raise TypeError("a list may hold numbers of 64 bits and arrays, nothing else")
        return values

    tops = {name: numbers_only(getattr(np, name)) for name in names["numpy"] if "." not in name}
    few_np = sealed("numpy", tops | {"linalg": sealed("numpy.linalg", {"norm": numbers_only(np.linalg.norm)})})
    tops["repeat"] = numbers_only(repeat)
    few_math = sealed("math", {name: getattr(math, name) for name in names["math"]})
    modules = {"numpy": few_np, "math": few_math}

    def known(name, *_):  # type: ignore[no-untyped-def]
        if name.startswith("numpy._core."):  # methods of arrays ask for it by this way
            return importlib.import_module(name)
        return modules[name]

    plain = {name: getattr(builtins, name) for name in names["plain"]}
    world = {"__builtins__": plain | {"__import__": known}, "__name__": "reward", "np": few_np, "math": few_math, **columns}
    world[LISTED] = listed
    tree = ast.parse(source.removeprefix("\ufeff"))
    tree.body = [node for node in tree.body if not isinstance(node, ast.ImportFrom)]  # of __future__, about annotations
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        elif isinstance(node, ast.arg):
            node.annotation = None
        for name, value in ast.iter_fields(node):
            if not (isinstance(node, ast.Subscript) and name == "slice"):
                new = [watched(part, ast) for part in value] if isinstance(value, list) else watched(value, ast)
                setattr(node, name, new)
        for block in (getattr(node, name, None) for name in ("body", "orelse")):
            if isinstance(block, list):
                block[:] = [unannotated(part, ast) if isinstance(part, ast.AnnAssign) else part for part in block]
    exec(compile(tree, "reward.py", "exec"), world)
    return world["reward"]


def watched(node, ast):  # type: ignore[no-untyped-def]
    """A list or tuple that is written in the code becomes a call that looks at what it holds; anything else stays."""
    if not isinstance(node, ast.ListComp) and not (isinstance(node, ast.List | ast.Tuple) and isinstance(node.ctx, ast.Load)):
        return node
    return ast.fix_missing_locations(ast.copy_location(ast.Call(ast.Name(LISTED, ast.Load()), [node], []), node))


def unannotated(node, ast):  # type: ignore[no-untyped-def]
    """An assignment without its annotation, which Python would run where a part of an array is assigned to."""
    new = ast.Pass() if node.value is None else ast.Assign([node.target], node.value)
    return ast.copy_location(new, node)


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


def draws(count, always, known, secret):  # type: ignore[no-untyped-def]
    """Numbers of some of `count` rows, in no order: what code says of these alone must be what it says among all.

    First by the generator `known`, so that what is found usually is found again; then all `always` (first, number), those behind,
    and rows of all, some more than once, by the generator `secret`: code can know neither the rows nor how many there are.
    """
    some = known.sample(range(count), min(ROWS, count - 1))
    yield some
    yield some[:1]
    if always[1]:
        end = sum(always)
        yield secret.sample(range(always[0], end), always[1])
        yield secret.sample(range(end, count), min(BEHIND, count - end))
    most = min(MANY_ROWS, 2 * count + 1)
    some = secret.choices(range(count), k=secret.randint(max(2, most // 4), most))
    yield some
    yield some[: secret.randrange(1, len(some))]


def in_company(count, secret):  # type: ignore[no-untyped-def]
    """Numbers of rows to ask about together where only `count` are known: all behind some of the COMPANY, and one before some."""
    others = range(count, count + COMPANY)
    yield secret.sample(others, secret.randint(1, COMPANY)) + secret.sample(range(count), count)
    yield [secret.randrange(count), *secret.sample(others, secret.randint(1, COMPANY))]


def dependence(call, arrays, result, drawn, np):  # type: ignore[no-untyped-def]
    """Number of a row whose value changes when other rows are there, or None: a reward is of one transition.

    arrays may have more rows than the (N,) of result: those behind are company.
    """
    finite = np.abs(result[np.isfinite(result)])
    least = ROUNDING * (np.median(finite) if finite.size else 0.0)  # not of the largest, which may be made to hide the others
    for some in (np.array(rows, np.int64) for rows in drawn if rows):
        alone, asked = said(call, [array[some] for array in arrays], np), some < len(result)
        same = np.isclose(alone[asked], result[some[asked]], rtol=ROUNDING, atol=least, equal_nan=True)
        if not same.all():
            return int(some[asked][np.flatnonzero(~same)[0]])
    return None


def limit(memory, cpu):  # type: ignore[no-untyped-def]
    """Give up what is not needed, for good; names of the layers that hold."""
    import gc
    import resource

    gc.disable()  # nothing of ours is to be looked at while the code runs
    try:
        with open("/proc/self/statm") as file:
            now = int(file.read().split()[0]) * resource.getpagesize()
    except FileNotFoundError:  # not Linux
        now = 2**32
    if sys.platform == "linux":
        import ctypes

        no_new_privileges = 38
        ctypes.CDLL(None).prctl(no_new_privileges, 1, 0, 0, 0)
    layers = ["limits", *(["landlock"] if forbid_files() else [])]
    most = {
        resource.RLIMIT_AS: now + memory,
        resource.RLIMIT_CPU: cpu,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_NOFILE: 3,
    }
    for kind, value in most.items():
        resource.setrlimit(kind, (value, value))
    return [*layers, *(["system calls"] if forbid_calls() else [])]


def forbid_files():  # type: ignore[no-untyped-def]
    """Let Landlock (Linux 5.13) refuse every file and folder that is not open yet; whether it does.

    Newer kernels refuse TCP (6.7) and signals to processes that are not of this one (6.12) by it as well.
    """
    import ctypes
    import os
    import struct

    if sys.platform != "linux":
        return False
    call = ctypes.CDLL(None, use_errno=True).syscall
    create, restrict, version = 444, 446, 1  # the numbers are the same on every processor
    abi = call(create, None, ctypes.c_size_t(0), version)
    if abi < 1:
        return False
    files = 2 ** {1: 13, 2: 14, 3: 15, 4: 15}.get(abi, 16) - 1  # one bit for each thing that may be done to a file
    rules = struct.pack("QQQ", files, 3, 3)[: 8 if abi < 4 else 16 if abi < 6 else 24]  # files; TCP; sockets by name, signals
    held = call(create, rules, ctypes.c_size_t(len(rules)), 0)
    if held < 0:
        return False
    refused = call(restrict, held, 0)
    os.close(held)
    return refused == 0


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
    seccomp, by_filter = 22, 2
    return ctypes.CDLL(None, use_errno=True).prctl(seccomp, by_filter, ctypes.byref(asked), 0, 0) == 0


if __name__ == "__main__":
    main()
