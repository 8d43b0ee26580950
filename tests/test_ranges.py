"""Every number among the settings has a range, which both kinds of command lines hold it to before anything is written."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import math
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest

from robopref import configs
from robopref.configs import run
from robopref.configs.annotate import AnnotateConfig
from robopref.configs.cli import COMMANDS, main
from robopref.configs.errors import UsageError
from robopref.configs.flags import from_flags
from robopref.configs.hydra import compose, to_dataclass
from robopref.configs.policy import TrainConfig
from robopref.configs.ranges import Device, Different, OnDevice, Range, Rule, assignment, check, flag, hints, rules_of

ROOT = Path(__file__).parents[1]
STAGES = (
    "embodied.medium",
    "preference.leave_out",
    "policies.benchmarks.cir_limits",
    "policies.downstream",
    "policies.offline_study",
    "policies.online_study",
    "policies.onpolicy_study",
    "policies.prof_study",
    "policies.study",
    "policies.summary",
)
"""Modules with settings of their own, which are read from flags there."""


def settings_classes() -> dict[str, type]:
    """Every dataclass of settings by its name."""
    names = [f"robopref.configs.{module.name}" for module in pkgutil.iter_modules(configs.__path__)]
    found = {}
    for name in [*names, *(f"robopref.{stage}" for stage in STAGES)]:
        module = importlib.import_module(name)
        for kind in vars(module).values():
            if (
                inspect.isclass(kind)
                and dataclasses.is_dataclass(kind)
                and kind.__module__ == name
                and kind.__name__.endswith("Config")
            ):
                found[kind.__name__] = kind
    return found


CLASSES = settings_classes()


def leaves(hint: Any, rules: tuple[Rule, ...] = ()) -> Iterator[tuple[Any, tuple[Rule, ...]]]:
    """(type without parts, rules in force) of everything that an annotation is made of; but the choices of a Literal."""
    own = rules_of(hint)
    parts = [get_args(hint)[0]] if own else [part for part in get_args(hint) if isinstance(part, type) or get_origin(part)]
    if not parts:
        yield hint, rules
    for part in parts:
        yield from leaves(part, own)


FIELDS = [(name, field, hint) for name, kind in CLASSES.items() for field, hint in hints(kind).items()]
RANGED = [
    pytest.param(name, field, rule, id=f"{name}.{field}")
    for name, field, hint in FIELDS
    for kind, rules in leaves(hint)
    for rule in rules
    if isinstance(rule, Range)
]


@pytest.mark.parametrize(("name", "field", "hint"), [pytest.param(*one, id=".".join(one[:2])) for one in FIELDS])
def test_every_number_has_a_range_and_every_device_and_list_of_seeds_its_rule(name: str, field: str, hint: Any) -> None:
    for kind, rules in leaves(hint):
        if kind in (int, float):
            assert any(isinstance(rule, Range) for rule in rules), f"{name}.{field}: say what it may be (configs/ranges.py)"
    if field in ("device", "seeds", "policy_seeds"):
        assert any(isinstance(rule, OnDevice | Different) for rule in rules_of(hint))


def outside(rule: Range, whole: bool) -> Iterator[float]:
    """Values just out of a range, and what is no number."""
    yield from () if whole else (math.nan, math.inf, -math.inf)
    if math.isfinite(rule.low):
        yield rule.low if rule.open_low else (rule.low - 1 if whole else math.nextafter(rule.low, -math.inf))
    if math.isfinite(rule.high):
        yield rule.high if rule.open_high else (rule.high + 1 if whole else math.nextafter(rule.high, math.inf))


@pytest.mark.parametrize(("name", "field", "rule"), RANGED)
def test_what_is_just_out_of_a_range_is_refused_and_what_is_just_inside_is_not(name: str, field: str, rule: Range) -> None:
    kind = CLASSES[name]
    plain = get_type_hints(kind)[field]
    whole = not any(found is float for found, _ in leaves(plain))
    count = len([part for part in get_args(plain) if part is not Ellipsis]) if get_origin(plain) is tuple else 0

    def settings(value: float) -> Any:
        """An instance with this value alone looked at."""
        blank = kind.__new__(kind)
        for other in dataclasses.fields(kind):
            object.__setattr__(blank, other.name, None)
        object.__setattr__(blank, field, (value,) * count if count else value)
        return blank

    for value in outside(rule, whole):
        with pytest.raises(UsageError, match=re.escape(field)) as caught:
            check(settings(value))
        assert str(rule) in str(caught.value) and "\n" not in str(caught.value)
    for value in (rule.low, rule.high):
        if math.isfinite(value) and value not in outside(rule, whole):
            check(settings(value))


@pytest.mark.parametrize("kind", CLASSES.values(), ids=CLASSES)
def test_defaults_are_in_range(kind: type) -> None:
    blank = kind.__new__(kind)
    for field in dataclasses.fields(kind):
        made = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
        object.__setattr__(blank, field.name, None if made is dataclasses.MISSING else made)
    check(blank)


def test_no_command_reads_its_flags_past_the_check() -> None:
    folders = ("configs", "embodied", "datasets", "preference", "policies")
    users = [path.name for folder in folders for path in (ROOT / folder).rglob("*.py") if "tyro.cli(" in path.read_text()]
    assert users == ["flags.py"]


TRAIN = ["train", "data=nowhere", "policy=bc"]
ANNOTATE = ["annotate", "--episodes", "nowhere", "--labeller", "scripted"]
VIDEO = ["video", "--policy", "expert"]


@pytest.mark.parametrize(
    ("command", "words", "said"),
    [
        (TRAIN, "log_every=0", "log_every=0 is out of range: it must be at least 1"),
        (TRAIN, "checkpoint_every=0", "checkpoint_every=0 is out of range: it must be at least 1"),
        (TRAIN, "threads=0", "threads=0 is out of range: it must be at least 1 and at most 1024"),
        (TRAIN, "policy.batch=0", "policy.batch=0 is out of range: it must be at least 1"),
        (
            TRAIN,
            "policy.batch=99999999999999999999",
            "policy.batch=99999999999999999999 is out of range: it must be at most 2147483647",
        ),
        (TRAIN, "policy.learning_rate=-1", "policy.learning_rate=-1.0 is out of range: it must be above 0"),
        (TRAIN, "policy.learning_rate=nan", "policy.learning_rate=nan is out of range: it must be above 0"),
        (TRAIN, "policy.learning_rate=inf", "policy.learning_rate=inf is out of range: it must be above 0"),
        (TRAIN, "policy.dropout=1", "policy.dropout=1.0 is out of range: it must be at least 0 and below 1"),
        (TRAIN, "policy.hidden=[8,0]", "policy.hidden=0 is out of range: it must be at least 1"),
        (TRAIN, "policy.steps=-5", "policy.steps=-5 is out of range: it must be at least 1"),
        (TRAIN, "device=gpu", "device=gpu is not there: it must be auto or one of this machine's, cpu"),
        (TRAIN, "device=mps", "device=mps is not there: it must be auto or one of this machine's, cpu"),
        (TRAIN, "device=cuda:99", "device=cuda:99 is not there: it must be auto or one of this machine's, cpu"),
        (TRAIN, "seeds=[]", "seeds=[] has 0 values: it must have at least 1"),
        (TRAIN, "seeds=[0,0]", "seeds=[0, 0] has 0 more than once: each must be another"),
        (TRAIN, "seeds=[-1]", "seeds=-1 is out of range: it must be at least 0 and at most 4294967295"),
        (TRAIN, "seeds=[4294967296]", "seeds=4294967296 is out of range: it must be at least 0 and at most 4294967295"),
        (["pipeline"], "piql.expectile=1", "piql.expectile=1.0 is out of range: it must be above 0 and below 1"),
        (["unseen"], "vlp.model.object_error=[0,-1]", "vlp.model.object_error=-1.0 is out of range: it must be at least 0"),
        (["collect"], "--levels random random", "--levels random random has random more than once: each must be another"),
        (VIDEO, "--out q --env=", "--env '' must be one name"),
        (["collect"], "--tasks", "--tasks has no value: it must have at least 1"),
        (ANNOTATE, "--pairs -1", "--pairs -1 is out of range: it must be at least 1"),
        (ANNOTATE, "--seed -1", "--seed -1 is out of range: it must be at least 0 and at most 4294967295"),
        (ANNOTATE, "--clips -5", "--clips -5 is out of range: it must be at least 1"),
        (ANNOTATE, "--temperature nan", "--temperature nan is out of range: it must be above 0"),
        (ANNOTATE, "--baseline.alpha 2", "--baseline.alpha 2.0 is out of range: it must be at least 0 and at most 1"),
        (VIDEO, "--first-goal -3", "--first-goal -3 is out of range: it must be at least 0 and at most 2147483647"),
        (VIDEO, "--phases 1 -2", "--phases -2 is out of range: it must be at least 0"),
        (["collect"], "--max-steps 0", "--max-steps 0 is out of range: it must be at least 1"),
        (["collect"], "--processes 0", "--processes 0 is out of range: it must be at least 1 and at most 1024"),
    ],
)
def test_out_of_range_is_one_line_and_nothing_is_written(
    command: list[str], words: str, said: str, inside: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "devices", lambda: ["cpu"])
    assert main([*command, *words.split()]) == 2
    assert capsys.readouterr() == ("", f"error: {said}\n")
    assert not list(inside.iterdir())


def test_devices_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "devices", lambda: ["cpu", "cuda", "cuda:0", "cuda:1"])
    for device in ("auto", "cpu", "cuda", "cuda:1"):
        check(SettingsOf(device))
    with pytest.raises(UsageError, match=r"device=cuda:2 is not there: .*, cpu, cuda, cuda:0, cuda:1$"):
        check(SettingsOf("cuda:2"))


@dataclasses.dataclass(frozen=True)
class SettingsOf:
    device: Device


def test_settings_of_nested_groups_are_named_as_they_are_given() -> None:
    assert flag("chat.base_url", "x") == "--chat.base-url x" and flag("seeds", (0, 1)) == "--seeds 0 1"
    assert assignment("seeds", (0, 1)) == "seeds=[0, 1]"
    with pytest.raises(UsageError, match=r"^--chat.attempts 0 is out of range"):
        from_flags(AnnotateConfig, ["--chat.attempts", "0"], "robopref annotate", None)


def test_settings_files_are_in_range() -> None:
    for name in ("pipeline", "unseen", "pretrain", "train_vlp"):
        target = COMMANDS[name.replace("_", "-")].settings.partition(":")
        to_dataclass(getattr(importlib.import_module(target[0]), target[2]), compose(name))
    for policy in (ROOT / "configs" / "policy").glob("*.yaml"):
        if policy.stem not in ("cir", "sac", "gtr", "ppo", "ppo_kl", "c_chain"):
            to_dataclass(TrainConfig, compose("train", [f"policy={policy.stem}"]))
