"""Help and mistyped words are answered at once, and a reader that goes away ends a command quietly."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from robopref.configs.cli import COMMANDS

HEAVY = {"torch", "mujoco", "gymnasium", "metaworld", "pandas", "pyarrow", "matplotlib", "scipy", "imageio", "PIL", "numpy"}
SECONDS = 1.0  # of processor time, Python's own start included
RUN = (
    "import sys\n"
    "from robopref.configs.cli import main\n"
    "try: status = main(sys.argv[1:])\n"
    "except SystemExit as end: status = end.code\n"  # tyro leaves this way
    f"print('imported', *sorted({HEAVY!r} & sys.modules.keys()), file=sys.stderr)\n"
    "sys.exit(status)\n"
)


def run(words: list[str], folder: Path) -> tuple[subprocess.CompletedProcess[str], float]:
    """A command in a process of its own, and its processor time in seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", RUN, *words], capture_output=True, text=True, cwd=folder, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ([], 2),
        *((["-h"] if name is None else [name, "-h"], 0) for name in (None, *COMMANDS)),
        (["train", "--help"], 0),
        (["train", "policy=cir", "-h"], 0),
        (["train", "policy=gtr", "-h"], 0),
        (["collect", "protocol=d4rl", "-h"], 0),
        (["train", "polcy=piql"], 2),
        (["train", "policy=pqil"], 2),
        (["pipeline", "piql.expctile=0.8"], 2),
        (["unseen", "seed=1"], 2),
        (["train", "policy.batch=0"], 2),
        (["train", "--policy", "piql"], 2),
        (["annotate", "--episods", "x"], 2),
        (["annotate", "--pairs", "0"], 2),
        (["annotate", "episodes=x"], 2),
        (["colect"], 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_help_and_errors_in_words_import_nothing_heavy(words: list[str], status: int, tmp_path: Path) -> None:
    done, seconds = run(words, tmp_path)
    assert done.returncode == status, done.stderr
    assert done.stderr.splitlines()[-1] == "imported" and "Traceback" not in done.stderr
    assert seconds < SECONDS
    assert not list(tmp_path.iterdir())


def piped(words: str, reader: str, folder: Path, **env: str) -> tuple[str, list[int]]:
    """stderr of a command whose output goes to `reader`, and the statuses of both."""
    shell = f"'{sys.executable}' -c \"$RUN\" {words} | {reader}; echo ${{PIPESTATUS[@]}}"
    script = RUN.replace("print('imported'", "0 and print('imported'")
    done = subprocess.run(
        ["bash", "-c", shell], capture_output=True, text=True, cwd=folder, env={**os.environ, "RUN": script, **env}, check=True
    )
    return done.stderr, [int(number) for number in done.stdout.split()[-2:]]


@pytest.mark.parametrize("words", ["-h", "--version", "annotate -h", "train -h", "train --cfg job", "bench -h"])
@pytest.mark.parametrize("buffered", ["", "1"], ids=["buffered", "unbuffered"])
def test_a_reader_that_has_gone_is_no_error(words: str, buffered: str, tmp_path: Path) -> None:
    stderr, statuses = piped(words, "sleep 0", tmp_path, PYTHONUNBUFFERED=buffered)
    assert stderr == "" and statuses[0] in (0, 141) and statuses[1] == 0


def test_a_reader_that_goes_after_the_first_line(tmp_path: Path) -> None:
    script = "import sys; from robopref.configs.cli import guarded; sys.exit(guarded(lambda: print(('x' * 99 + '\\n') * 9999)))"
    shell = f"'{sys.executable}' -c \"$RUN\" | head -n 1; echo ${{PIPESTATUS[@]}}"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, env={**os.environ, "RUN": script}, check=True)
    assert done.stderr == "" and done.stdout.split() == ["x" * 99, "141", "0"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device here")
def test_output_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", RUN, "-h"], stdout=full, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    assert done.returncode == 1 and "Exception ignored" not in done.stderr
    (said, _) = done.stderr.splitlines()
    assert said.startswith("error: ") and "No space left on device" in said


def test_a_pipe_of_the_command_itself_that_breaks_shows_its_traceback() -> None:
    script = "from robopref.configs.cli import guarded\ndef broken(): raise BrokenPipeError(32, 'Broken pipe')\nguarded(broken)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "BrokenPipeError" in done.stderr
