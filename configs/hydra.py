"""Settings from YAML files and `key=value` overrides to a frozen dataclass, with errors that name the nearest key.

    argv -> run_hydra -> DictConfig -> to_dataclass -> the stage's run(config)

YAML lives in this package (`pkg://robopref.configs`), so every command finds it from a checkout and from a wheel alike.
"""

from __future__ import annotations

import dataclasses
import io
import os
import re
import shlex
import shutil
import sys
import tempfile
import types
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr, suppress
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, RangeSweep
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from .errors import RoboprefError, UsageError, nearest
from .files import atomic_file, expand_home, odd_text, read_yaml, refuse_deep, yaml_problem
from .policy import kind_of
from .ranges import Text, check, keys_of, text_at

PACKAGE = "robopref.configs"
_VERSION = "1.3"
COMMAND = {"train_online": "train", "train_onpolicy": "train", "d4rl_protocol": "collect protocol=d4rl"}
"""Where it is not the settings' own name."""
_HYDRA_ERRORS = (ConfigCompositionException, MissingConfigException, OverrideParseException, OmegaConfBaseException)
_READING: tuple[type[Exception], ...] = (
    *(*_HYDRA_ERRORS, HydraException, yaml.YAMLError, RecursionError),
    *(ValueError, TypeError, LookupError, AttributeError, AssertionError),
)
"""Whatever it trips over in words and files that hold no settings."""
SHORT = 40  # letters of a word that an error quotes
MOST_JOBS = 10_000  # of a sweep: all are composed, and held in memory, before the first one works
# A stage writes its own manifest into its own folder: hydra shall add no folder, no log file, no change of directory.
_QUIET = (
    "hydra.output_subdir=null",
    "hydra.run.dir=.",
    "hydra.sweep.subdir=.",
    "hydra/job_logging=none",
    "hydra/hydra_logging=none",
)

_DOLLAR = r"${KEY} stands for another setting and \${ for itself"
_OWN = ("--config-dir", "-cd", "--config-path", "-cp")
_SWEEP = {"-m", "--multirun"}
SWEEP = "multirun.yaml"
"""Name of the file in which hydra describes a sweep; it lies beside the folders of the jobs."""
_FLAGS = {
    "--help", "--hydra-help", "--version", "--cfg", "--resolve", "--package", "--run", "--multirun", "--shell-completion",
    "--config-path", "--config-name", "--config-dir", "--experimental-rerun", "--info",
}  # fmt: skip
"""Hydra's own."""

T = TypeVar("T")


def compose(config_name: str, overrides: Sequence[str] = (), kind: type | None = None) -> DictConfig:
    """The settings of `configs/CONFIG_NAME.yaml` with hydra overrides; UsageError names the nearest key or choice.

    kind: the dataclass that they will become, whose keys need not be looked up then.
    """
    try:
        return _compose(config_name, overrides)
    except _READING as error:
        raise _explained(error, config_name, overrides, kind) from error


