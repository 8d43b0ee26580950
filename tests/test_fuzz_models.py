"""Damaged models, run folders, transcripts and settings are refused in one line or read as they were (fuzz_models.py)."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz_models import READERS
from fuzzing import campaign

COUNT = 200
SLOW = {
    **dict.fromkeys(("vlp", "factored", "vlp without digests", "factored without digests"), 25),
    **dict.fromkeys(("contrastive", "contrastive without digests", "prof", "run folder"), 50),
    **dict.fromkeys(("tables", "push vlp", "push policy", "words"), 15),
    **{"experiment": 10, "report": 3},
}
"""Readers of which a copy takes longer than milliseconds, and their copies."""


@pytest.mark.parametrize("name", READERS)
def test_damaged_files_are_refused_in_one_line_or_read_as_they_were(name: str, tmp_path: Path) -> None:
    tally = campaign(name, READERS[name], SLOW.get(name, COUNT), 0, tmp_path)
    assert not tally.faults, "\n".join(tally.faults[:3])
    assert tally.counts["refused"] or name == "report", "what is damaged is said on the page"
