"""Commands that the documents print still are commands: each is read by its own parser, none is run.

Settings of other commands that a study has in its arguments (--variants, --set, variants.yaml) are composed, too.  So a flag or
setting that was renamed fails here, with file and line.
"""

from __future__ import annotations

import functools
import importlib
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import tyro

from robopref.configs import cli, hydra
from robopref.configs import run as configs_run
from robopref.configs.errors import RoboprefError
from robopref.configs.pipeline import PipelineConfig
from robopref.configs.policy import TrainConfig
from robopref.configs.prof import PROFConfig
from robopref.configs.ranges import check, flag
from robopref.configs.unseen import UnseenConfig
from robopref.policies import downstream, offline_study, online_study, onpolicy_study, pipeline, prof_study, study
from robopref.preference import leave_out, unseen

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    ROOT / "README.md",
    *(path for path in sorted((ROOT / "docs").glob("*.md")) if path.name != "lab.md"),  # a log: its commands are of their day
    *sorted((ROOT / "docs" / "results").glob("**/README.md")),
]
# What stands for something that the reader has to choose.
PLACEHOLDERS = {
    "ENV-SET": "hopper-medium-expert",
    "walker2d-SET": "walker2d-medium-expert",
    "hopper-SET": "hopper-medium-expert",
    "SET": "medium-expert",
    "SUITE/TASK": "metaworld/drawer-close",
    "TASK": "drawer-close",
    "ENV": "hopper",
    "$SEED": "1",
    "$TASKS": "drawer-open door-lock",
    "all of runs/prof/hopper-medium-expert/candidates": "a.py,b.py",
    "all rewards of the transcript": "a.py,b.py",
}
FEWER = "..."  # in a command: other settings are left out
TOOLS = ("robopref", "python", "make")
of_online, of_onpolicy = (functools.cache(module.settings_of) for module in (online_study, onpolicy_study))  # 0.1 s a call


@dataclass(frozen=True)
class Printed:
    """A command and where it stands."""

    path: Path
    line: int
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}"


class Read(Exception):
    """The settings that a command has read."""

    def __init__(self, config: Any) -> None:
        self.config = config


def printed(path: Path) -> list[Printed]:
    """The commands of a document, in indented and fenced blocks and, below docs/results, in `...` of the text."""
    text = path.read_text(encoding="utf-8")
    found = [command for line, shell in blocks(text) for command in split(path, line, shell)]
    if "results" in path.parts:
        outside = re.sub(r"(?m)^(?: {4}.*|```(?:.|\n)*?^```)$", "", text)
        for quoted in re.finditer(r"`((?:robopref|python -m|make) [^`]+)`", outside):
            number = text[: text.index(quoted[0])].count("\n") + 1
            commands = split(path, number, " ".join(quoted[1].split()))
            found += [command for command in commands if len(command.words) > (3 if command.words[0] == "python" else 2)]
    return found


def blocks(text: str) -> Iterator[tuple[int, str]]:
    """(line number, command) of indented and fenced lines; those that end in a backslash are joined."""
    fenced, whole, first = False, "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif whole or ((fenced or line.startswith("    ")) and line.split() and begins(line)):
            first = first if whole else number
            whole += line.strip()
            if whole.endswith("\\"):
                whole = whole.removesuffix("\\")
                continue
            yield first, whole
            whole = ""


def begins(line: str) -> bool:
    """Whether a line of a block is a command of ours, perhaps behind VARIABLE=VALUE."""
    words = [word for word in line.split() if not re.match(r"[A-Z_]+=", word)]
    return bool(words) and words[0] in TOOLS


def split(path: Path, line: int, shell: str) -> list[Printed]:
    """The commands of a line of shell."""
    for name, value in PLACEHOLDERS.items():
        shell = re.sub(rf"(?<![A-Z/]){re.escape(name)}(?![A-Z])", value, shell)
    commands: list[list[str]] = [[]]
    for word in shlex.split(shell, comments=True):
        if word in ("&&", ";", "|"):
            commands.append([])
        elif commands[-1] or not re.match(r"[A-Z_]+=", word):
            commands[-1].append(word)
    return [Printed(path, line, tuple(words)) for words in commands if words and words[0] in TOOLS]


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> Callable[[Printed], Any]:
    """A function that reads a printed command's settings."""
    parse = tyro.cli

    def parsed(kind: Any, **options: Any) -> None:
        config = parse(kind, **options)
        check(config, flag)
        raise Read(config)

    def composed(name: str, argv: list[str], kind: type, run: Callable[[Any], None]) -> None:
        sweep = "-m" in argv or "--multirun" in argv
        words = [
            re.sub(r"=([^\[,=]+),[^\]]*$", r"=\1", word) if sweep else word for word in argv if word not in ("-m", "--multirun")
        ]
        raise Read(hydra.to_dataclass(kind, hydra.compose(name, words)))

    monkeypatch.setattr(tyro, "cli", parsed)
    monkeypatch.setattr(configs_run, "devices", lambda: ["cpu", "cuda", "cuda:1"])  # as where these were measured
    monkeypatch.setattr(hydra, "run_hydra", composed)

    def read(command: Printed) -> Any:
        try:
            function_of(command.words)()
        except Read as done:
            return done.config
        return None

    return read