def run_hydra(config_name: str, argv: Sequence[str], kind: type[T], run: Callable[[T], object]) -> None:
    """Compose from `argv` and call `run(settings)`: once, or once a combination with `-m` (`-m seed=0,1`).

    kind: the dataclass that the settings become.  Where it wants text, a value is taken as it was typed (`_literal`).
    In a sweep each job writes below the common `out`, to a folder named after its overrides.  `-h` explains the
    settings; hydra's own flags (`--cfg job`, `--info`, ...) work as usual.  Errors: RoboprefError, as run raises them.
    """
    # hydra's parser wants all overrides in one run of words; people put -m anywhere among them.
    typed = [word for word in argv if not word.startswith("-") and ("=" in word or word.startswith("~"))]
    flags = [word for word in argv if word not in typed]
    _refuse_flags(config_name, argv, kind)
    _refuse_values(typed)
    _refuse_aliases(argv)
    sweep = bool(_SWEEP & set(flags))
    try:
        overrides = [_literal(word, kind, sweep) for word in typed]
    except _READING as error:
        raise _explained(error, config_name) from error
    if {"-h", "--help"} & set(flags):
        print(_help(config_name, overrides))
        return
    if not flags:
        run(to_dataclass(kind, compose(config_name, overrides, kind)))  # in half the time that hydra's main takes
        return
    jobs: list[DictConfig] = []
    told: set[str] = set()  # where a sweep was told to write

    def task(settings: DictConfig) -> None:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            told.add(str(settings.get("out", "multirun")))
            settings = _own_folder(settings, list(HydraConfig.get().overrides.task), overrides)
        jobs.append(settings)

    # Without this hydra prints tracebacks and exits by itself; with it the errors come to us.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    with tempfile.TemporaryDirectory() as aside:
        quiet = [*_QUIET, f"hydra.sweep.dir={aside}"]
        arguments, sys.argv = sys.argv, [f"robopref {config_name.replace('_', '-')}", *flags, *quiet, *overrides]
        try:
            if sweep:
                _refuse_endless(overrides)
            _call_hydra(config_name, task)
        except _READING as error:
            raise _in_files(argv) or _explained(error, config_name, overrides, kind) from error
        finally:
            sys.argv = arguments
        # Outside hydra, which reports errors of a job with lines of its own; and the last job's settings are read before the
        # first job has worked for hours.
        configs = [to_dataclass(kind, settings) for settings in jobs]
        if jobs and sweep:
            _refuse_shared(jobs)
            if len(told) == 1:  # else there is no folder that all jobs are in
                with atomic_file(Path(*told) / SWEEP) as file:
                    shutil.copyfile(Path(aside) / SWEEP, file)
    for config in configs:
        run(config)


def _call_hydra(config_name: str, task: Callable[[DictConfig], None]) -> None:
    """Hydra's main on sys.argv; UsageError for flags that it does not know, or takes only together with others."""
    told = io.StringIO()
    try:
        with redirect_stderr(told):
            hydra.main(version_base=_VERSION, config_path=f"pkg://{PACKAGE}", config_name=config_name)(task)()
    except SystemExit as end:  # of its parser, which has printed how all of them are used
        if end.code != 2:
            raise
        problem = told.getvalue().strip().rpartition("error: ")[2]
        raise UsageError(f"{problem}; `robopref {_command(config_name)} -h` lists the settings") from None


def _refuse_endless(overrides: Sequence[str]) -> None:
    """UsageError for a sweep of more jobs than anybody waits for, before hydra lists them all."""
    jobs = 1.0
    for read in OverridesParser.create().parse_overrides(list(overrides)):
        swept = read.value()
        if isinstance(swept, RangeSweep):
            jobs *= max(0.0, (float(swept.stop or 0) - float(swept.start or 0)) / float(swept.step or 1))
        elif isinstance(swept, ChoiceSweep):
            jobs *= len(swept.list)
        if jobs > MOST_JOBS:
            raise UsageError(f"{read.input_line}: a sweep of {jobs:.0f} jobs; at most {MOST_JOBS} are taken at once")


def _in_files(argv: Sequence[str]) -> RoboprefError | None:
    """Return what is wrong with a settings file in the folder that `--config-dir` names, or None."""
    for path in _own_files(argv):
        try:
            found = read_yaml(path, "mend it, or take it out of --config-dir")
        except RoboprefError as error:
            return error
        if not isinstance(found, dict | None) or not all(isinstance(key, str) for key in found or ()):
            return RoboprefError(f"{path} holds no settings: write key: value, a line a setting")
    return None


def _refuse_aliases(argv: Sequence[str]) -> None:
    """RoboprefError for a file in a folder of `--config-dir` with aliases: nested, they stand for more than there is memory."""
    for path in _own_files(argv):
        text = path.read_text(encoding="utf-8", errors="replace")
        try:
            refuse_deep(text)
        except ValueError as error:
            raise RoboprefError(f"{path} cannot be read ({error}): mend it, or take it out of --config-dir") from None
        with suppress(yaml.YAMLError):  # hydra may not want this file; where it does, it says what is wrong
            for token in yaml.scan(text):
                if isinstance(token, yaml.AliasToken):
                    line = f"line {token.start_mark.line + 1}"
                    raise RoboprefError(f"{path}, {line}: *{token.value} is an alias: write out what it stands for")


