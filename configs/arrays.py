"""Arrays in files: read by numpy's own form alone, never as a pickle or an archive."""

from __future__ import annotations

import tokenize
from pathlib import Path
from typing import Literal

import numpy as np


def read_array(path: str | Path, mode: Literal["r", "r+"] | None = None) -> np.ndarray:
    """The array of a .npy file, read whole, or mapped to memory with a mode; OSError or ValueError where there is none."""
    try:
        if mode is not None:
            mapped: np.memmap = np.lib.format.open_memmap(path, "r")  # "r+" would lengthen a file that is cut short
            return mapped if mode == "r" else np.lib.format.open_memmap(path, mode)
        with Path(path).open("rb") as file:
            read: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
            return read
    except (EOFError, OverflowError, TypeError, tokenize.TokenError) as error:  # of a header that is damaged
        raise ValueError(f"its header is damaged: {error}") from error
