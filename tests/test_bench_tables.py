"""The tables of the benchmarks say which peer a number is against, which precision it has, and what is not measured."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "docs" / "results" / "tables"))
import bench as tables
import marks
import shared

FIRST = """benchmark,measure,value
render,ratio.64,32.1
collect,scaling,1.76
cir,ratio_512,2.19
cir,ratio_sbx,1.27
prof,ratio_to_60s,12.0
"""
TODAY = """benchmark,measure,value,machine,code
render,ratio.64,70.0,a processor,1234567
render,fair.64,3.5,a processor,1234567
cir,ratio_512,2.6,a processor,1234567+
cir,float32_512,1.5,a processor,1234567+
cir,precision.512,bfloat16 products,a processor,1234567+
cir,fair.512,1.25,a processor,1234567+
cir,fastest.512,+ fused,a processor,1234567+
"""


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A folder of results in place of the repository's."""
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "first.csv").write_text(FIRST)
    monkeypatch.setattr(shared, "RESULTS", tmp_path)
    shared.read.cache_clear()
    marks.call.cache_clear()
    yield tmp_path / "bench"
    shared.read.cache_clear()
    marks.call.cache_clear()


def cells(table: str, start: str) -> list[str]:
    (line,) = [line for line in table.splitlines() if line.startswith(f"| {start}")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_until_bench_csv_is_there_the_first_edition_stands_under_its_own_name(results):
    table = tables.ratios()
    assert "times, first edition, Intel Xeon" in table.splitlines()[0]
    picture = cells(table, "a picture of 64 px")
    assert picture[1].startswith("gymnasium's or MuJoCo's renderer") and picture[2:4] == ["not measured here", "4"]
    assert picture[4:] == ["gymnasium's renderer as it comes, kept", "32.1", "8"]
    assert (
        cells(table, "the same in two processes")[2] == "not measured here"
    )  # a fair peer's number is never of the first edition
    assert cells(table, "CIR")[5] == "2.19 (missed) with bfloat16 products, not measured here in float32"
    assert tables.made() == tables.others() == tables.limits() == "Not measured here.\n"
    assert marks.call("bench.seconds prof ratio_to_60s") == 5.0
    assert cells(tables.first(), "the same in two processes")[1:] == ["ours in one process", "1.76", "1.7"]
    assert cells(tables.first(), "SAC")[2] == "1.27 with bfloat16 products"


def test_numbers_of_today_never_share_a_column_with_the_first_edition(results):
    (results / "bench.csv").write_text(TODAY)
    table = tables.ratios()
    assert "first edition" not in table and "1.76" not in table
    assert cells(table, "a picture of 64 px")[2:] == ["3.50 (missed)", "4", "gymnasium's renderer as it comes, kept", "70.0", "8"]
    assert cells(table, "episodes and clips")[2] == cells(table, "episodes and clips")[5] == "not measured here"
    cir = cells(table, "CIR")
    assert cir[2] == "1.25 in float32"
    assert cir[5:] == ["2.60 with bfloat16 products, 1.50 (missed) in float32", "2.5, 2 in float32"]
    assert "| `cir` | a processor | 1234567+ |" in tables.made()
    assert cells(tables.others(), "`cir` | fastest.512")[2] == "+ fused"
    assert tables.value("render", "ratio.64") == 70.0 and tables.value("prof", "ratio_to_60s") == 12.0


def test_a_ratio_in_float32_says_so_once(results):
    (results / "bench.csv").write_text(
        TODAY.replace("512,bfloat16 products", "512,float32").replace("ratio_512,2.6", "ratio_512,1.5")
    )
    assert cells(tables.ratios(), "CIR")[5] == "1.50 (missed) in float32"


def test_every_measure_of_a_table_is_one_that_its_benchmark_names():
    """As "NAME", in its docstring or its code; what a measure has behind a dot is a size."""
    for line in tables.LINES:
        source = (marks.ROOT / "policies" / "benchmarks" / f"{line.benchmark}.py").read_text(encoding="utf-8")
        sides = [against for against in (line.fair, line.naive) if against is not None]
        for measure in {measure for one in sides for measure in (one.measure, one.float32, one.precision)} - {""}:
            name = measure.partition(".")[0]
            assert measure in (tables.MIXED, tables.FLOAT32) or f'"{name}"' in source, (line.benchmark, measure)


def test_limits_are_a_column_an_update(results):
    (results / "cir_limits.csv").write_text(
        "update,GFLOP,at most,machine,code\nSAC,.58,2.47,a processor,1234567\nCIR,10.3,1.7,a processor,1234567\n"
    )
    assert tables.limits().splitlines() == [
        "| a processor, code 1234567 | SAC | CIR |",
        "|---|---|---|",
        "| GFLOP | 0.58 | 10.30 |",
        "| at most | 2.47 | 1.70 |",
    ]
