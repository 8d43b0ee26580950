"""The table of docs/results/reliability."""

from __future__ import annotations

from marks import fixed
from shared import markdown, read

KILLS = "reliability/kills.csv"
FAULTS = ("differences", "leftovers", "tracebacks", "statuses", "orphans")


def kills() -> str:
    """A row a command, and their sum."""
    table = read(KILLS)
    counted = ["SIGKILL", "SIGTERM", "SIGINT", "resumed", *FAULTS]
    rows = [
        [f"`{row['command']}`", fixed(row["seconds"], 1), *(str(row[name]) for name in counted), fixed(row["slowest_end_s"], 1)]
        for row in table.to_dict("records")
    ]
    last = ["all", "", *(str(table[name].sum()) for name in counted), fixed(table["slowest_end_s"].max(), 1)]
    head = ("command", "seconds", *counted, "slowest end, s")
    return markdown(head, [*rows, last])


def total(*columns: str) -> float:
    """The sum of columns over all commands."""
    return float(read(KILLS)[list(columns)].to_numpy().sum())


def faults() -> float:
    """Everything that was not as it should be."""
    return total(*FAULTS)
