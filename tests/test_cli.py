"""The command line: help, exit statuses, and errors that name the nearest thing that exists."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from omegaconf import DictConfig

from robopref.configs import cli
from robopref.configs import hydra as settings_from
from robopref.configs.cli import COMMANDS, Command, guarded, main
from robopref.configs.errors import RoboprefError, UsageError, nearest
from robopref.configs.files import plain, skips_digests
from robopref.configs.hydra import compose, run_hydra, to_dataclass
from robopref.configs.ranges import Word


@dataclass(frozen=True)
class IQL:
    gamma: float
    name: str = "iql"


@dataclass(frozen=True)
class CPL:
    alpha: float
    name: str = "cpl"


@dataclass(frozen=True)
class Toy:
    out: Path
    seed: int
    task: Word
    policy: IQL | CPL
    data: str | None = None
    files: tuple[Path, ...] = ()


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[list[str]], object]], None]:
    """Put a function behind the command `toy`."""

    def put(function: Callable[[list[str]], object]) -> None:
        module = types.ModuleType("toy_command")
        module.main = function  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "toy_command", module)
        monkeypatch.setitem(COMMANDS, "toy", Command("a toy", "toy_command:main"))

    return put


@pytest.fixture(scope="module")
def toy_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("package") / "toy_settings"
    (folder / "policy").mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "toy.yaml").write_text(
        "# How to play.\ndefaults:\n  - policy: iql\n  - _self_\nout: runs/toy\nseed: 0 # the only one\ntask: drawer-close\n"
        "data: null\nfiles: []\n"
    )
    (folder / "policy" / "iql.yaml").write_text("name: iql\ngamma: 0.99\n")
    (folder / "policy" / "cpl.yaml").write_text("name: cpl\nalpha: 0.1\n")
    return folder


@pytest.fixture
def toy(toy_package: Path, inside: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Sequence[str]], list[DictConfig]]:
    """Run the hydra command `toy` and return the settings of each call, in an empty working directory."""
    monkeypatch.syspath_prepend(str(toy_package.parent))
    monkeypatch.setattr(settings_from, "PACKAGE", toy_package.name)

    def run(argv: Sequence[str]) -> list[DictConfig]:
        calls: list[Toy] = []
        run_hydra("toy", argv, Toy, calls.append)
        return [DictConfig(plain(call)) for call in calls]

    return run


def test_help_has_a_line_for_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, command in COMMANDS.items():
        assert any(line.split()[:1] == [name] and line.endswith(command.text) for line in lines)
    assert max(map(len, lines)) <= 100


def test_help_is_quick_because_it_imports_nothing_heavy() -> None:
    script = (
        "import sys; from robopref.configs.cli import main; main(['--help'])\n"
        "print(*sorted({'torch', 'mujoco', 'numpy', 'hydra', 'tyro'} & sys.modules.keys()), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr.strip()) == (0, "") and "usage" in done.stdout.lower()


def test_installed_script_prints_the_version() -> None:
    script = Path(sys.executable).with_name("robopref")
    output = subprocess.run([script, "--version"], check=True, capture_output=True, text=True).stdout
    assert output.startswith("robopref 0.")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = main([name, "-h"])
    except SystemExit as end:  # tyro and argparse leave this way
        status = int(end.code or 0)
    assert status == 0
    assert f"robopref {name}" in capsys.readouterr().out


def test_nothing_and_unknown_commands_are_usage_errors(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert main(["colect"]) == 2
    assert capsys.readouterr().err == (
        "error: there is no command 'colect'. Did you mean 'collect'? `robopref --help` lists them\n"
    )


def test_digests_are_skipped_by_one_command_and_its_workers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("ROBOPREF_SKIP_DIGESTS", raising=False)
    seen: list[bool] = []
    monkeypatch.setattr(cli, "run", lambda name, words: seen.append(skips_digests()))
    assert (main(["--skip-digests", "report", "x"]), main(["report", "x"])) == (0, 0)
    assert seen == [True, False] and "ROBOPREF_SKIP_DIGESTS" not in os.environ
    monkeypatch.undo()
    assert main(["report", "--skip-digests"]) == 2
    assert "--skip-digests stands before the command: robopref --skip-digests report ..." in capsys.readouterr().err
    assert main(["--skip-digests"]) == 2


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (RoboprefError("data.hdf5 is empty: collect again"), 1, "error: data.hdf5 is empty: collect again\n"),
        (UsageError("unknown setting 'sed'"), 2, "error: unknown setting 'sed'\n"),
        (KeyboardInterrupt(), 130, "interrupted; what was finished is kept, and the same command continues"),
    ],
)
def test_exit_status(error: BaseException, status: int, text: str, command: Callable, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(argv: list[str]) -> None:
        raise error

    command(fail)
    assert main(["toy"]) == status
    captured = capsys.readouterr()
    assert captured.err.startswith(text) and captured.out == "" and "Traceback" not in captured.err


@pytest.mark.parametrize(
    "error", [MemoryError("Unable to allocate 7 TiB"), RuntimeError("DefaultCPUAllocator: can't allocate memory\nx")]
)
def test_too_little_memory_is_one_line(error: Exception, command: Callable, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(argv: list[str]) -> None:
        raise error

    command(fail)
    assert main(["toy"]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: there is not enough memory ({str(error).splitlines()[0]}): ask for less at a time")
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_what_libraries_make_of_an_interrupt_is_an_interrupt(
    number: signal.Signals, status: int, command: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(argv: list[str]) -> None:
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), number)
            time.sleep(30)
        raise ValueError("could not determine the shape of object type 'torch.storage.UntypedStorage'")

    command(fail)
    assert main(["toy"]) == status
    assert capsys.readouterr().err == "interrupted; what was finished is kept, and the same command continues\n"


def test_what_a_shell_has_put_in_the_background_ignores_interrupts(command: Callable) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        command(lambda argv: os.kill(os.getpid(), signal.SIGINT))
        assert main(["toy"]) == 0 and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_within_a_destructor_is_not_lost(
    number: signal.Signals, status: int, command: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    class Thing:
        def __del__(self) -> None:
            os.kill(os.getpid(), number)
            sum(range(10))

    def work(argv: list[str]) -> None:
        Thing()
        time.sleep(30)

    command(work)
    before, hook = time.monotonic(), sys.unraisablehook
    assert main(["toy"]) == status and time.monotonic() - before < 10 and sys.unraisablehook is hook
    assert capsys.readouterr().err == "interrupted; what was finished is kept, and the same command continues\n"


def test_traceback_when_asked_and_when_unexpected(command: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(argv: list[str]) -> None:
        raise RoboprefError("expected") if argv else ZeroDivisionError

    command(fail)
    with pytest.raises(ZeroDivisionError):
        main(["toy"])
    monkeypatch.setenv("ROBOPREF_DEBUG", "1")
    with pytest.raises(RoboprefError):
        main(["toy", "word"])


def test_overrides_and_groups(toy: Callable) -> None:
    arguments = list(sys.argv)
    (settings,) = toy(["seed=3", "policy=cpl", "policy.alpha=0.2"])
    policy, others = {"name": "cpl", "alpha": 0.2}, {"data": None, "files": []}
    assert settings == {"out": "runs/toy", "seed": 3, "task": "drawer-close", "policy": policy} | others
    assert sys.argv == arguments
    assert not os.listdir(), "hydra must leave no folder or log of its own"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("sed=1", "toy has no setting 'sed'. Did you mean 'seed'?"),
        ("polcy=iql", "toy has no setting 'polcy'. Did you mean 'policy'?"),
        ("policy.gama=1", "toy has no setting 'policy.gama'. Did you mean 'policy.gamma'?"),
        ("policy=iqll", "policy=iqll does not exist (one of: cpl, iql). Did you mean 'iql'?"),
        ("seed==", "cannot read the override 'seed=='"),
        ("seed=[1", "cannot read the override 'seed=[1'"),
    ],
)
@pytest.mark.parametrize("flags", [[], ["-m"]])
def test_mistyped_override(toy: Callable, word: str, message: str, flags: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        toy([word, *flags])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "policy=sac data=data/offline/door-close frames=400",
            "error: policy=sac has no setting 'data': it learns while it acts; policies that learn from data: bc, bc_d4rl, cpl, "
            "cpl_kl, dpo, ipl, iql, iql_adroit, iql_antmaze, iql_d4rl, piql, td3bc; `robopref train policy=sac -h` lists its "
            "settings\n",
        ),
        (
            "policy=ppo labels=x",
            "error: policy=ppo has no setting 'labels': it learns while it acts; policies that learn from data:",
        ),
        (
            "policy=bc frames=400",
            "error: policy=bc has no setting 'frames': it learns from data; policies that learn while they act: c_chain, cir, "
            "gtr, ppo, ppo_kl, sac; `robopref train policy=bc -h` lists its settings\n",
        ),
        ("policy=sac sed=1", "error: policy=sac has no setting 'sed'. Did you mean 'seed"),
        ("policy=sac zzz=1", "error: policy=sac has no setting 'zzz'. `robopref train policy=sac -h` lists them\n"),
    ],
)
def test_a_setting_of_another_policy_is_told_in_the_users_words(
    words: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *words.split()]) == 2
    assert capsys.readouterr().err.startswith(said)


def test_what_is_not_near_is_not_suggested() -> None:
    assert nearest("data", ["abstain"]) == "" and nearest("sed", ["seed"]) == " Did you mean 'seed'?"


def test_list_of_values_without_the_sweep_flag(toy: Callable) -> None:
    with pytest.raises(UsageError, match=r"seed=1,2.*To sweep over it, add --multirun"):
        toy(["seed=1,2"])


def test_sweep_runs_every_combination_in_a_folder_of_its_own(toy: Callable) -> None:
    calls = toy(["task=door-open", "-m", "seed=1,2", "policy=iql,cpl"])
    assert [(call.seed, call.policy.name, call.task) for call in calls] == [
        (1, "iql", "door-open"),
        (1, "cpl", "door-open"),
        (2, "iql", "door-open"),
        (2, "cpl", "door-open"),
    ]
    assert calls[0].out == "runs/toy/seed=1,policy=iql" and len({call.out for call in calls}) == 4
    assert sorted(os.listdir("runs/toy")) == ["multirun.yaml"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["task=a/b,a-b"], "two jobs of this sweep would write into .*/runs/toy/task=a-b: sweep over values that differ"),
        (["seed=1,1"], "two jobs of this sweep would write into .*/runs/toy/seed=1"),
        (["out=x,x/y"], "two jobs of this sweep would write into .*/x"),
        (["seed=1,x"], "seed=x must be int"),
    ],
)
def test_a_refused_sweep_runs_and_leaves_nothing(toy: Callable, words: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        toy([*words, "-m"])
    assert not os.listdir()


def test_a_job_equal_to_a_word_that_all_have_gets_a_folder_of_its_own(toy: Callable) -> None:
    calls = toy(["seed=1", "-m", "seed=1,2"])
    assert [call.out for call in calls] == ["runs/toy/seed=1", "runs/toy/seed=2"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("train policy=null", "policy=null: give the name of one of bc, "),
        ("train policy=5", "policy=5: give the name of one of bc, "),
        ("train =5", "=5 has no key: write key=value"),
        (
            "train policy=bc --resolve",
            "The --resolve flag can only be used in conjunction with --cfg or --help; `robopref train -h`",
        ),
        (
            "train policy=bc --cfg 9",
            "argument --cfg/-c: invalid choice: '9' (choose from 'job', 'hydra', 'all'); `robopref train -h`",
        ),
        ("train -x", "unrecognized arguments: -x; `robopref train -h` lists the settings"),
        (
            "train experiment=foo",
            "`robopref train` takes experiment=cir_paper | cir_vlp | gtr_vlp; with -h it lists its settings",
        ),
        ("pretrain experiment=foo", "`robopref pretrain` takes no experiment=; with -h it lists its settings"),
        ("annotate --pairs x", "Error parsing --pairs: invalid literal for int() with base 10: 'x'; `robopref annotate -h`"),
        ("annotate --episods x", "Unrecognized options: --episods, x; Perhaps you meant: --episodes {None}|PATH; `robopref"),
        ("annotate --labeller foo", "invalid choice 'foo' for argument '--labeller'. Expected one of ('vlp', 'scripted', "),
        (
            "evaluate --polcy",
            "Missing from robopref evaluate: --policy [STR [STR ...]] --out PATH; Unrecognized options: --polcy; `",
        ),
        (
            "evaluate --goals",
            "Missing value for argument '--goals'. Expected 1 values; `robopref evaluate -h` explains the flags",
        ),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])  # the frames that tyro draws are of other letters there
def test_mistyped_words_are_one_plain_line(words: str, said: str, encoding: str, inside: Path) -> None:
    script = Path(sys.executable).with_name("robopref")
    environment = os.environ | {"PYTHONIOENCODING": encoding, "COLUMNS": "60"}
    done = subprocess.run([script, *words.split()], capture_output=True, text=True, env=environment)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith(f"error: {said}") and done.stderr.count("\n") == 1
    assert not list(inside.iterdir())


@pytest.mark.parametrize(("leads_to", "said"), [("loop", "that leads back to itself"), ("away", "to away, which is not there")])
def test_a_link_that_leads_nowhere_is_named(leads_to: str, said: str, inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("loop").symlink_to(leads_to)
    argv = ["evaluate", "--policy", "random", "--env", "metaworld/door-close", "--goals", "1", "--max-steps", "1", "--out"]
    for out in ("loop", "loop/below"):
        assert main([*argv, out]) == 1
        told = capsys.readouterr().err
        assert "loop" in told and f": a symbolic link {said}: remove it, or name another path" in told and told.count("\n") == 1


def test_an_interrupt_before_anything_is_begun_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(command: Callable[[], object]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "guarded", interrupted)
    assert main(["--version"]) == main(["collect"]) == 130
    assert capsys.readouterr().err == "interrupted\n" * 2


def test_the_start_waits_for_no_module_that_only_some_need() -> None:
    script = (
        "import sys; bare = set(sys.modules); import robopref.configs.cli\n"
        "print(*sorted({'importlib.metadata', 'ast', 'email', 'zipfile'} & (sys.modules.keys() - bare)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


def test_an_error_is_one_line_whatever_it_quotes(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise RoboprefError("a\nb.yaml is no YAML (while scanning\n  in line 3, column 4\n): mend it")

    assert guarded(fail) == 1
    assert capsys.readouterr().err == "error: a b.yaml is no YAML (while scanning in line 3, column 4 ): mend it\n"


def test_help_of_a_hydra_command_shows_groups_and_commented_settings(toy: Callable, capsys: pytest.CaptureFixture[str]) -> None:
    assert toy(["policy=cpl", "-h"]) == []
    text = capsys.readouterr().out
    assert "robopref toy" in text and "policy = cpl | iql" in text
    assert "# How to play." in text and "seed: 0 # the only one" in text and "alpha: 0.1" in text
    assert toy(["--cfg", "job"]) == []
    assert "gamma: 0.99" in capsys.readouterr().out


def test_compose_is_the_library_way_in(toy: Callable) -> None:
    assert compose("toy", ["seed=4"]).seed == 4
    with pytest.raises(UsageError, match="Did you mean 'seed'"):
        compose("toy", ["sed=4"])


@dataclass(frozen=True)
class Policy:
    name: Literal["iql", "cpl"]
    gamma: float = 0.99


@dataclass(frozen=True)
class Settings:
    out: Path
    policy: Policy
    seed: int = 0
    tasks: tuple[str, ...] = ()
    size: tuple[int, int] = (64, 64)
    video: Path | None = None
    weights: dict[str, float] = field(default_factory=dict)
    dry: bool = False


GOOD: dict[str, Any] = {"out": "runs", "policy": {"name": "iql"}}


def test_to_dataclass_converts_to_the_annotated_types() -> None:
    tree = GOOD | {"tasks": ["a", "b"], "size": [1, 2], "video": "x.mp4", "weights": {"ilp": 1}}
    assert to_dataclass(Settings, DictConfig(tree)) == Settings(
        Path("runs"), Policy("iql"), 0, ("a", "b"), (1, 2), Path("x.mp4"), {"ilp": 1.0}
    )
    assert to_dataclass(Settings, GOOD).video is None
    assert to_dataclass(Settings, GOOD | {"tasks": [True]}).tasks == ("true",), "a word that the grammar takes for no word"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sed": 1}, "unknown setting 'sed'. Did you mean 'seed'?"),
        ({"policy": {"name": "iql", "gama": 1}}, "unknown setting 'policy.gama'. Did you mean 'gamma'?"),
        ({"zzz": 1}, "unknown setting 'zzz'. Known: out, policy, seed"),
        ({"policy": {}}, "setting 'policy.name' is missing: give policy.name=VALUE"),
        ({"out": "???"}, "setting 'out' is missing: give out=VALUE"),
        ({"policy": {"name": "icl"}}, "policy.name=icl is not one of: iql, cpl."),
        ({"seed": "one"}, "seed=one must be int"),
        ({"seed": True}, "seed=True must be int"),
        ({"seed": 1.5}, "seed=1.5 must be int"),
        ({"dry": 1}, "dry=1 must be bool"),
        ({"policy": 3}, "policy must be a group of settings, not 3"),
        ({"tasks": "drawer-close"}, "tasks=drawer-close must be a list, tasks=[drawer-close]"),
        ({"tasks": ["a", 1]}, "tasks[1]=1 must be str"),
        ({"size": [1]}, "size=[1] has 1 values, 2 are wanted"),
        ({"video": 1}, "video=1 must be Path"),
    ],
)
def test_to_dataclass_names_the_wrong_key(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        to_dataclass(Settings, GOOD | change)
    assert message in str(caught.value)


def test_a_folder_that_cannot_be_written_is_one_line(command, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch):
    file = tmp_path / "file"
    file.write_text("not a folder")
    command(lambda argv: (file / "out").mkdir())
    assert main(["toy"]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: {file / 'out'}: Not a directory: look at the path") and len(said.splitlines()) == 1
    monkeypatch.setenv("ROBOPREF_DEBUG", "1")
    with pytest.raises(NotADirectoryError):
        main(["toy"])


def test_letters_that_a_terminal_has_not_are_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", narrow)
    monkeypatch.setattr("robopref.configs.cli.run", lambda name, words: print("Δ"))
    assert main(["prof"]) == 0
    narrow.flush()
    assert narrow.buffer.getvalue() == b"\\u0394\n"  # type: ignore[attr-defined]


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
DIGITS = "9" * 5000
DEEP = "[" * 3000 + "]" * 3000


@pytest.mark.parametrize(
    ("word", "said"),
    [
        (f"seed={DIGITS}", "seed=9999"),
        (f"policy.gamma={DIGITS}", "a number with too many digits"),
        (
            "seed=${oc.env:NOPE}",
            "seed: KeyError raised while resolving interpolation: ",
        ),
        ("out=${out}", "out: Recursive interpolation detected"),
        (f"seed={DEEP}", "nested too deep"),
        (f"files={DEEP}", "nested too deep"),
        ("out=\ud800", "out holds a character that none is"),
        ("out=\0", "out holds a character that none is"),
        ("seed=" + "-" * 5000, "must be int"),
        ("seed='a\nb'", "seed=a b must be int"),
        ("seed=range(0,10000000000) -m", "a sweep of 10000000000 jobs; at most 10000 are taken at once"),
        ("--config-dir=/nowhere", "Additional config directory '/nowhere' not found"),
    ],
)
def test_values_that_nothing_can_be_made_of_are_one_line(toy: Callable, word: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        toy(word.split(" "))
    assert said in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 1800


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOMB, ", line 3: *a is an alias: write out what it stands for"),
        (f"seed: {DIGITS}", " cannot be read (a number with too many digits): mend it"),
        (f"seed: {DEEP}", " cannot be read (values more than 64 deep): mend it"),
        (
            "seed: !!python/object/apply:os.system [ls]",
            " cannot be read (line 2: could not determine a constructor",
        ),
        ("seed: [", " cannot be read (line 3: expected the node content"),
        ("seed: 1\nseed: 2", " cannot be read (line 2: a name that comes twice)"),
        ("out: \udcff", " cannot be read ('utf-8' codec can't decode byte 0xff"),
        ("1: 2", "unknown setting 1: the name of a setting is a word"),
        ('out: "\\0"', "out holds a character that none is"),
        ('out: "\\ud800"', "out holds a character that none is"),
    ],
)
def test_files_of_the_users_that_are_no_settings_are_one_line(toy: Callable, tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "mine" / "experiment" / "x.yaml"
    path.parent.mkdir(parents=True)
    path.write_bytes(f"# @package _global_\n{text}\n".encode("utf-8", "surrogateescape"))
    with pytest.raises(RoboprefError) as caught:
        toy([f"--config-dir={tmp_path / 'mine'}", "+experiment=x"])
    assert str(caught.value).startswith(f"{path}{said}" if said[0] in " ," else said) and "\n" not in str(caught.value)


def test_what_steers_a_terminal_is_spelled_out(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        raise RoboprefError("a\x1b[2Jb\u202ec\x07 does not exist")

    assert guarded(command) == 1
    assert capsys.readouterr().err == "error: a\\x1b[2Jb\\u202ec\\x07 does not exist\n"
