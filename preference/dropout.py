"""Dropout whose masks cost one random byte a unit.

torch.nn.Dropout draws a number a unit, one after the other on a processor; a byte is ten times cheaper, and rounds the rate to a
multiple of 1/256.  Where the bytes come from is the caller's: members of a batched program have a generator each.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def byte_mask(drawn: Tensor, rate: float, like: Tensor) -> Tensor:
    """Mask of 0 and 1/(1 - rate) from random bytes `drawn` (any shape, uint8), with the type and device of `like`."""
    threshold = round(rate * 256)
    return (drawn.to(like.device) >= threshold).to(like.dtype).mul_(256 / (256 - threshold))


class ByteDropout(nn.Module):
    """torch.nn.Dropout with masks from bytes of torch's global generator."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape -> x with a share of its entries zeroed and the others scaled up; x itself in evaluation."""
        if not self.training or self.rate == 0:
            return x
        words = torch.empty(-(-x.numel() // 8), dtype=torch.int64, device=x.device).random_(-(2**63), None)
        return x * byte_mask(words.view(torch.uint8)[: x.numel()].view(x.shape), self.rate, x)
