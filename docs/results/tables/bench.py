"""Tables of `robopref bench`: each ratio, against the first edition's peer and against the best plain way, beside its aim."""

from __future__ import annotations

from dataclasses import dataclass

from marks import fixed
from shared import markdown, read


@dataclass(frozen=True)
class Line:
    """One row of the table."""

    says: str
    benchmark: str
    ratio: str
    """Measure against the peer of the first edition."""
    aim: float | None = None
    fair: str = ""
    """Measure against the best plain way, where there is one."""
    fair_aim: float | None = None


LINES = (
    Line("draw a frame of 64 px", "render", "ratio.64", 8, "fair.64", 4),
    Line("draw a frame of 224 px", "render", "ratio.224", 8, "fair.224", 2.5),
    Line("collect episodes and clips", "collect", "ratio", 10, "fair", 2),
    Line("collect with two workers instead of one", "collect", "scaling", 1.7),
    Line("annotate pairs", "annotate", "ratio", 8, "fair", 2),
    Line("train VLP from cached features", "vlp", "ratio", 10, "fair"),
    Line("five seeds of a policy in one program", "downstream", "ratio", 2, "fair"),
    Line("the same at the paper's sizes", "downstream", "paper", 2, "fair_paper"),
    Line("SAC, 256 wide, best precision, against Stable-Baselines3's", "cir", "ratio_256", 2),
    Line("the same in float32", "cir", "float32_256", 2.5, "fair.256"),
    Line("SAC, best precision, against Stable-Baselines3's in JAX", "cir", "ratio_sbx", 1),
    Line("CIR, 512 wide, best precision, against CIR written plainly", "cir", "ratio_512", 2.5),
    Line("the same in float32", "cir", "float32_512", 2, "fair.512"),
    Line("GTR against Stable-Baselines3's PPO, HalfCheetah", "gtr", "ratio.halfcheetah", 2.5, "fair.halfcheetah"),
    Line("the same, Meta-World's button-press", "gtr", "ratio.button-press", 2.5, "fair.button-press"),
    Line("five seeds of IQL, mixed precision", "iql", "ratio", 2.5),
    Line("the same in float32", "iql", "ratio_float32", 2.5, "fair"),
    Line("one seed of IQL, mixed precision", "iql", "ratio_one_seed"),
    Line("SEABO's labels of a million transitions", "prof", "", None, "fair"),
)


def values() -> dict[tuple[str, str], float]:
    """{(benchmark, measure): value} of bench.csv."""
    return {(row["benchmark"], row["measure"]): float(row["value"]) for row in read("bench/bench.csv").to_dict("records")}


def value(benchmark: str, measure: str) -> float:
    """One of them."""
    return values()[benchmark, measure]


def seconds(benchmark: str, measure: str, limit: str = "60") -> float:
    """For marks: a time that the table has as how often it fits into a limit."""
    return float(limit) / value(benchmark, measure)


def ratios() -> str:
    """How many times as fast as its peer everything is; an aim that is not met is called missed."""
    found = values()

    def cell(benchmark: str, measure: str, aim: float | None) -> str:
        if (benchmark, measure) not in found:
            return ""
        value = found[benchmark, measure]
        told = fixed(value, 2 if value < 10 else 1)
        return told if aim is None or value >= aim else f"{told} (missed)"

    rows = []
    for line in LINES:
        if not {(line.benchmark, line.ratio), (line.benchmark, line.fair)} & found.keys():
            continue
        aims = [f"{aim:g}" if aim is not None else "" for aim in (line.aim, line.fair_aim)]
        rows.append(
            [
                line.says,
                f"`{line.benchmark}`",
                cell(line.benchmark, line.ratio, line.aim),
                aims[0],
                cell(line.benchmark, line.fair, line.fair_aim),
                aims[1] if (line.benchmark, line.fair) in found else "",
            ]
        )
    return markdown(["what", "benchmark", "first edition's peer", "aim", "fair peer", "aim"], rows)


def others() -> str:
    """The measures of bench.csv that are no ratio to a peer."""
    told = {(line.benchmark, measure) for line in LINES for measure in (line.ratio, line.fair)}
    rows = [[f"`{key[0]}`", key[1], fixed(value, 1, comma=True)] for key, value in values().items() if key not in told]
    return markdown(["benchmark", "measure", "value"], rows)


def graphs() -> str:
    """What a CUDA graph is worth (gpu.csv)."""
    rows = []
    for agent, part in read("bench/gpu.csv").groupby("agent", sort=False):
        speed = {str(graph).lower(): steps for graph, steps in zip(part["cuda_graph"], part["steps_per_second"], strict=True)}
        slow, fast = speed["false"], speed["true"]
        rows.append([str(agent), fixed(slow, 1), fixed(fast, 1), f"{fixed(fast / slow, 1)} times"])
    return markdown(["", "kernel by kernel", "an update as one CUDA graph", ""], rows)
