from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small_run import SUCCESS, make_run

from robopref.configs.errors import RoboprefError
from robopref.configs.files import BEGUN, write_json
from robopref.configs.show import ReportConfig
from robopref.datasets.preferences import read_preferences, write_preferences
from robopref.policies.figures import curves, success_chart
from robopref.policies.report import duration, run, seeds
from robopref.policies.results import beside_references, top_stages

HOSTILE = '</title><script>alert("$x$")</script><img src=https://example.org/x onerror=alert(1)> {{ 7 * 7 }} & "drawer"'
VOID = {"meta", "br", "img", "link", "hr", "input", "path", "use", "rect", "circle"}


class Page(HTMLParser):
    """Tags with attributes in order, visible text, and whether every tag is closed where it should be."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text += " ".join(data.split()) + " "


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "quick", HOSTILE)


@pytest.fixture(scope="module")
def html(folder: Path) -> str:
    return run(ReportConfig(folder)).read_text(encoding="utf-8")


def copied(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "run"))


def test_page_is_self_contained(html: str) -> None:
    page = Page(html)
    assert not page.open
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "base", "img")
        for name in ("src", "href", "xlink:href", "poster", "srcset", "data", "action"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), f"{tag} {name}={value[:80]}"
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)
    assert style and "url(" not in style[1] and "@import" not in style[1]
    assert all(target.startswith("#") for target in re.findall(r"url\((.*?)\)", html))
    assert "default-src 'none'" in html


def test_page_says_everything(html: str) -> None:
    text = Page(html).text
    for word in [*SUCCESS, "wall time", "Python", "numpy", "seeds", "drawer-close", "losses/itp_accuracy"]:
        assert word in text, word
    for figure in ("0.810", "0.530", "0.800", "0.880", "0.610"):
        assert figure in text, "accuracy and constant, balanced, AUC and tau stand together"
    assert "80 %" in text and "68 % to 90 %" in text
    assert "overlap" in text and "goal 0 achieved after 31 steps" in text
    assert "Missing from this run" not in text


def test_pairs_without_a_label_are_counted_apart(folder: Path, tmp_path: Path) -> None:
    here = copied(folder, tmp_path)
    labels = read_preferences(here / "labels" / "vlp.parquet")
    abstained = np.arange(len(labels)) < 5
    write_preferences(
        here / "labels" / "vlp.parquet", labels.assign(abstained=abstained, label=labels["label"].mask(abstained, 0.5))
    )
    text = Page(run(ReportConfig(here)).read_text(encoding="utf-8")).text
    assert f"VLP labelled {len(labels) - 5} pairs and abstained on 5 more; it prefers" in text
    assert "ties." not in text, "no abstention is a tie"


def test_hostile_instruction_is_text(html: str) -> None:
    page = Page(html)
    assert HOSTILE in page.text
    assert "49" not in re.sub(r"\d{3,}", "", re.findall(r"class=\"asked\">(.*?)</p>", html)[0])


def test_every_figure_table_and_video_speaks(html: str) -> None:
    page = Page(html)
    tags = [tag for tag, _ in page.tags]
    assert tags.count("video") == 3, "the grid and two policies; single goals stay files"
    for tag, attributes in page.tags:
        if tag == "video":
            assert {"autoplay", "muted", "loop", "playsinline", "controls"} <= attributes.keys()
            assert attributes["aria-label"] and attributes["src"].startswith("data:video/mp4;base64,")
        if tag == "svg":
            assert attributes["role"] == "img" and attributes["aria-label"]
        if tag == "th":
            assert attributes["scope"] in ("col", "row")
    assert tags.count("table") == tags.count("caption")
    assert next(tag for tag in tags if re.fullmatch("h[1-6]", tag)) == "h1" and tags.count("h1") == 1
    anchors = {attributes["href"][1:] for tag, attributes in page.tags if tag == "a"}
    assert anchors <= {attributes.get("id") for _, attributes in page.tags}


def test_same_run_same_page(folder: Path, html: str) -> None:
    assert run(ReportConfig(folder)).read_text(encoding="utf-8") == html


@pytest.mark.parametrize("gone", ["evaluation", "videos", "labels", "vlp", "manifest.json"])
def test_missing_part_is_said(folder: Path, tmp_path: Path, gone: str) -> None:
    run_folder = copied(folder, tmp_path)
    victim = run_folder / gone
    shutil.rmtree(victim) if victim.is_dir() else victim.replace(run_folder / BEGUN)  # as in a run that was interrupted
    page = Page(run(ReportConfig(run_folder, out=tmp_path / "page.html")).read_text(encoding="utf-8"))
    if gone != "manifest.json":
        assert "Missing from this run" in page.text and gone in page.text
    assert not page.open


DAMAGED = [
    "evaluation/summary.json",
    "evaluation/success.csv",
    "labels/vlp.parquet",
    "vlp/metrics.csv",
    "vlp/manifest.json",
    "videos/films.json",
]


def test_damaged_files_are_said(folder: Path, tmp_path: Path) -> None:
    run_folder = copied(folder, tmp_path)
    for damaged in DAMAGED:
        (run_folder / damaged).write_bytes(b"[1, 2]" if damaged.endswith("films.json") else b"{}}\xff")
    page = Page(run(ReportConfig(run_folder)).read_text(encoding="utf-8"))
    assert all(f"{damaged} cannot be read" in page.text for damaged in DAMAGED)


@pytest.mark.parametrize("name", ["page.html", "report.html", "manifest.json"])
def test_only_a_report_is_replaced(folder: Path, tmp_path: Path, name: str) -> None:
    run_folder = copied(folder, tmp_path)
    out = None if name == "report.html" else run_folder / name
    path = run_folder / name
    if name != "manifest.json":
        run(ReportConfig(run_folder, out=out))
        written = path.read_bytes()
        run(ReportConfig(run_folder, out=out))
        assert path.stat().st_size == pytest.approx(len(written), rel=0.1)
        path.write_text("<!doctype html>\n<title>robopref: my notes</title>")
    before = path.read_bytes()
    with pytest.raises(RoboprefError, match=f"{name} is there, and no page that `robopref report` wrote: choose another --out"):
        run(ReportConfig(run_folder, out=out))
    assert path.read_bytes() == before


def test_a_folder_is_no_page(folder: Path, tmp_path: Path) -> None:
    run_folder = copied(folder, tmp_path)
    with pytest.raises(RoboprefError, match=r"is a folder, and report writes a file: give --out .*/report\.html"):
        run(ReportConfig(run_folder, out=run_folder))


def test_a_run_that_has_only_begun(tmp_path: Path) -> None:
    (tmp_path / "episodes").mkdir()
    write_json(tmp_path / BEGUN, {"stage": "pipeline", "config": {}})
    page = Page(run(ReportConfig(tmp_path)).read_text(encoding="utf-8"))
    assert not page.open and "There is no manifest" in page.text and "vlp/metrics.csv is not there" in page.text


WRONG = {
    "videos/films.json": (
        '{"episodes": {"bc": [{"success": true}]}}',
        '{"episodes": []}',
        '{"episodes": {"bc": 3}}',
        '{"env": 3}',
    ),
    "vlp/generalisation.json": (
        '{"wordings": {"train": {"tuples": "x"}}}',
        '{"wordings": 3}',
        "{}",
        '{"task": [], "wordings": {}}',
    ),
    "labels/vlp.run/agreement.json": ('{"n": "many"}', "3", '{"n": 1e999}', '{"n": ' + "9" * 5000 + "}"),
    "evaluation/summary.json": (
        '{"bc": {"iqm": "x", "low": 0, "high": 1, "mean": 0, "n": 1}}',
        '{"bc": null}',
        '{"\\ud800": {}}',
    ),
    "vlp/manifest.json": ('{"stage": 3}', '{"stage": "x", "config": {}, "inputs": {}, "outputs": {}, "seeds": ["x"]}'),
    "policies/bc/metrics.csv": ("step,losses/clone\nx,y\n", "step,losses/clone\n1,1e300\n2,1e308\n", "a,b\n", '"'),
}


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in WRONG.items() for text in texts])
def test_values_of_another_kind_are_said(folder: Path, tmp_path: Path, name: str, text: str) -> None:
    run_folder = copied(folder, tmp_path)
    (run_folder / name).write_text(text)
    page = Page(run(ReportConfig(run_folder, out=tmp_path / "page.html")).read_text(encoding="utf-8"))
    assert f"{name} cannot be read" in page.text


def test_nothing_is_written_into_a_run_of_another_stage(folder: Path) -> None:
    before = sorted(folder.joinpath("vlp").iterdir())
    with pytest.raises(RoboprefError, match="holds a run of `train-vlp`: name a folder that `robopref pipeline` made"):
        run(ReportConfig(folder / "vlp"))
    assert sorted(folder.joinpath("vlp").iterdir()) == before


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "holiday.txt").write_text("sun")
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(RoboprefError, match="holds no run: name a folder that `robopref pipeline` made"):
            run(ReportConfig(path))
    assert [item.name for item in tmp_path.iterdir()] == ["holiday.txt"]


def test_results_compare_intervals() -> None:
    row = {"mean": 0.0, "n": 1, "iqm": 0.0}
    rows = beside_references(
        {
            "random": row | {"low": 0.0, "high": 0.2},
            "bc": row | {"low": 0.3, "high": 0.6},
            "cpl-vlp": row | {"low": 0.5, "high": 0.9},
        }
    )
    assert [(f["policy"], f["random"], f["bc"]) for f in rows] == [
        ("random", None, "below"),
        ("bc", "above", None),
        ("cpl-vlp", "above", "overlap"),
    ]


def test_parts_of_a_stage_are_not_stages() -> None:
    folders = [".", "episodes", "episodes/door-open", "labels/vlp", "vlp", "vlp/backbone", "policies/bc"]
    kept = [manifest["folder"] for manifest in top_stages([{"folder": folder} for folder in folders])]
    assert kept == ["episodes", "vlp", "labels/vlp", "policies/bc"]


def test_durations_and_seeds() -> None:
    assert [seeds(s) for s in (None, [3], [0, 2], [0, 1], [4, 5, 6])] == ["-", "3", "0, 2", "0, 1", "4 to 6"]
    assert [duration(s) for s in (None, 1.23, 61, 3725)] == ["-", "1.2 s", "1 min 01 s", "1 h 02 min"]


def test_figures_are_deterministic_text_that_follows_the_page() -> None:
    lines = {
        "cpl-vlp": (np.arange(5000), np.linspace(1, 0, 5000)),
        "a <b> $x$": (np.arange(3), np.array([0.1, 0.2, 0.3])),
    }
    drawing = curves("losses/<x> & accuracy", lines)
    assert drawing == curves("losses/<x> & accuracy", lines)
    assert drawing.startswith("<svg") and "currentColor" in drawing and "<b>" not in drawing
    assert "<text" in drawing and len(drawing) < 60_000
    summary = {name: {"iqm": s, "low": s, "high": s} for name, s in SUCCESS.items()}
    chart = success_chart(json.loads(json.dumps(summary)))
    assert all(name in chart for name in SUCCESS)


EVIL = "<script>x</script><img src=http://evil> \x1b[2J \x07 \u202e $x^2$ a|b `c` ---"


def test_whatever_a_run_names_is_text(folder: Path, tmp_path: Path) -> None:
    run_folder = copied(folder, tmp_path)
    summary = json.loads((run_folder / "evaluation" / "summary.json").read_text())
    write_json(run_folder / "evaluation" / "summary.json", summary | {EVIL: summary["bc"]})
    films = json.loads((run_folder / "videos" / "films.json").read_text())
    write_json(run_folder / "videos" / "films.json", films | {"instruction": EVIL, "env": EVIL})
    orders = json.loads((run_folder / "vlp" / "generalisation.json").read_text())
    write_json(run_folder / "vlp" / "generalisation.json", {"task": EVIL, "wordings": {EVIL: orders["wordings"]["train"]}})
    for path in run_folder.rglob("manifest.json"):
        manifest = json.loads(path.read_text())
        told = {"command": EVIL, "created": EVIL, "robopref": EVIL, "packages": {EVIL: EVIL}, "machine": {"cpu": EVIL}}
        write_json(path, manifest | told | {"config": {EVIL: EVIL}, "code": {"commit": EVIL, "dirty": True}})
    table = pd.read_csv(run_folder / "vlp" / "metrics.csv").rename(columns={"losses/loss": f"losses/{EVIL}"})
    table.to_csv(run_folder / "vlp" / "metrics.csv", index=False)
    html = run(ReportConfig(run_folder)).read_text(encoding="utf-8")
    page = Page(html)
    assert not page.open and not {"script", "img"} & {tag for tag, _ in page.tags} and page.text.count("<script>x</script>") > 20
    assert not {"\x1b", "\x07", "\u202e"} & set(html) and r"\x1b[2J \x07 \u202e" in html
