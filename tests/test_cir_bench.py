"""What `bench cir` divides by what, and what its limits count."""

from __future__ import annotations

from functools import partial

import pandas as pd

from robopref.configs.policy import CIRConfig
from robopref.policies.benchmarks import cir, cir_limits


def test_ratios_are_to_the_peers_that_they_name() -> None:
    side = partial(cir.Side, lambda warmup: print)
    group = {"a": side("peer"), "b": side("peer"), "c": side(), "d": side("ours"), "e": side("ours", "bfloat16 products")}
    assert cir.compare(group, {"a": 1.0, "b": 2.0, "c": 9.0, "d": 3.0, "e": 4.0}) == ("e", "d", "b")
    assert cir.compare(group, {"a": 2.0, "b": 1.0, "c": 9.0, "d": 3.0, "e": 2.5}) == ("d", "d", "a")


def test_the_last_line_says_its_precision_and_its_peer(monkeypatch) -> None:
    """Rates are made up: 2 for peers, 3 for the one in JAX, 8 for ours in float32 and 9 or 7 with bfloat16 products."""
    monkeypatch.setenv(cir.SBX, "python")
    monkeypatch.setattr(cir.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(cir, "has_bfloat16", lambda device: True)

    def rates_of(group):
        mixed = {256: 9.0, 512: 7.0}[512 if "CIR, written plainly" in group else 256]
        speed = {("peer", "float32"): 2.0, ("ours", "float32"): 8.0, ("ours", "bfloat16 products"): mixed}
        found = {name: speed.get((side.role, side.precision), 99.0) for name, side in group.items()}
        return {name: dict.fromkeys(cir.THREADS, 3.0 if name == cir.JAX else rate) for name, rate in found.items()}

    monkeypatch.setattr(cir, "rates_of", rates_of)
    measured = cir.run()
    assert measured.pop("fastest")["256"] == cir.JAX
    assert measured == {
        "ratio_256": 4.5,
        "float32_256": 4.0,
        "ratio_sbx": 3.0,
        "float32_sbx": 2.67,
        "ratio_512": 4.0,
        "float32_512": 4.0,
        "precision": {"256": "bfloat16 products", "512": "float32"},
        "fair": {"256": 2.67, "512": 4.0},
    }


def test_the_limits_count_the_products_of_an_update() -> None:
    """By hand for soft actor-critic: rows x inputs x outputs, twice, of every product that an update needs."""
    width, batch, (obs, action) = 16, 8, cir_limits.SIZES
    config = CIRConfig(width=width, batch=batch, critic="mlp", actor_q="min", low_share=1.0)
    recorder = cir_limits.record(cir_limits.ours(config)[1])
    # three times forward, once for the weights; the hidden layer twice backward, the first one for the actions alone
    critic = 4 * ((obs + action) * width + width * width + width) + 2 * width * width + action * width
    actor = (2 + 1) * (obs * width + width * width + 2 * action * width) + width * width + 2 * action * width
    assert recorder.flops == 2 * batch * (2 * critic + actor)
    assert recorder.calls > len(recorder.products)
    before = [args[0].clone() for _, args, _ in recorder.products]
    recorder.again()
    assert all((args[0] == first).all() for (_, args, _), first in zip(recorder.products, before, strict=True))


def test_the_limits_are_a_row_a_number_of_threads(monkeypatch, capsys, tmp_path) -> None:
    for name, value in {"TURNS": 1, "TURN_S": 0.0}.items():
        monkeypatch.setattr(cir_limits, name, value)
    monkeypatch.setattr(cir_limits, "compose", lambda name, words: {"policy": {"width": 16, "batch": 16}})
    rows = cir_limits.run(threads=(1,))
    assert [row["update"] for row in rows] == ["SAC, width 16, 1 thread", "CIR, width 16, 1 thread"]
    for row in rows:
        assert row["calls"] < row["peer's calls"]
        assert row["at most"] == row["peer"] / (row["products"] + row["pass"])
    assert "GFLOP/s" in capsys.readouterr().out
    monkeypatch.setattr(cir_limits, "run", lambda: rows)
    cir_limits.main([str(tmp_path / "limits.csv")])
    table = pd.read_csv(tmp_path / "limits.csv")
    assert table["calls"].tolist() == [row["calls"] for row in rows] and {"machine", "code"} <= set(table)
