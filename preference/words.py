"""Words as fixed vectors: what the small backbone reads.

`hashed` knows no language: nothing is learnt, downloaded or out of vocabulary, and a synonym is a stranger.  `wordllama` are the
static token embeddings that the package wordllama carries (256 numbers a token, distilled from a language model's by its author):
"tap" is near "faucet" there.

Axes: N texts, L words, Dt numbers a word.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from robopref.configs.errors import RoboprefError, UsageError, nearest

HASHED_SIZE = 64
LLAMA_SIZE = 256
MAX_WORDS = 24
KINDS = ("hashed", "wordllama")


class Words(Protocol):
    """Vectors of words, of deviation one."""

    size: int
    """Dt."""

    def encode(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """texts -> vectors (N, L, Dt) float32 and a mask (N, L), True = a real word; empty or too long a text raises."""


def load_words(kind: str) -> Words:
    """The word vectors of this name; UsageError for another, RoboprefError where their package is missing."""
    if kind not in KINDS:
        raise UsageError(f"Words {kind!r}: there are {' and '.join(KINDS)}.{nearest(kind, KINDS)}")
    return HashedWords() if kind == "hashed" else LlamaWords()


class HashedWords:
    """Random vectors, the same everywhere.

    Each word is the normalised sum of random vectors of itself and of its letter trigrams (fastText's idea, with nothing
    learnt), so that "closing" and "close" are near each other and an unseen word is never out of vocabulary.
    """

    size = HASHED_SIZE

    def encode(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """As `Words.encode`."""
        sentences = split(texts)
        vectors, mask = blank(sentences, self.size)
        for i, sentence in enumerate(sentences):
            vectors[i, : len(sentence)] = [_hashed(word) for word in sentence]
        return torch.from_numpy(vectors), torch.from_numpy(mask)


class LlamaWords:
    """The static embeddings of the package wordllama, a word at a time, so that they do not depend on the neighbours."""

    size = LLAMA_SIZE

    def __init__(self) -> None:
        try:
            import wordllama
        except ImportError as error:
            raise RoboprefError("Words of wordllama: its package is missing, pip install 'robopref[words]'") from error
        # By itself it looks for its own tokeniser in a folder that is not there, and then on the internet.
        own = Path(wordllama.__file__).parent
        self._model = wordllama.WordLlama.load(dim=self.size, cache_dir=own, disable_download=True)

    def encode(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """As `Words.encode`."""
        sentences = split(texts)
        vectors, mask = blank(sentences, self.size)
        vectors[mask] = self._model.embed([word for sentence in sentences for word in sentence], norm=True) * self.size**0.5
        return torch.from_numpy(vectors), torch.from_numpy(mask)


def split(texts: list[str]) -> list[list[str]]:
    """The words of each text that are read, in small letters; RoboprefError where there is none, and for more than MAX_WORDS."""
    sentences = [[word for word in _words(text) if word.isascii()] for text in texts]
    for text, sentence in zip(texts, sentences, strict=True):
        if not any(word.isalpha() for word in sentence):
            found = ", ".join(map(repr, _words(text)))
            why = f"has no word in letters a to z, and only those are read ({found})" if found else "is empty"
            raise RoboprefError(f"An instruction {why}; say what the robot should do in English, e.g. 'close the drawer'.")
    longest = max(sentences, key=len)
    if len(longest) > MAX_WORDS:
        raise RoboprefError(
            f"An instruction has {len(longest)} words ({' '.join(longest[:4])} ...), the small backbone reads {MAX_WORDS}: "
            "say it shorter."
        )
    return sentences


def unread(text: str) -> list[str]:
    """The words of a text that `split` leaves out, because they are in other letters than a to z."""
    return [word for word in _words(text) if not word.isascii()]


def _words(text: str) -> list[str]:
    # Compatibility forms first: full-width letters are the same letters, and an accent belongs to its letter.
    return re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", text).lower())


def blank(sentences: list[list[str]], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Zero vectors (N, L, size) for the words of sentences, and which of the N x L there are."""
    lengths = np.array([len(sentence) for sentence in sentences])
    mask = np.arange(lengths.max()) < lengths[:, None]
    return np.zeros((*mask.shape, size), np.float32), mask


@lru_cache(maxsize=4096)
def _hashed(word: str) -> np.ndarray:
    padded = f"<{word}>"
    pieces = [word, *(padded[i : i + 3] for i in range(len(padded) - 2))]
    weights = [2.0, *[1.0] * (len(pieces) - 1)]  # the word itself counts most
    vector = sum(w * _piece_vector(piece) for w, piece in zip(weights, pieces, strict=True))
    return np.asarray(vector / np.linalg.norm(vector) * HASHED_SIZE**0.5, np.float32)


@lru_cache(maxsize=16384)
def _piece_vector(piece: str) -> np.ndarray:
    return np.random.default_rng(zlib.crc32(piece.encode())).standard_normal(HASHED_SIZE)