def function_of(words: tuple[str, ...]) -> Callable[[], object]:
    """What running the command would begin with."""
    tool, *rest = words
    rest = [word for word in rest if word != FEWER]
    if tool == "make":
        return lambda: make(rest)
    if tool == "robopref":
        return lambda: cli.run(rest[0], rest[1:])
    if rest[0] == "-c":
        return lambda: compile(rest[1], "-c", "exec")
    assert rest[0] == "-m", words
    module = importlib.import_module(rest[1])
    return lambda: module.main(rest[2:])


def make(words: list[str]) -> None:
    """Raises unless the Makefile has the verb and uses the variables; SETTINGS are the pipeline's."""
    recipes = (ROOT / "Makefile").read_text(encoding="utf-8")
    for word in words:
        name, equals, value = word.partition("=")
        if equals and f"$({name})" not in recipes and f"$(or $({name})" not in recipes and f"$(if $({name})" not in recipes:
            raise RoboprefError(f"the Makefile uses no {name}")
        if not equals and not re.search(rf"(?m)^{word}:", recipes):
            raise RoboprefError(f"the Makefile has no verb {word}")
        if name == "SETTINGS":
            hydra.to_dataclass(PipelineConfig, hydra.compose("pipeline", value.split()))


def compose_inside(config: Any) -> None:
    """Compose the settings that a study's arguments hold."""
    if isinstance(config, online_study.OnlineStudyConfig) and not config.summary:
        for variant in config.variants:
            of_online(config, config.envs[0], variant, config.seeds[0])
    elif isinstance(config, onpolicy_study.OnPolicyStudyConfig) and not config.summary:
        for world, variant in product(config.worlds, config.variants):
            of_onpolicy(config, world, variant)
    elif isinstance(config, offline_study.OfflineStudyConfig) and not config.summary:
        for data in config.data:
            for variant in config.variants:
                offline_study.settings_of(config, data, variant)
    elif isinstance(config, prof_study.PROFStudyConfig) and not config.summary:
        words = [*config.learner.split(), "data=data.hdf5", "reward=reward.py", "out=out"]
        hydra.to_dataclass(TrainConfig, hydra.compose("train", words))
        run = PROFConfig(Path("run"), "mujoco/hopper", "data.hdf5")
        for variant in config.variants:
            words = [] if variant.endswith("=") else online_study.named("--variants", variant)[1]
            prof_study.changed(run, words)
    elif isinstance(config, study.StudyConfig):
        variants = study.read_variants(ROOT / config.variants)
        for name in config.only or variants:
            study.pipeline_settings(variants[name].get("set", []))
    elif isinstance(config, leave_out.LeaveOutConfig):
        variants = leave_out.read_variants(ROOT / config.variants)
        for name in config.only or variants:
            leave_out.settings_of(variants[name], 0)
    elif isinstance(config, downstream.DownstreamConfig) and not config.summary:
        assert set(config.policies) <= set(downstream.POLICIES)
        downstream.settings_of(config, 0)
    elif isinstance(config, UnseenConfig):
        for name in config.only or config.variants:
            unseen.variant(config.vlp, name, config.variants[name])
    elif isinstance(config, PipelineConfig):
        pipeline.Job(config)


def problems(path: Path, read: Callable[[Printed], Any]) -> list[str]:
    """What is wrong with the commands of a document."""
    found = []
    for command in printed(path):
        try:
            compose_inside(read(command))
        except (RoboprefError, KeyError, ModuleNotFoundError, AttributeError, SyntaxError) as error:
            if not (FEWER in command.words and "is missing" in str(error)):
                found.append(f"{command}: {error}")
    return found


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_printed_command_is_read_by_its_own_parser(path, reading, inside):
    found = problems(path, reading)
    assert not found, "\n".join(found)


