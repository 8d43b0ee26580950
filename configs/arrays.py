"""Arrays in files: read by numpy's own form alone, never as a pickle or an archive.

What is kept for later and has no manifest, such as a cache, carries its digest behind its numbers (`sign`), where numpy does not
look.
"""

from __future__ import annotations

import math
import re
import warnings
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np

from .digests import file_digest
from .errors import one_line
from .files import skips_digests

SIGNATURE = re.compile(rb"sha256 ([0-9a-f]{64})\n")
SIGNED = len("sha256 ") + 64 + 1  # bytes of it
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
"""The third form differs in names of fields that are not Latin, which no array of ours has."""
LONGEST_HEADER = 10_000  # bytes; numpy's own limit
LARGEST = 2**63  # of a number in a shape: what numpy counts with


def sign(path: str | Path) -> None:
    """Put the sha256 of a .npy file behind its numbers."""
    told = file_digest(path)
    with Path(path).open("ab") as file:
        file.write(f"sha256 {told}\n".encode())


def read_array(path: str | Path, mode: Literal["r", "r+"] | None = None) -> np.ndarray:
    """The array of a .npy file, read whole, or mapped to memory with a mode.

    OSError or ValueError, of one line, where there is none, where the file is shorter or longer than its header claims, and where
    it is signed and has changed.
    """
    path = Path(path)
    with path.open("rb") as file:
        _check(path, file)
        file.seek(0)
        if mode is None:
            read: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
            return read
    mapped: np.memmap = np.lib.format.open_memmap(path, mode)
    return mapped


def _check(path: Path, file: BinaryIO) -> None:
    """ValueError for a header that is none, or that does not fit the file, and for a signature that does not."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # numpy's, of headers that Python 2 could have written
            shape, _, dtype = _header(file)
    except Exception as error:  # numpy's parser lets through whatever Python's raises: SyntaxError, TokenError, MemoryError, ...
        raise ValueError(f"its header is damaged: {one_line(error)}") from error
    if dtype.hasobject or not dtype.itemsize:
        raise ValueError(f"it holds {'objects' if dtype.hasobject else 'nothing'}, no numbers")
    if not all(0 <= size < LARGEST for size in shape):
        raise ValueError("its header claims a shape that no array has")
    begin, size = file.tell(), path.stat().st_size
    claimed = begin + math.prod(shape) * dtype.itemsize
    if size == claimed:
        return
    file.seek(claimed if size == claimed + SIGNED else size)
    signature = SIGNATURE.fullmatch(file.read())
    if signature is None:
        rows = f"{shape[0]} rows" if shape else "one number"
        raise ValueError(f"its header claims {rows}, {claimed - begin} bytes; {size - begin} are there")
    if not skips_digests() and file_digest(path, claimed) != signature[1].decode():
        raise ValueError("its bytes have changed since it was written")


def _header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    if version not in HEADERS:
        raise ValueError(f"it is of the form {'.'.join(map(str, version))}")
    width = 2 if version == (1, 0) else 4
    at = file.tell()
    if (length := int.from_bytes(file.read(width), "little")) > LONGEST_HEADER:  # numpy would ask for memory first
        raise ValueError(f"it claims to be {length} bytes long")
    file.seek(at)
    found: tuple[tuple[int, ...], bool, np.dtype] = HEADERS[version](file)
    return found
