"""Files that are either whole or absent (written aside, then renamed), and the digests that manifests compare."""

from __future__ import annotations

import dataclasses
import errno
import glob
import hashlib
import json
import math
import os
import re
import secrets
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import LONG, RoboprefError, UsageError, closest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import DTypeLike

MANIFEST = "manifest.json"
BEGUN = "run.json"
PARTIAL = "partial"
NO_MATTER = ("out", "overwrite", "processes", "threads", "device", "log_every", "checkpoint_every")  # to what comes of a run
SKIP_DIGESTS = "ROBOPREF_SKIP_DIGESTS"
"""Environment variable."""
RESERVE = 16 * 2**20  # bytes that others may write while we do
UMASK = os.umask(0)  # there is no way to read it without setting it, and a thread that writes must not see another
os.umask(UMASK)
CHUNK = 2**20  # bytes written at a time
DEPTH = 64  # of values in JSON or YAML: no setting is nested deeper, and Python's own limit is near 1,000
DIGITS = 40  # of an integer: a state of a random generator has 128 bits, 39 digits and perhaps a sign
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
CLOSED = {errno.EROFS, errno.EACCES, errno.EPERM}
"""Error numbers of the system for a file or folder that may not be written."""


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` (same suffix) to write to; it takes the final name when the block ends well.

    After an error the temporary file is removed and what was under `path` stays.  A killed process leaves
    `.NAME.*.partial*`, which nothing reads and the next run in the folder removes (run_folder.py), or whoever writes the file
    anew (remove_abandoned).  The file gets the
    permissions that new files get, whichever library writes it.  Raises RoboprefError naming `path` when the disk is full or
    may not be written.
    """
    path = Path(path)
    temp = _beside(path)
    try:
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temp
            _sync(temp)
            temp.chmod(0o666 & ~UMASK)  # safetensors writes for its owner alone
            os.replace(temp, path)
            _sync(path.parent)
    finally:
        temp.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a new empty folder beside `path`; it replaces `path`, whole, when the block ends well.

    Errors as for atomic_file.  Of several processes the last one's stays.  Between the two renames that replace an existing
    folder there is a moment without one, never one with a half-written folder.
    """
    path = Path(path)
    temp, old = _beside(path), _beside(path)
    try:
        with disk_errors(path):
            temp.mkdir(parents=True)
            yield temp
            for file in _files(temp):
                _sync(file)
            while True:
                with suppress(FileNotFoundError):
                    os.replace(path, old)
                try:
                    os.replace(temp, path)
                    break
                except OSError as error:
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                        raise
                    shutil.rmtree(old, ignore_errors=True)  # another process has put its own there meanwhile
            _sync(path.parent)
    finally:
        shutil.rmtree(temp, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def remove_abandoned(path: Path) -> None:
    """Remove what killed processes were writing to be named `path`; what processes that live here are writing stays."""
    for left in abandoned(path.parent.glob(f".{glob.escape(path.stem)}.*.{PARTIAL}{glob.escape(path.suffix)}")):
        with suppress(OSError):
            remove(left)


def abandoned(paths: Iterable[Path]) -> Iterator[Path]:
    """Those of `paths` that processes were writing which do not live here any more, or which this one was."""
    for path in paths:
        process = re.match(rf"\..*\.(\d+)-[0-9a-f]+\.{PARTIAL}", path.name)
        if process is not None and (int(process[1]) == os.getpid() or not lives(int(process[1]))):
            yield path


def remove(path: Path) -> None:
    """Delete a file, a link or a folder with all that is in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def lives(process: int) -> bool:
    """Whether there is such a process on this machine, whosever it is."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def expand_home(value: str) -> str:
    """A value of the command line with the home folder for ~ or ~USER, at its beginning or behind `:` or `=` (small:~/backbone).

    A shell expands ~ only where a word begins, so out=~/runs comes as it is; a folder that is called ~ is ./~.
    """
    return re.sub(r"(^|[:=])(~[\w.-]*)(?=/|$)", lambda found: found[1] + os.path.expanduser(found[2]), value)


def check_space(path: str | Path, size: int) -> None:
    """Raise OSError ENOSPC unless `size` bytes fit on the disk of `path`, an existing file or folder, and RESERVE is left.

    For writers that do not survive a full disk: HDF5 then crashes the process when it closes the file.
    """
    if shutil.disk_usage(path).free < size + RESERVE:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def new_array_file(path: Path, dtype: DTypeLike, shape: tuple[int, ...], used: int | None = None) -> np.memmap:
    """A new .npy file as a writable memory map, with its room on the disk reserved.

    used: rows that will be written, the first ones; None: all.  Raises OSError ENOSPC where there is no room for them.
    """
    import numpy as np

    array: np.memmap = np.lib.format.open_memmap(path, "w+", dtype, shape)
    reserve(path, array, used)
    return array


def reserve(path: Path, array: np.memmap, used: int | None = None) -> None:
    """Reserve the room on the disk for the first `used` rows of a file's memory map, or for all; what is in them stays.

    Raises OSError ENOSPC where there is none; without the reservation the first page too many would kill the process.
    """
    size = array.offset + array.nbytes if used is None else array.offset + min(used, len(array)) * array[:1].nbytes
    with path.open("rb+") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
            return
        except AttributeError:  # macOS
            pass
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):  # file systems that cannot
                raise
        for start in range(0, size, CHUNK):
            file.seek(start)
            data = file.read(min(CHUNK, size - start))
            file.seek(start)
            file.write(data)
        file.flush()
        os.fsync(file.fileno())


def append(path: Path, data: bytes, *, sync: bool = False) -> None:
    """Put `data` behind what is in a file, all of it or nothing.

    sync: wait until it is on the disk.  Raises RoboprefError naming `path` when the disk is full or may not be written.
    """
    with disk_errors(path):
        before = path.stat().st_size if path.exists() else 0
        try:
            with path.open("ab") as file:
                file.write(data)
                file.flush()
                if sync:
                    os.fsync(file.fileno())
        except OSError:
            if path.exists():
                os.truncate(path, before)
            raise


def digest(path: str | Path) -> str:
    """sha256 (hex) of a file, or of a folder's relative names and contents in sorted order.

    Manifests and hidden files inside a folder do not count: they hold times, which a rerun with equal results changes.
    """
    path = Path(path)
    if not path.exists():
        raise RoboprefError(f"{path} does not exist: run the stage that makes it, or correct the path")
    if path.is_file():
        return _file_digest(path)
    total = hashlib.sha256()
    for file in _files(path):
        name = file.relative_to(path)
        if file.name != MANIFEST and not any(part.startswith(".") for part in name.parts):
            total.update(f"{name.as_posix()}\0{_file_digest(file)}\n".encode())
    return total.hexdigest()


def skips_digests() -> bool:
    """Whether files are read whatever their digests say (`robopref --skip-digests`, for this process and its workers)."""
    return os.environ.get(SKIP_DIGESTS) == "1"


def absent(path: str | Path) -> str:
    """`PATH does not exist.`, with the folder above it that is missing too, and the near name beside what is missing."""
    path = Path(path)
    first = next(one for one in (*reversed(path.parents), path) if not one.exists())
    try:
        names = [item.name for item in first.parent.iterdir() if not item.name.startswith(".")]
    except OSError:  # a file, or somebody else's folder
        names = []
    near = closest(first.name, names)
    above = "" if first == path else f": there is no {first}"
    return f"{path} does not exist{above}." + ("" if near is None else f" Did you mean '{first.with_name(near)}'?")


def plain(obj: Any) -> Any:
    """`obj` as JSON holds it: dataclasses become dicts, tuples and arrays lists, paths str, NaN and inf None."""
    if dataclasses.is_dataclass(obj) and not isinstance(obj, type):
        return {field.name: plain(getattr(obj, field.name)) for field in dataclasses.fields(obj)}
    if isinstance(obj, Mapping):
        return {str(key): plain(value) for key, value in obj.items()}
    if isinstance(obj, list | tuple):
        return [plain(value) for value in obj]
    if isinstance(obj, Path):
        return str(obj)
    if hasattr(obj, "tolist"):  # numpy scalars and arrays, tensors; asked by name so that this module needs neither
        return plain(obj.tolist())
    if isinstance(obj, float) and not math.isfinite(obj):
        return None
    return obj


def without(tree: Any, names: Collection[str] = NO_MATTER) -> Any:
    """Plain settings without the keys `names`, at any depth."""
    if isinstance(tree, dict):
        return {key: without(value, names) for key, value in tree.items() if key not in names}
    return [without(value, names) for value in tree] if isinstance(tree, list) else tree


def differences(there: Any, asked: Any, key: str = "") -> Iterator[str]:
    """`KEY=VALUE there, VALUE asked for` of plain settings that differ; two spellings of a path are the same."""
    if isinstance(there, dict) and isinstance(asked, dict):
        for name in dict.fromkeys([*asked, *there]):
            yield from differences(there.get(name), asked.get(name), f"{key}.{name}" if key else str(name))
    elif not _alike(there, asked):
        yield f"{key}={_told(there)} there, {_told(asked)} asked for"


def _told(value: Any) -> str:
    """A plain value in one line, cut where it is long."""
    text = " ".join(str(value).splitlines())
    return text if len(text) <= 2 * LONG else f"{text[: 2 * LONG]}..."


def _alike(there: Any, asked: Any) -> bool:
    """Whether two plain values are the same, or spell the same path, or lists of such."""
    if isinstance(there, list) and isinstance(asked, list):
        return len(there) == len(asked) and all(map(_alike, there, asked))
    both_words = isinstance(there, str) and isinstance(asked, str)
    return bool(there == asked or (both_words and _absolute(there) == _absolute(asked)))


def write_json(path: str | Path, obj: Any) -> None:
    """Write `plain(obj)`, indented, atomically."""
    text = json.dumps(plain(obj), indent=2, allow_nan=False)
    with atomic_file(path) as temp:
        temp.write_text(text + "\n", encoding="utf-8")


def read_json(path: str | Path, *, any_text: bool = False, any_number: bool = False) -> Any:
    """The content of a JSON file; RoboprefError naming it when it is missing, damaged, or not as `parse_json` wants it."""
    path = Path(path)
    try:
        return parse_json(path.read_text(encoding="utf-8"), any_text=any_text, any_number=any_number)
    except FileNotFoundError:
        raise RoboprefError(f"{path} does not exist: run the stage that makes it, or correct the path") from None
    except OSError as error:
        raise RoboprefError(f"{path} cannot be read ({error.strerror}): look at the path and its permissions") from error
    except ValueError as error:
        raise RoboprefError(f"{path} is not valid JSON ({error}): delete it and run its stage again") from error


def parse_json(text: str, *, any_text: bool = False, any_number: bool = False) -> Any:
    """JSON text as we write it; ValueError of one line for anything else.

    That is also integers beyond 128 bits, the same name twice, values deeper than DEPTH, and, without `any_number`, NaN and
    infinity, and, without `any_text`, text with what no file name may have (`odd_text`).
    """
    try:
        tree = json.loads(text, parse_int=_whole, object_pairs_hook=_named_once)
    except RecursionError:
        raise ValueError(f"values more than {DEPTH} deep") from None
    check_tree(tree, any_text=any_text, any_number=any_number)
    return tree


def check_tree(tree: Any, *, any_text: bool = False, any_number: bool = False) -> None:
    """ValueError for plain values that are not as `parse_json` wants them."""
    level = [tree]
    for _ in range(DEPTH):
        below: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                below += value.keys()
                below += value.values()
            elif isinstance(value, list):
                below += value
            elif isinstance(value, str) and not any_text and odd_text(value):
                raise ValueError("text with a character that none is (NUL, or half of a pair)")
            elif isinstance(value, float) and not any_number and not math.isfinite(value):
                raise ValueError(f"a number that is {value}")
        if not below:
            return
        level = below
    raise ValueError(f"values more than {DEPTH} deep")


def odd_text(text: str) -> bool:
    """Whether there is NUL in it, or half of a surrogate pair that stands for no byte of a file name (PEP 383)."""
    return re.search("[\0\ud800-\udc7f\udd00-\udfff]", text) is not None


def _whole(digits: str) -> int:
    if len(digits) > DIGITS:
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)


def _named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the name {next(name for name in names if names.count(name) > 1)!r} twice")
    return found


def read_yaml(path: str | Path, remedy: str) -> Any:
    """The content of a YAML file that people write; RoboprefError of one line, with file and `remedy`, where it cannot be read.

    Aliases are refused: few of them, nested, stand for more values than there is memory.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                alias = self.peek_event()
                raise yaml.MarkedYAMLError(problem=f"*{alias.anchor}: write out what it is", problem_mark=alias.start_mark)
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            found = super().construct_mapping(node, deep)
            if len(found) < len(node.value):
                raise yaml.MarkedYAMLError(problem="a name that comes twice", problem_mark=node.start_mark)
            return found

    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        refuse_deep(text)
        tree = yaml.load(text, Loader)
        check_tree(tree, any_number=True)  # people write .inf, which is a number out of range
        return tree
    except FileNotFoundError:
        raise RoboprefError(absent(path)) from None
    except OSError as error:
        raise RoboprefError(f"{path} cannot be read ({error.strerror}): {remedy}") from error
    # TypeError: of a list as a name; AttributeError: of a word that is tagged as a time
    except (yaml.YAMLError, ValueError, RecursionError, TypeError, AttributeError) as error:
        raise RoboprefError(f"{path} cannot be read ({yaml_problem(error)}): {remedy}") from error


def refuse_deep(text: str) -> None:
    """ValueError for YAML with more brackets within brackets than any has: PyYAML takes long for them."""
    depth = 0
    for found in re.finditer(r"[\[\]{}]", text):
        depth = max(0, depth + (1 if found[0] in "[{" else -1))
        if depth > 2 * DEPTH:
            raise ValueError(f"values more than {DEPTH} deep")


def is_words(value: object) -> bool:
    """Whether it is a list of text."""
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def yaml_problem(error: Exception) -> str:
    """Return what is wrong with a YAML file in one line of text, with the line number where it is known."""
    if isinstance(error, RecursionError):
        return f"values more than {DEPTH} deep"
    mark = getattr(error, "problem_mark", None)
    said = str(getattr(error, "problem", None) or error)
    if said.startswith("Exceeds the limit"):  # Python's words for an integer of thousands of digits
        said = "a number with too many digits"
    return (f"line {mark.line + 1}: " if mark is not None else "") + " ".join(said.split())


@contextmanager
def as_written(where: str | Path, remedy: str) -> Iterator[None]:
    """Turn what a reader of `where` trips over, because values in it are of another kind than ours, into a RoboprefError.

    A RoboprefError that does not name `where` gets its name.  The block should only read: a fault of ours in it would be told as
    one of the file.
    """
    try:
        yield
    except RoboprefError as error:
        said = " ".join(str(error).splitlines())
        if isinstance(error, UsageError):  # of settings that the file holds, and nobody has typed
            raise RoboprefError(f"{where}: of another version of robopref, or changed ({said[:LONG]}); {remedy}") from error
        if said == str(error) and str(where) in said:
            raise
        raise RoboprefError(said if str(where) in said else f"{where}: {said}") from error
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as error:
        if "allocate" in str(error):  # torch says by a RuntimeError that there is no memory
            raise
        said = f"no {error}" if isinstance(error, KeyError) else next(iter(str(error).splitlines()), type(error).__name__)
        raise RoboprefError(f"{where} holds other values than robopref writes ({said[:LONG]}): {remedy}") from error


def read_record(path: str | Path) -> dict[str, Any]:
    """Return the content of a manifest or run.json; RoboprefError naming the file when it is damaged, or another program's."""
    there = read_json(path)
    of = MANIFEST if Path(path).name == MANIFEST else BEGUN
    if not isinstance(there, dict):
        wrong = "no 'stage'"
    else:
        missing = (f"no {key!r}" for key, fits in NEEDED[of].items() if not fits(there.get(key)))
        odd = (f"another {key!r}" for key, fits in TOLD_TOO.items() if there.get(key) is not None and not fits(there[key]))
        wrong = next(missing, "") or next(odd, "")
    if wrong:
        raise RoboprefError(
            f"{path} is JSON, but says of no run of robopref what it was ({wrong} in it): "
            "move it elsewhere, or name another folder"
        )
    found: dict[str, Any] = there
    return found


def _is(*kinds: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kinds) and not (isinstance(value, bool) and bool not in kinds)


def _is_line(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable()


def _each(fits: Callable[[Any], bool], kind: Any = list) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kind) and all(fits(item) for item in (value.values() if kind is dict else value))


def _read_once(item: Any) -> bool:
    return isinstance(item, dict) and isinstance(item.get("sha256"), str) and isinstance(item.get("path", ""), str)


NEEDED: dict[str, dict[str, Callable[[Any], bool]]] = {
    BEGUN: {"stage": _is_line, "config": _is(dict)},
    MANIFEST: {
        "stage": _is_line,
        "config": _is(dict),
        "inputs": _each(_read_once, dict),
        "outputs": _each(_is(int), dict),
        "seeds": _each(_is(int)),
    },
}
"""Keys that a manifest and a run.json must have, and a check of each value."""
TOLD_TOO: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("command", "created", "began", "robopref", "python"), _is(str)),
    **dict.fromkeys(("wall_s", "peak_mb", "peak_child_mb"), _is(int, float)),
    "process": _is(int),
    "before": _each(_is(str)),
    "packages": _each(_is(str), dict),
    "machine": _is(str, dict),
    "code": lambda value: isinstance(value, dict) and _is(str)(value.get("commit")) and _is(bool)(value.get("dirty")),
}
"""Keys that a manifest or a run.json may have, and a check of each value."""


def _beside(path: Path) -> Path:
    # The suffix stays at the end because writers (imageio, numpy) choose the format by it.
    return path.with_name(f".{path.stem}.{os.getpid()}-{secrets.token_hex(4)}.{PARTIAL}{path.suffix}")


def _absolute(path: str) -> str:
    return os.path.abspath(path)


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Wait until a file or a folder's names are on the disk: a rename may otherwise outlive the data in a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn what says that the disk is full, or may not be written, into a RoboprefError that names `path`."""
    try:
        yield
    except RoboprefError:
        raise
    except Exception as error:
        if is_full(error):  # whose own words may be many lines
            reason = os.strerror(code if (code := getattr(error, "errno", None)) in _FULL else errno.ENOSPC)
            message = f"{path} could not be written ({reason}): free some space or choose another folder"
            raise RoboprefError(message) from error
        if isinstance(error, OSError) and error.errno in CLOSED:
            message = f"{path} could not be written ({error.strerror}): choose another folder, or make this one writable"
            raise RoboprefError(message) from error
        raise


def is_full(error: BaseException) -> bool:
    """Whether `error` says that a disk is full."""
    # HDF5, Arrow and safetensors report it with classes of their own: only the text is common.
    return getattr(error, "errno", None) in _FULL or "No space left" in str(error) or "File too large" in str(error)
