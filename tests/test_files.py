"""A file or folder is whole or absent, whatever happens while it is written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from robopref.configs.errors import RoboprefError
from robopref.configs.files import (
    atomic_file,
    atomic_folder,
    digest,
    plain,
    read_json,
    read_record,
    read_yaml,
    remove_abandoned,
    write_json,
)

KILLED_IN_FILE = """
import sys, time
from robopref.configs.files import atomic_file
with atomic_file(sys.argv[1]) as temp:
    with temp.open("wb") as file:
        file.write(b"half"); file.flush()
        print("writing", flush=True)
        time.sleep(60)
"""
KILLED_IN_FOLDER = """
import sys, time
from robopref.configs.files import atomic_folder
with atomic_folder(sys.argv[1]) as temp:
    (temp / "first.txt").write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""
# A limit on the size of files makes every library meet the error of a full disk, without filling one.
FULL_DISK = """
import resource, sys
from pathlib import Path
import h5py, numpy as np, pandas as pd, torch
from robopref.configs.checkpoint import save_tensors
from robopref.configs.errors import RoboprefError
from robopref.configs.files import atomic_file, atomic_folder, new_array_file, write_json

numbers = np.random.default_rng(0).normal(size=100_000)
folder = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))

def raw(path):
    with atomic_file(path) as temp:
        temp.write_bytes(numbers.tobytes())

def hdf5(path):
    with atomic_file(path) as temp, h5py.File(temp, "w") as file:
        file["numbers"] = numbers

def parquet(path):
    with atomic_file(path) as temp:
        pd.DataFrame({"numbers": numbers}).to_parquet(temp)

def tensors(path):
    save_tensors(path, {"numbers": torch.from_numpy(numbers)}, {"kind": "test"})

def inside_folder(path):
    with atomic_folder(path) as temp:
        (temp / "numbers.bin").write_bytes(numbers.tobytes())

def mapped(path):
    with atomic_file(path) as temp:
        new_array_file(temp, np.float64, numbers.shape)[:] = numbers

for write in raw, mapped, hdf5, parquet, tensors, inside_folder, lambda path: write_json(path, numbers):
    path = folder / f"{write.__name__}.out"
    try:
        write(path)
    except RoboprefError as error:
        assert str(path) in str(error) and "free some space" in str(error), error
    else:
        raise AssertionError(f"{path} was written")
assert not list(folder.iterdir()), list(folder.iterdir())
print("ok")
"""


