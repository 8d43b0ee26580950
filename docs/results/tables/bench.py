"""Tables of `robopref bench`: how many times as fast as the best plain way, and as what a first script does, beside the aims.

bench.csv is of today's code, first.csv of the first edition on another machine; numbers of both never share a column.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import shared
from marks import fixed
from shared import markdown, read

TODAY, FIRST = "bench/bench.csv", "bench/first.csv"
LIMITS = "bench/cir_limits.csv"
MISSING = "not measured here"
MIXED, FLOAT32 = "bfloat16 products", "float32"


@dataclass(frozen=True)
class Against:
    """A peer in words, and what it is measured by."""

    peer: str
    measure: str
    aim: float | None = None
    float32: str = ""
    """Measure of ours in float32, where `measure` may be of ours in another precision; the peer is always in float32."""
    float32_aim: float | None = None
    precision: str = ""
    """Measure that names the precision of `measure`, or the precision itself; nothing where it is float32 for all sides."""


@dataclass(frozen=True)
class Line:
    """One row of the table."""

    says: str
    benchmark: str
    fair: Against | None = None
    naive: Against | None = None


PLAIN_PICTURE = "gymnasium's or MuJoCo's renderer, kept, all meshes in full, without shadows, reflections and multisampling"
AS_IT_COMES = "gymnasium's renderer as it comes, kept"
TWO, BY_TURNS = "plain PyTorch, two processes, fused Adam", "plain PyTorch, one process, a network at a time"
PPO = "Stable-Baselines3's PPO"
BOTH_CORES, ONE = f"the fastest of {PPO} in one process, with eight that simulate, and twice at once", f"{PPO} in one process"
LINES = (
    Line("a picture of 64 px", "render", Against(PLAIN_PICTURE, "fair.64", 4), Against(AS_IT_COMES, "ratio.64", 8)),
    Line("a picture of 224 px", "render", Against(PLAIN_PICTURE, "fair.224", 2.5), Against(AS_IT_COMES, "ratio.224", 8)),
    Line(
        "episodes and clips",
        "collect",
        Against("one kept environment and renderer a task, the same states drawn", "fair", 2),
        Against("a new environment and renderer an episode", "ratio", 10),
    ),
    Line("the same in two processes", "collect", Against("ours in one process", "scaling", 1.7)),
    Line(
        "labels of pairs",
        "annotate",
        Against("a plain script, each clip encoded once", "fair", 2),
        Against("both clips of a pair encoded anew: a clip is in ten pairs here, in one in README's command", "ratio", 8),
    ),
    Line(
        "training VLP from cached features",
        "vlp",
        Against("a model of torch's own layers on the same cache of features", "fair"),
        Against("frames encoded in every step", "ratio", 10),
    ),
    Line("five seeds of a policy", "downstream", Against(TWO, "fair"), Against(BY_TURNS, "ratio", 2)),
    Line("the same at the paper's sizes", "downstream", Against(TWO, "fair_paper"), Against(BY_TURNS, "paper", 2)),
    Line(
        "SAC, 256 wide",
        "cir",
        Against(
            "the fastest of Stable-Baselines3's SAC as it is, with fused Adam, and in JAX where the next row has a number",
            "fair.256",
            precision=FLOAT32,
        ),
        Against("Stable-Baselines3's SAC", "ratio_256", 2, "float32_256", 2.5, "precision.256"),
    ),
    Line(
        "SAC, 256 wide", "cir", Against("Stable-Baselines3's in JAX (sbx)", "ratio_sbx", 1, "float32_sbx", None, "precision.256")
    ),
    Line(
        "CIR, 512 wide",
        "cir",
        Against(
            "the fastest of it as it is, with fused Adam, with critics frozen for the actor, and compiled",
            "fair.512",
            precision=FLOAT32,
        ),
        Against("CIR written plainly", "ratio_512", 2.5, "float32_512", 2, "precision.512"),
    ),
    Line("GTR, HalfCheetah", "gtr", Against(BOTH_CORES, "fair.halfcheetah"), Against(ONE, "ratio.halfcheetah", 2.5)),
    Line("the same, button-press", "gtr", Against(BOTH_CORES, "fair.button-press"), Against(ONE, "ratio.button-press", 2.5)),
    Line(
        "five seeds of IQL",
        "iql",
        Against(TWO, "fair", precision=FLOAT32),
        Against(BY_TURNS, "ratio", 2.5, "ratio_float32", 2.5, "precision"),
    ),
    Line("one seed of IQL", "iql", None, Against(BY_TURNS, "ratio_one_seed", precision="precision")),
    Line(
        "SEABO's labels of a million transitions",
        "prof",
        Against("scipy's k-d tree or scikit-learn's brute force, the faster", "fair"),
    ),
)
Found = dict[tuple[str, str], float | str]


def exists(name: str) -> bool:
    """Whether a CSV of docs/results is there."""
    return (shared.RESULTS / name).exists()


def values(name: str) -> Found:
    """{(benchmark, measure): value, or word} of a CSV; nothing when there is none."""
    found: Found = {}
    for row in read(name).to_dict("records") if exists(name) else ():
        number = pd.to_numeric(row["value"], errors="coerce")
        found[row["benchmark"], row["measure"]] = str(row["value"]) if pd.isna(number) else float(number)
    return found


def value(benchmark: str, measure: str) -> float:
    """For marks: a number of bench.csv, or of first.csv while it is not measured again."""
    return float((values(FIRST) | values(TODAY))[benchmark, measure])


def seconds(benchmark: str, measure: str, limit: str = "60") -> float:
    """For marks: a time that the table has as how often it fits into a limit."""
    return float(limit) / value(benchmark, measure)


def times(found: Found, benchmark: str, against: Against) -> str:
    """2.54 with bfloat16 products, 2.06 (missed) in float32: what is aimed at and not reached is called missed."""

    def told(measure: str, aim: float | None) -> str:
        if (benchmark, measure) not in found:
            return MISSING
        number = float(found[benchmark, measure])
        return fixed(number, 2 if number < 10 else 1) + (" (missed)" if aim is not None and number < aim else "")

    text = told(against.measure, against.aim)
    if not against.precision or text == MISSING:
        return text
    precision = precision_of(found, benchmark, against)
    mixed = [] if precision == FLOAT32 and against.float32 else [f"{text} {'in' if precision == FLOAT32 else 'with'} {precision}"]
    return ", ".join([*mixed, f"{told(against.float32, against.float32_aim)} in float32"] if against.float32 else mixed)


def precision_of(found: Found, benchmark: str, against: Against) -> str:
    """The precision of the matrix products on our side: MIXED or FLOAT32."""
    # The first edition's ratios were always those with bfloat16 products, and its CSV has no word for it.
    return str(found.get((benchmark, against.precision), FLOAT32 if against.precision == FLOAT32 else MIXED))


def aims(found: Found, benchmark: str, against: Against) -> str:
    """2, 2.5 in float32; the latter alone where nothing was in another precision."""
    if against.float32_aim is not None and precision_of(found, benchmark, against) == FLOAT32:
        return f"{against.float32_aim:g}"
    told = [] if against.aim is None else [f"{against.aim:g}"]
    return ", ".join(told if against.float32_aim is None else [*told, f"{against.float32_aim:g} in float32"])


def ratios() -> str:
    """How many times as fast as its peers everything is; the naive ones of the first edition while bench.csv is not there."""
    today = values(TODAY)
    naive = today if exists(TODAY) else values(FIRST)
    rows = []
    for line in LINES:
        cells = []
        for found, against in ((today, line.fair), (naive, line.naive)):
            told = ("", "") if against is None else (cell(found, line.benchmark, against) for cell in (times, aims))
            cells += ["-" if against is None else against.peer, *told]
        rows.append([f"{line.says} (`{line.benchmark}`)", *cells])
    edition = "times" if exists(TODAY) else "times, first edition, Intel Xeon"
    return markdown(["what", "fair: against", "times", "aim", "naive: against", edition, "aim"], rows)


def first() -> str:
    """The ratios of the first edition, whichever peer they have."""
    found, rows = values(FIRST), []
    for line in LINES:
        for against in (line.fair, line.naive):
            if against is not None and (line.benchmark, against.measure) in found:
                told = times(found, line.benchmark, against).replace(f", {MISSING} in float32", "")
                aim = aims(found, line.benchmark, against)
                rows.append([f"{line.says} (`{line.benchmark}`)", against.peer, told, aim])
    return markdown(["what", "against", "times", "aim"], rows)


def others(edition: str = "today") -> str:
    """The measures that are no ratio to a peer; edition: today's or the first."""
    sides = [(line.benchmark, against) for line in LINES for against in (line.fair, line.naive) if against is not None]
    told = {(benchmark, measure) for benchmark, one in sides for measure in (one.measure, one.float32)}
    found = values(TODAY if edition == "today" else FIRST)
    rows = [
        [f"`{key[0]}`", key[1], one if isinstance(one, str) else fixed(one, 1, comma=True)]
        for key, one in found.items()
        if key not in told
    ]
    return markdown(["benchmark", "measure", "value"], rows) if rows else f"{MISSING.capitalize()}.\n"


