"""The tables of docs/results/reliability."""

from __future__ import annotations

from marks import fixed
from shared import markdown, read

KILLS, ATTACKS = "reliability/kills.csv", "reliability/attacks.csv"
READERS, SERVERS = "reliability/readers.csv", "reliability/servers.csv"
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


def attacks() -> str:
    """A row a kind of attacks, and their sum."""
    table = read(ATTACKS)
    rows = [[str(value) for value in row] for row in table.to_numpy()]
    last = ["all", "", str(table["tried"].sum()), str(table["held"].sum())]
    return markdown(("attacks", "bubblewrap", "tried", "held"), [*rows, last])


def readers() -> str:
    """A row a reader, and their sum."""
    table = read(READERS)
    counted = [name for name in table.columns if name not in ("reader", "seed")]
    rows = [[f"`{row['reader']}`", *(str(row[name]) for name in counted)] for row in table.to_dict("records")]
    return markdown(("reader", *counted), [*rows, ["all", *(str(table[name].sum()) for name in counted)]])


def servers() -> str:
    """A row a client: how many servers it was tried on, and how that ended."""
    table = read(SERVERS)
    rows = []
    for client, part in [*table.groupby("client", sort=False), ("all", table)]:
        answers, refusals = ((part["end"] == end).sum() for end in ("answer", "refused"))
        name = client if client == "all" else f"`{client}`"
        rows.append([name, str(len(part)), str(answers), str(refusals), str(len(part) - answers - refusals),
                     fixed(part["seconds"].max(), 1)])  # fmt: skip
    return markdown(("client", "servers", "right answer", "one line", "anything else", "slowest end, s"), rows)


def tried(what: str) -> float:
    """How many attacks, files or servers were tried."""
    if what == "attacks":
        return float(read(ATTACKS)["tried"].sum())
    return float(read(READERS)["copies"].sum()) if what == "files" else float(len(read(SERVERS)))


def behind(bubblewrap: str, column: str) -> float:
    """`tried` or `held` of the attacks behind the reader, with bubblewrap (yes) or without (no)."""
    table = read(ATTACKS)
    rows = table["kind"].str.startswith("behind") & (table["bubblewrap"] == bubblewrap)
    return float(table.loc[rows, column].sum())


def seed() -> float:
    """Of the damaged files."""
    (found,) = set(read(READERS)["seed"])
    return float(found)


def each() -> float:
    """Damaged copies a reader."""
    (found,) = set(read(READERS)["copies"])
    return float(found)


def wrong(what: str) -> float:
    """How many of them ended in any other way than they should."""
    if what == "attacks":
        table = read(ATTACKS)
        return float((table["tried"] - table["held"]).sum())
    if what == "files":
        return float(read(READERS)[["traceback", "unclear", "died", "hung", "other"]].to_numpy().sum())
    return float((~read(SERVERS)["end"].isin(["answer", "refused"])).sum())


def total(*columns: str) -> float:
    """The sum of columns over all commands."""
    return float(read(KILLS)[list(columns)].to_numpy().sum())


def faults() -> float:
    """Everything that was not as it should be."""
    return total(*FAULTS)