@dataclass(frozen=True)
class Settings:
    folder: Path
    sizes: tuple[int, ...]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def kill_while_writing(script: str, path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stdout.readline() == "writing\n"
        child.send_signal(signal.SIGKILL)


def test_new_file_appears_whole_with_its_parents(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.csv"
    with atomic_file(path) as temp:
        assert temp.suffix == ".csv" and temp.parent == path.parent
        temp.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole" and names(path.parent) == ["b.csv"]


def test_error_while_writing_keeps_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "data.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_file(path) as temp:
        temp.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old" and names(tmp_path) == ["data.txt"]


@pytest.mark.parametrize("before", [None, "old"])
def test_kill_while_writing_a_file(tmp_path: Path, before: str | None) -> None:
    path = tmp_path / "data.txt"
    if before:
        path.write_text(before)
    kill_while_writing(KILLED_IN_FILE, path)
    assert (path.read_text() if path.exists() else None) == before
    with atomic_file(path) as temp:
        temp.write_text("new")
    assert path.read_text() == "new"


@pytest.mark.parametrize("before", [None, "old"])
def test_kill_while_writing_a_folder(tmp_path: Path, before: str | None) -> None:
    path = tmp_path / "episodes"
    if before:
        path.mkdir()
        (path / "second.txt").write_text(before)
    kill_while_writing(KILLED_IN_FOLDER, path)
    assert path.exists() == bool(before) and (not before or names(path) == ["second.txt"])


def test_folder_is_replaced_at_the_end_only(tmp_path: Path) -> None:
    path = tmp_path / "clips"
    for content in "old", "new":
        with atomic_folder(path) as temp:
            (temp / content).write_text(content)
            assert names(path) == ["old"] if content == "new" else not path.exists()
    assert names(path) == ["new"] and names(tmp_path) == ["clips"]
    with pytest.raises(ZeroDivisionError), atomic_folder(path) as temp:
        raise ZeroDivisionError
    assert names(path) == ["new"] and names(tmp_path) == ["clips"]


def test_full_disk_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    child = subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, check=False)
    assert child.stdout == "ok\n", child.stderr


def test_digest_is_of_names_and_contents(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, order in (one, "ab"), (two, "ba"):
        folder.mkdir()
        for name in order:
            (folder / name).write_text(name)
    assert digest(one) == digest(two)
    (two / "manifest.json").write_text("{}")  # holds times
    (two / ".b.partial").write_text("left by a kill")
    assert digest(one) == digest(two)
    (two / "a").rename(two / "c")
    assert digest(one) != digest(two)
    (one / "a").write_text("b")
    assert digest(one / "a") == digest(one / "b")
    with pytest.raises(RoboprefError, match="absent does not exist"):
        digest(tmp_path / "absent")


def test_json_holds_what_configs_and_results_hold(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"s": Settings(Path("x"), (1, 2)), "mean": np.float32(0.5), "xs": np.arange(2), "tau": float("nan")})
    assert read_json(path) == {"s": {"folder": "x", "sizes": [1, 2]}, "mean": 0.5, "xs": [0, 1], "tau": None}
    assert plain(np.array([np.inf, 1.0])) == [None, 1.0]


@pytest.mark.parametrize("content", [b'{"a": ', b"\xff\xfe", b""])
def test_damaged_json_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(RoboprefError, match=r"a\.json is not valid JSON"):
        read_json(path)
    with pytest.raises(RoboprefError, match=r"b\.json does not exist"):
        read_json(tmp_path / "b.json")


def test_of_several_writers_of_a_folder_each_succeeds_and_one_stays_whole(tmp_path: Path) -> None:
    path = tmp_path / "shared"

    def write(number: int) -> None:
        for _ in range(20):
            with atomic_folder(path) as temp:
                for name in ("first", "second"):
                    (temp / name).write_text(str(number))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert names(tmp_path) == ["shared"] and names(path) == ["first", "second"]
    assert (path / "first").read_text() == (path / "second").read_text()


def test_what_killed_processes_were_writing_goes_and_what_living_ones_write_stays(tmp_path: Path) -> None:
    gone = [
        f".page.{2**30}-0a.partial.html",
        f".page.{os.getpid()}-0a.partial.html",
    ]  # in a container every run has the same number
    other = [f".page.{os.getppid()}-0a.partial.html", f".page2.{2**30}-0a.partial.html", f".page.{2**30}-0a.partial", "page.html"]
    for name in (*gone, *other):
        (tmp_path / name).touch()
    remove_abandoned(tmp_path / "page.html")
    assert names(tmp_path) == sorted(other)
    (tmp_path / f".set.{2**30}-0a.partial").mkdir()
    remove_abandoned(tmp_path / "set")
    assert names(tmp_path) == sorted(other)


NO_JSON = {
    "9" * 5000: "an integer of 5000 digits",
    str(2**200): "an integer of 61 digits",
    "NaN": "a number that is nan",
    "[1, Infinity]": "a number that is inf",
    '{"a": 1e999}': "a number that is inf",
    "[" * 3000 + "]" * 3000: "values more than 64 deep",
    "[" * 70 + "]" * 70: "values more than 64 deep",
    '{"a": 1, "a": 2}': "the name 'a' twice",
    '{"\\ud800": 1}': "text with a character that none is",
    '["a\\u0000b"]': "text with a character that none is",
    '{"a": ': "Expecting value",
    "": "Expecting value",
}


@pytest.mark.parametrize(("text", "said"), NO_JSON.items(), ids=range(len(NO_JSON)))
def test_json_that_is_not_as_ours_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(RoboprefError) as caught:
        read_json(tmp_path / "x.json")
    assert str(caught.value).startswith(f"{tmp_path / 'x.json'} is not valid JSON ({said}") and "\n" not in str(caught.value)
    assert str(caught.value).endswith("): delete it and run its stage again")


def test_json_of_ours_is_read_as_it_was(tmp_path: Path) -> None:
    state = np.random.default_rng(0).bit_generator.state  # integers of 128 bits
    kept = {"rng": state, "path": os.fsdecode(b"a\xff"), "deep": eval("[" * 60 + "]" * 60), "small": 1e-300}
    write_json(tmp_path / "x.json", kept)
    assert read_json(tmp_path / "x.json") == kept
    write_json(tmp_path / "y.json", {"said": "\ud800\0"})
    assert read_json(tmp_path / "y.json", any_text=True) == {"said": "\ud800\0"}, "models write anything"
    with pytest.raises(RoboprefError, match="cannot be read \\(Is a directory\\): look at the path"):
        read_json(tmp_path)


WRONG_RECORDS = {
    "stage": [None, 3, [], True, "a\nb", "\x1b[2J"],
    "config": [None, 3, []],
    "inputs": [None, 3, [], {"data": None}, {"data": {"sha256": 3}}, {"data": {"sha256": "x", "path": 3}}],
    "outputs": [None, 3, ["x"], {"x": "y"}, {"x": None}],
    "seeds": [None, 3, ["x"], [None], [True]],
    "command": [3, ["robopref"]],
    "created": [3],
    "wall_s": ["x", True],
    "before": ["x", [3]],
    "packages": [3, {"torch": 2}],
    "machine": [3],
    "code": [3, {"commit": 3, "dirty": True}, {"commit": "x", "dirty": "y"}],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in WRONG_RECORDS.items() for value in values])