def made() -> str:
    """Which machine and which code made which rows of bench.csv."""
    if not exists(TODAY):
        return f"{MISSING.capitalize()}.\n"
    rows = read(TODAY)[["benchmark", "machine", "code"]].drop_duplicates()
    return markdown(["benchmark", "machine", "code"], [[f"`{row[0]}`", *map(str, row[1:])] for row in rows.to_numpy().tolist()])


def limit(agent: str, threads: str, measure: str = "at most") -> float:
    """For marks: a number of cir_limits.csv, of the update of SAC or CIR on one thread or two."""
    table = read(LIMITS)
    chosen = table["update"].str.startswith(f"{agent},") & table["update"].str.contains(f" {threads} thread")
    return float(table.loc[chosen, measure].item())


def limits() -> str:
    """The least time that an update can take, a column for each kind of update (cir_limits.csv)."""
    if not exists(LIMITS):
        return f"{MISSING.capitalize()}.\n"
    table = read(LIMITS).set_index("update")
    machines = ", ".join(
        sorted({f"{machine}, code {code}" for machine, code in zip(table["machine"], table["code"], strict=True)})
    )
    rows = [
        [str(name), *(fixed(float(one), 2) for one in column)] for name, column in table.drop(columns=["machine", "code"]).items()
    ]
    return markdown([machines, *map(str, table.index)], rows)


def graphs() -> str:
    """Speed with and without a CUDA graph (gpu.csv)."""
    rows = []
    for agent, part in read("bench/gpu.csv").groupby("agent", sort=False):
        speed = {str(graph).lower(): steps for graph, steps in zip(part["cuda_graph"], part["steps_per_second"], strict=True)}
        slow, fast = speed["false"], speed["true"]
        rows.append([str(agent), fixed(slow, 1), fixed(fast, 1), f"{fixed(fast / slow, 1)} times"])
    return markdown(["", "kernel by kernel", "an update as one CUDA graph", ""], rows)
