"""`robopref report`: a run folder -> one HTML page that needs nothing else.

The page says what was run, how good the labels are, how training went, what the policies achieve, and plays the videos.
What a run folder lacks is said on the page.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, UndefinedError

from robopref.configs.errors import RoboprefError, visible
from robopref.configs.files import as_written, atomic_file, remove_abandoned
from robopref.configs.run_folder import stage_of
from robopref.configs.show import ReportConfig
from robopref.policies.results import gather

MARK = "Written by robopref report."
"""In the foot of every page, by which it is known."""


def main(config: ReportConfig) -> None:
    """`robopref report`."""
    path = run(config)
    print(f"{path}: {path.stat().st_size / 2**20:.1f} MB, open it in any browser")


def run(config: ReportConfig) -> Path:
    """Write the page and return its path.  Raises `RoboprefError` for a folder that is no run."""
    folder = Path(config.run)
    stage = stage_of(folder)
    if stage != "pipeline":
        holds = "no run" if stage is None else f"a run of `{stage}`"
        raise RoboprefError(f"{folder} holds {holds}: name a folder that `robopref pipeline` made, for example runs/quick")
    path = config.out or folder / "report.html"
    check_target(path)
    try:
        with as_written(folder, "run its stages again"):
            page = render(gather(folder))
    except UndefinedError as error:
        raise RoboprefError(f"{folder}: written by another version of robopref ({error}); run its stages again.") from error
    remove_abandoned(path)
    with atomic_file(path) as aside:
        aside.write_text(visible(page), encoding="utf-8")
    return path


def check_target(path: Path) -> None:
    """RoboprefError when something lies there that a report did not write and would replace."""
    if path.is_dir():
        raise RoboprefError(f"{path} is a folder, and report writes a file: give --out {path / 'report.html'}")
    if path.exists() and not (path.is_file() and MARK in path.read_text(encoding="utf-8", errors="replace")):
        raise RoboprefError(f"{path} is there, and no page that `robopref report` wrote: choose another --out, or move it")


def render(facts: Mapping[str, Any]) -> str:
    """The page.  Every text is escaped on its way in: instructions and paths are other people's words."""
    env = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters |= {
        "duration": duration,
        "bytes": readable_bytes,
        "percent": percent,
        "figure": figure,
        "seeds": seeds,
        "json": readable_json,
    }
    return env.get_template("report.html.j2").render(facts)


def duration(seconds: float | None) -> str:
    """12.3 s, 4 min 05 s, 1 h 02 min; `-` for what is not known."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def readable_bytes(size: float) -> str:
    """Bytes as kB or MB."""
    return f"{size / 1024:.0f} kB" if size < 2**20 else f"{size / 2**20:.1f} MB"


def percent(share: float | None) -> str:
    """A share in [0, 1] as `84 %`; `-` for what is not known."""
    return "-" if share is None else f"{100 * share:.0f} %"


def figure(value: float | None) -> str:
    """A number with three digits behind the point, whole numbers without; `-` for what is not known."""
    if value is None:
        return "-"
    return f"{value:d}" if isinstance(value, int) else f"{value:.3f}"


def seeds(numbers: Sequence[int] | None) -> str:
    """3; 0, 2; 0 to 19."""
    if not numbers:
        return "-"
    if len(numbers) > 2 and list(numbers) == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]} to {numbers[-1]}"
    return ", ".join(map(str, numbers))


def readable_json(value: object) -> str:
    """Indented JSON, for people."""
    return json.dumps(value, indent=2, ensure_ascii=False)