def test_a_manifest_with_values_of_another_kind_is_one_line(tmp_path: Path, key: str, value: object) -> None:
    record = {"stage": "train", "config": {}, "inputs": {}, "outputs": {}, "seeds": [0], "command": "robopref train"}
    write_json(tmp_path / "manifest.json", record)
    assert read_record(tmp_path / "manifest.json") == record
    write_json(tmp_path / "manifest.json", record | {key: value})
    with pytest.raises(RoboprefError, match=rf"manifest\.json is JSON, but says of no run .* \((no|another) '{key}' in it\)"):
        read_record(tmp_path / "manifest.json")


NO_YAML = {
    "a: &a [x, x]\nb: *a\n": "line 2: *a: write out what it is",
    "a: &a [*a]\n": "line 1: *a: write out what it is",
    "a: " + "9" * 5000: "a number with too many digits",
    "a: " + "[" * 3000 + "]" * 3000: "values more than 64 deep",
    "a: !!python/object/apply:os.system [ls]": "line 1: could not determine a constructor for the tag",
    "a: [": "line 1: expected the node content",
    "a: 1\nb: 2\na: 3": "line 1: a name that comes twice",
    "? [a]\n: 1": "line 1: found unhashable key",
    "a: 2026-13-45": "month must be in 1..12",
    'a: "\\ud800"': "text with a character that none is",
}


@pytest.mark.parametrize(("text", "said"), NO_YAML.items(), ids=range(len(NO_YAML)))
def test_yaml_that_people_write_is_one_line_where_it_is_none(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(RoboprefError) as caught:
        read_yaml(tmp_path / "x.yaml", "write NAME: VALUE")
    assert str(caught.value).startswith(f"{tmp_path / 'x.yaml'} cannot be read ({said}") and "\n" not in str(caught.value)
    assert str(caught.value).endswith("): write NAME: VALUE")
