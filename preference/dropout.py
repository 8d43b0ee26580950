"""Dropout whose masks cost one random byte a unit.

torch.nn.Dropout draws a number a unit, one after the other on a processor; a byte is ten times cheaper, and rounds the rate to a
multiple of 1/256.  Where the bytes come from is the caller's: members of a batched program have a generator each.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def in_bytes(rate: float) -> tuple[int, float]:
    """(threshold, scale) of a rate: a unit stays when its byte is not below the threshold, and is then scaled up."""
    threshold = round(rate * 256)
    return threshold, 256 / (256 - threshold)


class ByteDropout(nn.Module):
    """torch.nn.Dropout with masks from bytes of torch's global generator."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape -> x with a share of its entries zeroed and the others scaled up; x itself in evaluation."""
        if not self.training or self.rate == 0:
            return x
        threshold, scale = in_bytes(self.rate)
        words = torch.empty(-(-x.numel() // 8), dtype=torch.int64, device=x.device).random_(-(2**63), None)
        drawn = words.view(torch.uint8)[: x.numel()].view(x.shape)
        return x * (drawn >= threshold).to(x.dtype).mul_(scale)
