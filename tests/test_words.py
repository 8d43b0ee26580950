"""What is typed on a command line arrives as it was typed, and the other kind of command line is told how it is here."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from robopref.configs.annotate import AnnotateConfig
from robopref.configs.cli import main
from robopref.configs.errors import UsageError
from robopref.configs.files import expand_home
from robopref.configs.flags import from_flags
from robopref.configs.hydra import run_hydra
from robopref.configs.policy import TrainConfig
from robopref.configs.prof import PROFConfig

DOLLAR = r"${KEY} stands for another setting and \${ for itself"
PATHS = [
    "runs/été", "runs/机械臂", "💾", "runs/run (1)", "runs/policy.alpha=0.1", "runs/seeds=[0]", "runs/seed=1,policy=iql",
    "a=b=c", "runs/it's", "'tis", 'say "hi"', '"x', "a'b'c", "'", " in front", "behind ", "tab\tinside", "new\nline", "#x",
    "!x", "@x", "+x", "-x", "a:b", "50%", "$x", "$", "a{b}", "{a:1}", "[a]", "[a", "(b", "a;b|c&d", "*?", "^", "`x`",
    "<x>", "back\\slash", "end\\", "end\\'", "\\\\", "null", "true", "123", "1e3", "0x10", "x" * 300, "choice(a,b)",
    "a, b", "hf-hub:a/b@c", "../x", "./~",
]  # fmt: skip


@pytest.fixture
def read(inside: Path) -> Callable[..., list[TrainConfig]]:
    """The settings of `robopref train` with these words, one a job, in an empty folder."""

    def settings(*words: str) -> list[TrainConfig]:
        found: list[TrainConfig] = []
        run_hydra("train", ["policy=bc", *words], TrainConfig, found.append)
        return found

    return settings


@pytest.mark.parametrize("path", PATHS)
def test_a_path_is_taken_as_it_was_typed(path: str, read: Callable[..., list[TrainConfig]]) -> None:
    for key in ("out", "data", "labels", "reward", "expert_data"):
        if path != "null" or key in ("out", "data", "reward"):
            (config,) = read(f"{key}={path}")
            assert str(getattr(config, key)) == (path if key == "reward" else str(Path(path)))


def test_null_is_nothing_where_there_may_be_nothing(read: Callable[..., list[TrainConfig]]) -> None:
    assert read("labels=null")[0].labels is None


@pytest.mark.parametrize("path", ["été", "run (1)", "a=b", "it's", "'", "'tis", "[a", "behind ", "end\\", "null", "123", "~x"])
def test_a_sweep_takes_paths_too_and_commas_between_them(path: str, read: Callable[..., list[TrainConfig]]) -> None:
    found = read("-m", f"data={path},other", "seeds=[0]", "out=sweep")
    assert [str(config.data) for config in found] == [str(Path(path)), "other"]
    assert len({config.out for config in found}) == 2 and all(config.out.parent == Path("sweep") for config in found)


def test_hydras_own_quotes_choices_and_references_work_as_before(read: Callable[..., list[TrainConfig]]) -> None:
    assert str(read("out='a, b'")[0].out) == str(read('out="a, b"')[0].out) == "a, b"
    assert str(read("out=runs/${policy.name}-${top}")[0].out) == "runs/bc-1.0"
    assert str(read(r"out=runs/\${policy.name}")[0].out) == "runs/${policy.name}"
    assert [str(config.data) for config in read("-m", "data=choice(a,b)")] == ["a", "b"]
    assert [str(config.data) for config in read("-m", "data='a,b',c")] == ["a,b", "c"]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("out=", "out= is empty: give a value, or leave it out"),
        ("reward=", "reward= is empty: give a value, or leave it out"),
        ("out=${nope}", rf"cannot read the settings: out: Interpolation key 'nope' not found; {DOLLAR}"),
        ("out=a${", rf"train settings: Error merging override out='a${{'; {DOLLAR}"),
    ],
)  # fmt: skip
def test_what_cannot_be_taken_is_told(word: str, said: str, read: Callable[..., list[TrainConfig]]) -> None:
    with pytest.raises(UsageError) as caught:
        read(word)
    assert str(caught.value) == said


def test_a_sweep_is_read_to_its_end_before_it_begins(read: Callable[..., list[TrainConfig]]) -> None:
    done: list[TrainConfig] = []
    with pytest.raises(UsageError, match=r"policy.batch=0 is out of range"):
        run_hydra("train", ["policy=bc", "-m", "policy.batch=8,0", "out=sweep"], TrainConfig, done.append)
    assert not done


@pytest.mark.parametrize(
    ("word", "files"),
    [
        ("files=[été.py,a b.py,runs/seeds=[0]/r.py,it's.py]", ["été.py", "a b.py", "runs/seeds=[0]/r.py", "it's.py"]),
        ("files=['a,b.py',c.py]", ["a,b.py", "c.py"]),
        ("files=[ x.py , 1.5 ]", ["x.py", "1.5"]),
        ("files=[]", []),
        ("files=[~/r.py]", [os.path.expanduser("~/r.py")]),
    ],
)
def test_lists_of_paths(word: str, files: list[str], inside: Path) -> None:
    found: list[PROFConfig] = []
    run_hydra("prof", ["data=d", word], PROFConfig, found.append)
    assert [str(path) for path in found[0].files] == files


def test_the_home_folder(read: Callable[..., list[TrainConfig]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert str(read("out=~/runs")[0].out) == "/home/me/runs" and str(read("out=~")[0].out) == "/home/me"
    assert expand_home("small:~/backbone") == "small:/home/me/backbone" and expand_home("a=~/b") == "a=/home/me/b"
    assert [expand_home(text) for text in ("a~b", "runs/~", "./~", "~nobody-has-this-name/x")] == [
        "a~b", "runs/~", "./~", "~nobody-has-this-name/x",
    ]  # fmt: skip
    flags = from_flags(AnnotateConfig, ["--out=~/labels.parquet", "--episodes", "~/été (1)"], "robopref annotate", None)
    assert (str(flags.out), str(flags.episodes)) == ("/home/me/labels.parquet", "/home/me/été (1)")


def test_an_empty_path_among_flags_is_not_this_folder() -> None:
    for words in (["--out", ""], ["--out="]):
        with pytest.raises(UsageError, match=r"^--out is empty: give a value, or leave it out$"):
            from_flags(AnnotateConfig, words, "robopref annotate", None)


@pytest.mark.parametrize(
    ("words", "told", "right"),
    [
        ("train --policy piql", "--policy", "robopref train policy=piql"),
        (
            "train --data 'été 1' --seeds 0 1 --log-every=5 --overwrite",
            "--data",
            "robopref train 'data=été 1' 'seeds=[0,1]' log_every=5 overwrite=true",
        ),
        ("train policy=bc --data x", "--data", "robopref train policy=bc data=x"),
        ("train --data runs/a=1 policy=bc", "--data", "robopref train data=runs/a=1 policy=bc"),
        ("prof --files a.py", "--files", "robopref prof 'files=[a.py]'"),
        (
            "annotate episodes=data/x segment_length=5",
            "episodes=data/x",
            "robopref annotate --episodes data/x --segment-length 5",
        ),
        (
            "collect tasks=[door-close,door-open] overwrite=true parts=false",
            "tasks=[door-close,door-open]",
            "robopref collect --tasks door-close door-open --overwrite --no-parts",
        ),
        ("annotate --pairs 5 episodes=x", "episodes=x", "robopref annotate --pairs 5 --episodes x"),
        ("push run=runs/vlp to=x", "run=runs/vlp", "robopref push runs/vlp --to x"),
    ],
)
def test_the_other_kind_of_command_line_is_translated(
    words: str, told: str, right: str, inside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(shlex.split(words)) == 2
    kind = "key=value" if told.startswith("--") else "flags"
    command = " ".join(right.split()[:2])
    assert capsys.readouterr() == ("", f"error: {told}: `{command}` takes {kind}; write {right}\n")
    assert not list(inside.iterdir())


def test_an_equals_sign_in_a_flags_value_is_no_setting() -> None:
    words = ["--episodes", "runs/policy.alpha=0.1", "--model", "seed=1", "seed=2"]
    config = from_flags(AnnotateConfig, words, "robopref annotate", None)
    assert str(config.episodes) == "runs/policy.alpha=0.1" and list(map(str, config.model)) == ["seed=1", "seed=2"]
