"""A stopped run keeps the step that it was in, and says so."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from robopref.configs import stopping
from robopref.configs.cli import guarded
from robopref.configs.stopping import Stopping, Terminated


def loop(stops: dict[int, signal.Signals], last: int = 10, every: int = 4) -> list[int]:
    """Steps after which a loop saves, where it is sent signals within some of its steps."""
    saved: list[int] = []
    with Stopping(every) as stopping:
        for step in range(1, last + 1):
            if step in stops:
                os.kill(os.getpid(), stops[step])
            if stopping.due(step) and step < last:
                saved.append(step)
                LAST[0] = step
                stopping.leave(f"step {step} of {last}", Path("checkpoint"))
    return saved


LAST = [0]


def test_without_a_signal_only_steps_count() -> None:
    assert loop({}) == [4, 8]


def test_after_minutes_it_saves_whatever_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "MINUTES", 0.0)
    assert loop({}, last=4) == [1, 2, 3]


@pytest.mark.parametrize(
    ("number", "kind", "status"), [(signal.SIGINT, KeyboardInterrupt, 130), (signal.SIGTERM, Terminated, 143)]
)
def test_a_signal_waits_for_the_end_of_the_step(
    number: signal.Signals, kind: type[BaseException], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(number)
    with pytest.raises(kind, match=r"^step 6 of 10 is kept in checkpoint, and the same command continues$"):
        loop({6: number})
    assert LAST == [6] and signal.getsignal(number) is before
    assert guarded(lambda: loop({7: number}) and None) == status
    assert "interrupted; step 7 of 10 is kept in checkpoint" in capsys.readouterr().err


def test_in_its_last_step_a_run_finishes() -> None:
    assert loop({10: signal.SIGINT}) == [4, 8]


def test_a_second_signal_ends_the_step() -> None:
    with Stopping(100) as stopping, pytest.raises(KeyboardInterrupt):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
        stopping.due(1)


def test_what_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert loop({6: signal.SIGINT}) == [4, 8]
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_can_train() -> None:
    found: list[list[int]] = []
    thread = threading.Thread(target=lambda: found.append(loop({})))
    thread.start()
    thread.join()
    assert found == [[4, 8]]