def test_a_mistyped_flag_and_setting_are_named_with_file_and_line(reading, inside):
    page = inside / "page.md"
    bad = [
        "robopref evaluate --goal 3",
        "robopref train policy.stps=3 out=x data=y",
        "make demmo",
        "robopref trian",
        "python -m robopref.no",
    ]
    bad += ['python -m robopref.policies.online_study --out x.csv --variants "a=policy=cir policy.bf16=true"']
    page.write_text("\n".join(f"    {command}" for command in bad) + "\n\n    pip install nothing\n")
    commands = printed(page)
    assert [command.line for command in commands] == list(range(1, 1 + len(bad)))
    for command in commands:
        with pytest.raises((RoboprefError, ModuleNotFoundError)):
            compose_inside(reading(command))


RESULTS = ROOT / "docs" / "results"
RENAMED = ("precision.csv", "bf16.csv", "dmc_first.csv")  # run when settings had other names, which their README says
TABLES = [path.relative_to(RESULTS).as_posix() for path in sorted(RESULTS.glob("**/*.csv"))]


def known_rows(module: Any, config: Any) -> Iterator[tuple[dict[str, object], str]]:
    """(key, fingerprint) of the rows that a study's command makes."""
    for variant in config.variants:
        if module is onpolicy_study:
            for world in config.worlds:
                place, name, settings, peer = of_onpolicy(config, world, variant)
                yield {"world": place, "variant": name}, online_study.fingerprint(settings, peer)
        else:
            seed = config.seeds[0]
            name, settings = of_online(config, config.envs[0], variant, seed)
            yield {"env": config.envs[0], "variant": name, "seed": seed}, module.fingerprint(settings, module.is_peer(variant))


@pytest.mark.parametrize("folder", ["online", "onpolicy"])
def test_the_printed_commands_are_those_that_made_the_rows(folder, reading, inside):
    seen = 0
    for command in printed(RESULTS / folder / "README.md"):
        if "_study" not in " ".join(command.words[:3]) or "--summary" in command.words:
            continue
        config = reading(command)
        if config.out.name in RENAMED:
            continue
        table = pd.read_csv(RESULTS / folder / config.out.name, dtype={"variant": str, "settings": str})
        for key, mark in known_rows(importlib.import_module(command.words[2]), config):
            here = table[(table[list(key)] == pd.Series(key)).all(axis=1)]
            assert set(here["settings"]) == {mark}, f"{command}: {config.out.name} has no rows of {key} with these settings"
            seen += 1
    assert seen > 20


def listed(heading: str) -> set[str]:
    """The CSVs that the index names under a heading, `*` for any folder."""
    part = (RESULTS / "README.md").read_text(encoding="utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    patterns = [
        name for line in part.splitlines() if line.startswith("* ") for name in re.findall(r"`([^`]+\.csv)`", line.split(":")[0])
    ]
    unknown = [pattern for pattern in patterns if not list(RESULTS.glob(pattern))]
    assert not unknown, f"docs/results/README.md lists {unknown}, which are not there"
    return {path.relative_to(RESULTS).as_posix() for pattern in patterns for path in RESULTS.glob(pattern)}


@pytest.mark.parametrize("table", TABLES)
def test_every_table_is_named_and_has_a_command_or_a_reason(table):
    folder, _, name = table.partition("/")
    if not name:
        folder, name = ".", table
    readme = RESULTS / folder / "README.md"
    text = readme.read_text(encoding="utf-8")
    assert Path(name).name in text, f"{readme} does not say what {name} is"
    made = {
        Path(word.partition("=")[2] if word.startswith("CSV=") else word).name
        for command in printed(readme)
        for word in command.words
    }
    made |= {
        f"{Path(word).stem}-{more}.csv" for word in made if word.endswith(".csv") for more in ("curves", "losses", "rankings")
    }
    whole = listed("Tables that a command writes under its own name")
    gone = listed("Tables that no command can make again")
    assert (Path(name).name in made) or table in whole | gone, f"{table}: print its command, or list it in docs/results/README.md"
    assert not (whole & gone)


def test_the_index_names_every_folder():
    text = (RESULTS / "README.md").read_text(encoding="utf-8")
    for folder in RESULTS.iterdir():
        if folder.is_dir() and not folder.name.startswith("_"):
            assert f"[{folder.name}]({folder.name}" in text, folder