def _own_files(argv: Sequence[str]) -> list[Path]:
    """The YAML files below the folders that `--config-dir` and `--config-path` name."""
    named = [word.partition("=")[2] for word in argv if word.startswith(_OWN) and "=" in word]
    named += [after for word, after in pairwise(argv) if word in _OWN]
    return [path for folder in named if "://" not in folder for path in sorted(Path(folder).rglob("*.yaml")) if path.is_file()]


def to_dataclass(cls: type[T], settings: DictConfig | Mapping[str, Any]) -> T:
    """A (frozen, possibly nested) dataclass from settings; fields without a default must be there.

    Knows str, int, float, bool, Path, Literal, X | None, list, tuple, dict and dataclasses; of several dataclasses the one whose
    `name` is given.  Raises UsageError with the full key for an unknown key (naming the nearest), a missing one, or a value of
    another type or out of its range (ranges.py).
    """
    try:
        tree = OmegaConf.to_container(settings, resolve=True) if isinstance(settings, DictConfig) else dict(settings)
    except OmegaConfBaseException as error:
        key = f"{error.full_key}: " if error.full_key else ""
        raise UsageError(f"cannot read the settings: {key}{_first_line(error)}; {_DOLLAR}") from error
    built: T = _built(cls, tree, "")
    check(built)
    return built


def _compose(config_name: str, overrides: Sequence[str], return_hydra_config: bool = False) -> DictConfig:
    with hydra.initialize_config_module(PACKAGE, version_base=_VERSION):
        return hydra.compose(config_name, list(overrides), return_hydra_config)


def _explained(error: Exception, config_name: str, overrides: Sequence[str] = (), kind: type | None = None) -> RoboprefError:
    """What the user mistyped, and the nearest that exists."""
    if isinstance(error, MissingConfigException):
        group, _, choice = (error.missing_cfg_file or "").rpartition("/")
        if not group:
            return RoboprefError(f"{PACKAGE} has no {choice}.yaml: the installation is incomplete, install robopref again")
        options = list(error.options or [])
        return UsageError(f"{group}={choice} does not exist (one of: {', '.join(options)}).{nearest(choice, options)}")
    if isinstance(error, OverrideParseException):
        return UsageError(f"cannot read the override {error.override!r}: write key=value ({_first_line(error)})")
    if not isinstance(error, _HYDRA_ERRORS):
        said = "values, or defaults, that are nested too deep" if isinstance(error, RecursionError) else yaml_problem(error)
        long = next((f"{word[:SHORT]}...: " for word in overrides if re.search(r"\d{1000}", word)), "")
        return UsageError(f"{long}{said}; `robopref {_command(config_name)} -h` lists the settings")
    unknown = re.match(r"Could not (?:override|delete from config\.) '([^']+)'", str(error))
    if unknown is None:
        cause = error.__cause__ if not str(error) and error.__cause__ is not None else error
        if "${" in str(error) or "Interpolation" in str(error):
            return UsageError(f"{_command(config_name)} settings: {_first_line(cause)}; {_DOLLAR}")
        return UsageError(f"{_command(config_name)} settings: {' '.join(_lines(cause))}")
    key = unknown[1]
    groups = _groups()
    if key in groups:
        choices = [choice for choice in groups[key] if config_name == "train" and kind_of([f"{key}={choice}"]) != "train"]
        takes = f"takes {key}={' | '.join(choices)}" if choices else f"takes no {key}="
        return UsageError(f"`robopref {_command(config_name)}` {takes}; with -h it lists its settings")
    policy = next((word for word in reversed(overrides) if word.startswith("policy=")), "")
    command = f"{_command(config_name)} {policy}".strip()
    if elsewhere := _of_other_policies(key, config_name):
        return UsageError(f"{policy or command} has no setting {key!r}: {elsewhere}; `robopref {command} -h` lists its settings")
    options = [*groups, *(keys_of(kind) if kind else _keys(OmegaConf.to_container(_compose(config_name, []))))]
    # The leaf alone is tried too, for a key given without its group.
    hint = nearest(key, options) or nearest(key, [option.rpartition(".")[2] for option in options])
    return UsageError(f"{policy or command} has no setting {key!r}.{hint} `robopref {command} -h` lists them")


