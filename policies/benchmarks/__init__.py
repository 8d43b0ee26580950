"""Benchmarks: one file and one function `run() -> dict` each; both sides are measured in the same run."""
