"""Heat on pictures, and sheets of pictures with words on them: what `robopref attention` shows.

Pictures are (H, W, 3) uint8, upright.  Heat is red where it is above 0 and blue below, over the picture without its colours:
a scene of Meta-World is red and blue itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from robopref.embodied.video import FAINT, INK, typeface, wrap

WARM, COLD = np.array([230.0, 30.0, 20.0]), np.array([20.0, 90.0, 245.0])
STRONGEST = 0.8  # opacity of the hottest pixel: what is under it stays visible
GAP, PAPER = 4, (24, 28, 36)


def paint(frame: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """`frame` (H, W, 3) in grey under heat (h, w) in [-1, 1]; a coarser heat keeps the edges of its cells."""
    height, width, _ = frame.shape
    cells = Image.fromarray(heat.astype(np.float32))
    large = np.asarray(cells.resize((width, height), Image.Resampling.NEAREST))[..., None]
    grey = np.asarray(Image.fromarray(frame).convert("L"), np.float32)[..., None]
    opacity = STRONGEST * np.abs(large)
    return ((1 - opacity) * grey + opacity * np.where(large > 0, WARM, COLD)).round().astype(np.uint8)


def bar(frame: np.ndarray, share: float, height: float) -> np.ndarray:
    """`frame` (H, W, 3) in grey behind a bar that says `share` in percent; `height` 1 is a bar from bottom to top."""
    grey = Image.fromarray(frame).convert("L").convert("RGB")
    draw = ImageDraw.Draw(grey)
    width, full = grey.size
    font = typeface(max(10, full // 16))
    line = round(1.4 * font.size)
    top = full - round(height * (full - line))
    draw.rectangle((0.4 * width, top, 0.6 * width, full), fill=tuple(WARM.astype(int)))
    draw.text((0.5 * width, top - line / 2), f"{share:.1%}", font=font, fill=INK, anchor="mm", stroke_width=2, stroke_fill=PAPER)
    return np.asarray(grey)


def sheet(rows: Sequence[Sequence[np.ndarray]], title: str, notes: Sequence[str], captions: Sequence[str]) -> np.ndarray:
    """Rows of equally many pictures of one size under a title and smaller notes, a caption over each column: (H, W, 3)."""
    height, width, _ = rows[0][0].shape
    size = max(11, width // 15)
    large, small, line = typeface(round(1.3 * size)), typeface(size), round(1.4 * size)
    across = len(captions) * (width + GAP) + GAP
    words = [(text, large, INK) for text in wrap(title, large, across - 2 * size, lines=2)]
    words += [(text, small, FAINT) for note in notes for text in wrap(note, small, across - 2 * size, lines=3)]
    head = size + round(1.3 * line) * len(words)
    image = Image.new("RGB", (across, head + line + len(rows) * (height + GAP)), PAPER)
    draw = ImageDraw.Draw(image)
    for number, (text, font, colour) in enumerate(words):
        draw.text((size, size // 2 + round(1.3 * line) * number), text, font=font, fill=colour)
    for column, caption in enumerate(captions):
        left = GAP + column * (width + GAP)
        draw.text((left + width // 2, head + line // 2), caption, font=small, fill=FAINT, anchor="mm")
        for row, pictures in enumerate(rows):
            image.paste(Image.fromarray(pictures[column]), (left, head + line + row * (height + GAP)))
    return np.asarray(image)