def _of_other_policies(key: str, config_name: str) -> str:
    """Why a policy has no such setting of `robopref train` that policies of the other way to learn have; empty for other keys."""
    if _command(config_name) != "train":
        return ""
    acts = config_name != "train"
    if key not in (("data", "labels") if acts else ("env", "frames")):
        return ""
    others = [choice for choice in _groups()["policy"] if (kind_of([f"policy={choice}"]) == "train") == acts]
    why, who = ("learns while it acts", "learn from data") if acts else ("learns from data", "learn while they act")
    return f"it {why}; policies that {who}: {', '.join(others)}"


def _built(cls: type[T], tree: Any, where: str) -> T:
    if not isinstance(tree, Mapping):
        raise UsageError(f"{where} must be a group of settings, not {tree!r}")
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    prefix = f"{where}." if where else ""
    for key in tree:
        if not isinstance(key, str):
            raise UsageError(f"unknown setting {prefix}{key!r}: the name of a setting is a word")
        if key not in fields:
            known = "" if nearest(key, fields) else f" Known: {', '.join(fields)}"
            raise UsageError(f"unknown setting {prefix + key!r}.{nearest(key, fields)}{known}")
    hints = get_type_hints(cls)
    values = {name: _value(hints[name], tree[name], prefix + name) for name in fields if name in tree}
    for name, field in fields.items():
        needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if name not in values and needed:
            raise UsageError(f"setting {prefix + name!r} is missing: give {prefix}{name}=VALUE")
    return cls(**values)


def _value(kind: Any, value: Any, key: str) -> Any:
    """`value` checked against the annotation `kind`; lists become tuples and strings paths where asked."""
    if value == "???":
        raise UsageError(f"setting {key!r} is missing: give {key}=VALUE")
    origin, parts = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind) or (origin in (Union, types.UnionType) and all(map(dataclasses.is_dataclass, parts))):
        kinds = parts or (kind,)
        return value if isinstance(value, kinds) else _built(_named(kinds, value, key), value, key)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in parts:
            return None
        return _alternative([part for part in parts if part is not type(None)], value, key)
    if origin is Literal:
        if value in parts:
            return value
        choices = [str(part) for part in parts]
        raise UsageError(f"{key}={value} is not one of: {', '.join(choices)}.{nearest(str(value), choices)}")
    if origin in (list, tuple, Sequence) and isinstance(value, list | tuple):
        if origin is tuple and parts[-1] is not Ellipsis:
            if len(value) != len(parts):
                raise UsageError(f"{key}={list(value)} has {len(value)} values, {len(parts)} are wanted")
            return tuple(_value(part, item, f"{key}[{i}]") for i, (part, item) in enumerate(zip(parts, value, strict=True)))
        items = [_value(parts[0], item, f"{key}[{i}]") for i, item in enumerate(value)]
        return items if origin is list else tuple(items)
    if origin in (list, tuple, Sequence) and not isinstance(value, Mapping) and value is not None:
        raise UsageError(f"{key}={value} must be a list, {key}=[{value}]")
    if origin in (dict, Mapping) and isinstance(value, Mapping):
        return {name: _value(parts[1], item, f"{key}.{name}") for name, item in value.items()}
    if kind in (Path, str) and value == "":
        raise UsageError(f"{key}= is empty: give a value, or leave it out")
    if isinstance(value, str) and odd_text(value):
        raise UsageError(f"{key} holds a character that none is (NUL, or half of a pair): give other text")
    if kind is Path and isinstance(value, str | Path):
        return Path(value)
    if kind is str and isinstance(value, bool):  # reward=true: to the command line's grammar that is no word
        return str(value).lower()
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(kind, type) and isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    raise UsageError(f"{key}={value} must be {getattr(kind, '__name__', kind) if origin is None else kind}")


