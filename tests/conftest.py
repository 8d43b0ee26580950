"""Every test starts from the same random state, with one thread, so that results do not depend on order or machine."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch and numpy are imported: they read it once

import random
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # so a shell starts what runs in its background; tests send it
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    random.seed(0)
    np.random.seed(0)
    if (torch := sys.modules.get("torch")) is not None:  # tests without torch need not wait for its import
        torch.manual_seed(0)
        torch.set_num_threads(1)
        torch.set_flush_denormal(False)  # benchmarks set it for the rest of a process of their own, which a test may be


@pytest.fixture
def root() -> Path:
    """The repository."""
    return Path(__file__).parents[1]


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary working directory, for commands whose default paths are relative."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
