"""Figures of the report, drawn by matplotlib as inline SVG that follows the page's light or dark colours.

Text stays text (it can be selected and read aloud), and nothing in a figure refers to anything outside the page.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.figure import Figure

from robopref.configs.errors import visible

ORDER = ("random", "bc", "piql-vlp", "piql-scripted", "cpl-vlp", "cpl-scripted", "expert")
COLOURS = {  # Okabe and Ito's, told apart by most colour-blind readers and visible on white and on black
    "random": "#8b949e",
    "bc": "#cc79a7",
    "piql-vlp": "#0a84d6",
    "piql-scripted": "#56b4e9",
    "cpl-vlp": "#d55e00",
    "cpl-scripted": "#e69f00",
    "expert": "#009e73",
}
_INK = "#010203"  # stands for the page's text colour until the SVG is written
_POINTS = 400  # a line of a small figure shows no more, and the page stays light


def in_order(names: Iterable[str]) -> list[str]:
    """Policy names from the lowest to the highest reference, as every table and figure lists them; strangers last."""
    return sorted(names, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))


def curves(title: str, lines: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Markup:
    """One panel: a line for each (step (n,), value (n,)) of `lines`.  A share (accuracy, success, AUC) spans 0 to 1."""
    figure = Figure(figsize=(4.2, 2.5))
    with rc_context(_STYLE | {"svg.hashsalt": title}):
        axes = figure.add_axes((0.12, 0.16, 0.85, 0.73))  # fitted by hand: automatic layout takes ten times as long
        for name in in_order(lines):
            step, value = lines[name]
            few = np.unique(np.linspace(0, len(step) - 1, min(len(step), _POINTS)).astype(int))
            dash = "--" if name.endswith("-scripted") else "-"
            marker = "o" if len(few) < 12 else ""
            axes.plot(step[few], value[few], dash, marker=marker, ms=3, label=_plain(name), color=COLOURS.get(name))
        if any(word in title for word in ("accuracy", "auc", "success")):
            axes.set_ylim(-0.03, 1.03)
        axes.set_title(_plain(title))
        axes.set_xlabel("step")
        if len(lines) > 1:
            axes.legend(fontsize=7)
        said = [f"{name} ends at {value[-1]:.3g}" for name, (_, value) in lines.items()]
        return _svg(figure, f"Curve of {title} over training steps: {', '.join(said)}.")


def success_chart(summary: Mapping[str, Mapping[str, float]]) -> Markup:
    """Interquartile mean and interval of every policy's success rate, one row each, best references at the bottom.

    summary: policy -> {iqm, low, high}, shares in [0, 1].
    """
    names = in_order(summary)
    figure = Figure(figsize=(6.4, 0.9 + 0.34 * len(names)), layout="constrained")
    with rc_context(_STYLE | {"svg.hashsalt": "success"}):
        axes = figure.add_subplot()
        for row, name in enumerate(names):
            low, iqm, high = (100 * summary[name][key] for key in ("low", "iqm", "high"))
            colour = COLOURS.get(name, "#8b949e")
            axes.plot([low, high], [row, row], color=colour, lw=5, alpha=0.45, solid_capstyle="butt")
            axes.plot(iqm, row, "o", color=colour, ms=8)
        axes.set_yticks(range(len(names)), [_plain(name) for name in names])
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlim(-3, 103)
        axes.set_xlabel("success, %: interquartile mean over seeds, and 95 % interval over goals")
        said = [f"{name} {100 * summary[name]['iqm']:.0f} %" for name in names]
        return _svg(figure, f"Success rate of each policy: {', '.join(said)}.")


_STYLE: dict[Any, Any] = {  # Any: matplotlib types every key of its own
    "svg.fonttype": "none",
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.formatter.useoffset": False,
    "grid.alpha": 0.15,
    "grid.color": _INK,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
}


def _plain(text: str) -> str:
    """`text` without matplotlib's formula mark-up, and without characters that no font has."""
    return visible(text).replace("$", r"\$")


def _svg(figure: Figure, alternative: str) -> Markup:
    """The figure as an `<svg>` element that says `alternative` to those who cannot see it."""
    buffer = io.StringIO()
    figure.patch.set_alpha(0.0)
    for axes in figure.axes:
        axes.patch.set_alpha(0.0)
    figure.savefig(buffer, format="svg", metadata={"Date": None})  # no date: same numbers, same bytes
    drawing = buffer.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    drawing = re.sub(r"<metadata>.*?</metadata>", "", drawing, flags=re.DOTALL)
    drawing = re.sub(r'(<svg\b[^>]*?) width="[^"]*"', r"\1", drawing, count=1)
    drawing = re.sub(r'(<svg\b[^>]*?) height="[^"]*"', r"\1", drawing, count=1)
    drawing = drawing.replace(_INK, "currentColor")
    return Markup(drawing.replace("<svg", f'<svg role="img" aria-label="{escape(alternative)}"', 1))