def _alternative(kinds: Sequence[Any], value: Any, key: str) -> Any:
    for kind in kinds[:-1]:
        try:
            return _value(kind, value, key)
        except UsageError:
            continue  # the last alternative reports
    return _value(kinds[-1], value, key)


def _named(kinds: Sequence[Any], value: Any, key: str) -> Any:
    """Return the one of several dataclasses whose name `value` gives, where they have names."""
    names: dict[Any, Any] = {getattr(kind, "name", None): kind for kind in kinds}
    name = value.get("name") if isinstance(value, Mapping) else None
    if None in names or (name is None and len(kinds) == 1):
        return kinds[0]
    if name not in names:
        raise UsageError(f"{key}.name={name} is not one of: {', '.join(names)}.{nearest(str(name), names)}")
    return names[name]


def _refuse_flags(config_name: str, argv: Sequence[str], kind: type) -> None:
    """UsageError for `--key value`, which is how other commands take settings, with the words that say the same here."""
    first = next((word for word in argv if word.startswith("--") and word.partition("=")[0] not in _FLAGS), None)
    if first is None:
        return
    said: list[tuple[str, list[str] | None]] = []  # None: the word is well
    for word in argv:
        name, equals, value = word.partition("=")
        if word.startswith("--") and name not in _FLAGS:
            said.append((name.removeprefix("--").replace("-", "_"), [value] if equals else []))
        elif said and (values := said[-1][1]) is not None and not word.startswith("-") and (not equals or not values):
            values.append(word)
        else:
            said.append((word, None))
    told = []
    for key, values in said:
        if values is None:
            told.append(key)
            continue
        several = text_at(kind, key) is Text.LIST or len(values) > 1
        told.append(f"{key}={'[' + ','.join(values) + ']' if several else values[0] if values else 'true'}")
    command = f"robopref {_command(config_name)}"
    raise UsageError(f"{first}: `{command}` takes key=value; write {command} {shlex.join(told)}")


def _refuse_values(words: Sequence[str]) -> None:
    """UsageError for a value without a key, and for a group that is given what cannot be the name of a choice."""
    groups = _groups()
    for word in words:
        key, equals, value = word.partition("=")
        if equals and not key:
            raise UsageError(f"{word} has no key: write key=value")
        if key in groups and re.fullmatch(r"null|true|false|[-+.\d][-+.\de]*|\{.*", value, re.IGNORECASE):
            raise UsageError(f"{word}: give the name of one of {', '.join(groups[key])}")


def _literal(word: str, kind: type, sweep: bool) -> str:
    """An override whose value arrives as it was typed where `kind` wants text, a path for instance.

    In hydra's grammar `=`, blanks, brackets, commas, letters beyond ASCII and much else would need quotes, and 1e3 is a number.
    Hydra's own quotes still work, as do ${KEY}, null where there may be nothing, and, in a sweep, commas and its functions.
    """
    key, equals, value = word.partition("=")
    text = text_at(kind, key.lstrip("+")) if equals else None
    if text is None or (sweep and re.match(r"(choice|range|interval|glob|sort|shuffle|tag)\(.*\)$", value)):
        return word
    alternatives = _split(value) if sweep else [value]
    return f"{key}={','.join(_as_typed(one, text) for one in alternatives)}"


def _as_typed(value: str, text: Text) -> str:
    if text is Text.LIST:
        if not (value.startswith("[") and value.endswith("]")):
            return value  # of the wrong kind, and hydra or to_dataclass will say so
        return (
            f"[{','.join(_as_typed(item.strip(), Text.ONE) for item in _split(value[1:-1]))}]" if value[1:-1].strip() else value
        )
    if value == "null" and text is Text.ONE_OR_NONE:
        return value
    value = expand_home(value)
    try:
        read = OverridesParser.create().parse_override(f"key={value}")
        quoted = value[:1] in ("'", '"') and value[-1:] == value[:1]
        if (
            not read.is_sweep_override()
            and isinstance(read.value(), str)
            and (quoted or (read.value() == value and "\\" not in value))
        ):
            return value
    except HydraException:
        pass
    # A backslash stands for itself, but for those before a quote.
    return "'" + re.sub(r"(\\*)('|$)", lambda end: end[1] * 2 + ("\\'" if end[2] else ""), value) + "'"


