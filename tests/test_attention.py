"""VLP's attention blocks against torch's own with the same weights, and dropout by bytes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from robopref.preference.attention import CrossAttentionMean, SelfAttention
from robopref.preference.dropout import ByteDropout

DIM, HEADS = 24, 3
REAL = torch.tensor([[True, True, False, False], [True, True, True, True], [True, False, False, False]])


def copy(target: nn.Module, **sources: torch.Tensor) -> None:
    target.load_state_dict(dict(sources))


@pytest.mark.parametrize("real", [None, REAL])
def test_self_attention_is_torchs_encoder_layer(real):
    torch.manual_seed(0)
    ours = SelfAttention(DIM, HEADS, 0.1).eval()
    peer = nn.TransformerEncoderLayer(DIM, HEADS, 4 * DIM, 0.0, "gelu", batch_first=True, norm_first=True)
    own = ours.state_dict()
    names = {
        "self_attn.in_proj_": "query_key_value.", "self_attn.out_proj.": "out.", "linear1.": "feed.0.", "linear2.": "feed.2.",
        "norm1.": "norm_in.", "norm2.": "norm_out.",
    }  # fmt: skip
    copy(peer, **{theirs + kind: own[mine + kind] for theirs, mine in names.items() for kind in ("weight", "bias")})
    x = torch.randn(3, 4, DIM)
    expected = peer.train()(x, src_key_padding_mask=None if real is None else ~real)
    shown = torch.ones(3, 4, dtype=torch.bool) if real is None else real
    torch.testing.assert_close(ours(x, real)[shown], expected[shown], atol=1e-5, rtol=1e-5)


def test_cross_attention_of_pairs_is_torchs_attention_pair_by_pair():
    torch.manual_seed(0)
    ours = CrossAttentionMean(DIM, HEADS, 0.1).eval()
    own = ours.state_dict()
    peer = nn.MultiheadAttention(DIM, HEADS, batch_first=True)
    weights = {f"in_proj_{kind}": torch.cat([own[f"query.{kind}"], own[f"key_value.{kind}"]]) for kind in ("weight", "bias")}
    copy(peer, **weights, **{f"out_proj.{kind}": own[f"out.{kind}"] for kind in ("weight", "bias")})
    x, context = torch.randn(2, 5, DIM), torch.randn(3, 4, DIM)
    real_x = torch.tensor([[True] * 5, [True, True, True, False, False]])
    rows, others = torch.tensor([0, 1, 1, 0]), torch.tensor([2, 0, 1, 1])
    found = ours(x, context, (rows, others), real_x, REAL)
    assert found.shape == (4, DIM)
    for mean, row, other in zip(found, rows, others, strict=True):
        tokens = x[row][real_x[row]][None]  # nothing but real tokens, so that there is nothing to mask
        seen = ours.norm_context(context[other][REAL[other]])[None]
        attended, _ = peer(ours.norm_x(tokens), seen, seen)
        torch.testing.assert_close(mean, (tokens + attended).mean(1)[0], atol=1e-5, rtol=1e-5)


def test_shares_are_torchs_attention_weights_of_real_words():
    torch.manual_seed(0)
    ours = CrossAttentionMean(DIM, HEADS, 0.1).eval()
    own = ours.state_dict()
    peer = nn.MultiheadAttention(DIM, HEADS, batch_first=True)
    weights = {f"in_proj_{kind}": torch.cat([own[f"query.{kind}"], own[f"key_value.{kind}"]]) for kind in ("weight", "bias")}
    copy(peer, **weights, **{f"out_proj.{kind}": own[f"out.{kind}"] for kind in ("weight", "bias")})
    x, context = torch.randn(2, 5, DIM), torch.randn(3, 4, DIM)
    real_x = torch.tensor([[True] * 5, [True, True, True, False, False]])
    found = ours.shares(x, context, (torch.tensor([0, 1]), torch.tensor([0, 1])), real_x, REAL)
    for row in range(2):
        seen = ours.norm_context(context[row])[None]
        _, expected = peer(ours.norm_x(x[row][real_x[row]])[None], seen, seen, ~REAL[row][None])  # mean over heads
        torch.testing.assert_close(found[row], expected[0].mean(0), atol=1e-6, rtol=1e-5)
    assert found[0, 2:].tolist() == [0.0, 0.0]  # padding gets none
    torch.testing.assert_close(found.sum(1), torch.ones(2))


def test_dropout_drops_its_share_and_keeps_the_mean():
    torch.manual_seed(0)
    x = torch.ones(1001, 333)  # no multiple of eight bytes
    dropped = ByteDropout(0.1)(x)
    zero = dropped == 0
    assert zero.float().mean().item() == pytest.approx(26 / 256, abs=0.003)  # 0.1 rounded to 1/256
    assert dropped[~zero].unique().tolist() == pytest.approx([256 / 230])
    assert dropped.mean().item() == pytest.approx(1, abs=0.003)
    rows, columns = zero.float().mean(1), zero.float().mean(0)  # no row, column or byte of a word is favoured
    assert rows.std().item() < 1.2 * (0.1 * 0.9 / 333) ** 0.5 and columns.std().item() < 1.2 * (0.1 * 0.9 / 1001) ** 0.5
    by_byte = zero.flatten()[: 8 * 41_000].view(-1, 8).float().mean(0)
    assert (by_byte - 26 / 256).abs().max().item() < 0.01


def test_dropout_repeats_with_the_seed_and_is_off_in_evaluation():
    x, layer = torch.randn(64, 64), ByteDropout(0.5)
    torch.manual_seed(3)
    one, two = layer(x), layer(x)
    torch.manual_seed(3)
    assert torch.equal(layer(x), one) and not torch.equal(one, two)
    assert layer.eval()(x) is x and ByteDropout(0.0)(x) is x


def test_gradients_pass_where_a_unit_was_kept():
    torch.manual_seed(0)
    x = torch.ones(100, requires_grad=True)
    dropped = ByteDropout(0.5)(x)
    dropped.sum().backward()
    assert torch.equal(x.grad, dropped.detach())