def _split(value: str) -> list[str]:
    """The parts between commas that are neither in quotes nor in brackets, which only count when they are closed."""
    parts, depth, quote = [""], 0, ""
    for letter in value:
        if letter == "," and not depth and not quote:
            parts.append("")
            continue
        parts[-1] += letter
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"" and parts[-1].strip() == letter:  # elsewhere it is an apostrophe
            quote = letter
        else:
            depth = max(0, depth + (letter in "[({") - (letter in "])}"))
    return value.split(",") if depth or quote else parts


def _own_folder(settings: DictConfig, overrides: Sequence[str], common: Sequence[str]) -> DictConfig:
    """Settings whose `out` ends in what is swept over: the jobs of a sweep must not write over each other."""
    given = {word.partition("=")[0]: word for word in common}  # the last word for a key is what holds
    swept = [word for word in overrides if given.get(word.partition("=")[0]) != word and not word.startswith(("out=", "~"))]
    if "out" in settings and swept:
        plain = [re.sub(r"=(['\"])(.*)\1$", r"=\2", word) for word in swept]
        settings.out = str(Path(settings.out) / ",".join(plain).replace("/", "-"))
    return settings


def _refuse_shared(jobs: Sequence[DictConfig]) -> None:
    """UsageError when a job of a sweep would write into the folder of another, or into one above it."""
    folders = Counter(Path(settings.out).absolute() for settings in jobs if "out" in settings)
    for folder, count in folders.items():
        shared = folder if count > 1 else next((above for above in folder.parents if above in folders), None)
        if shared is not None:
            raise UsageError(
                f"two jobs of this sweep would write into {shared}: sweep over values that differ in more than / and -, or run "
                "the jobs one by one, each with an out= of its own"
            )


def _help(config_name: str, overrides: Sequence[str]) -> str:
    """Usage, the groups with their choices, and the commented YAML files that are in force with these overrides."""
    usage = f"usage: robopref {_command(config_name)} [GROUP=CHOICE ...] [KEY=VALUE ...] [-m (sweep KEY=A,B)]"
    try:
        chosen = _compose(config_name, overrides, return_hydra_config=True).hydra.runtime.choices
    except _READING as error:
        raise _explained(error, config_name, overrides) from error
    groups = {group: choices for group, choices in _groups().items() if group in chosen}
    lines = [f"{group} = {' | '.join(choices)}" for group, choices in groups.items()]
    names = [f"{config_name}.yaml", *(f"{group}/{chosen[group]}.yaml" for group in groups if chosen[group])]
    texts = [f"--- {name}\n{files(PACKAGE).joinpath(name).read_text(encoding='utf-8').strip()}" for name in names]
    return "\n".join([usage, *lines, *texts])


def _command(config_name: str) -> str:
    """What is typed after `robopref` for these settings; `train` has three kinds, by its policy."""
    return COMMAND.get(config_name, config_name.replace("_", "-"))


def _groups() -> dict[str, list[str]]:
    """Group -> its choices: the folders of YAML files in this package."""
    folders = [folder for folder in files(PACKAGE).iterdir() if folder.is_dir()]
    choices = {
        folder.name: sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))
        for folder in folders
    }
    return {group: choices[group] for group in sorted(choices) if choices[group]}


def _keys(tree: Any, prefix: str = "") -> Iterator[str]:
    for key, value in tree.items() if isinstance(tree, dict) else ():
        yield f"{prefix}{key}"
        yield from _keys(value, f"{prefix}{key}.")


def _first_line(error: BaseException) -> str:
    return next(iter(_lines(error)), type(error).__name__)


def _lines(error: BaseException) -> list[str]:
    return [line.strip() for line in str(error).splitlines() if line.strip()]
