"""Settings of reward code that a language model, or anybody, wrote (PROF)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SandboxConfig:
    """What code that a language model wrote may use."""

    seconds: float = 20.0
    """Of processor time and, beyond its start, of waiting."""
    memory_mb: int = 1024
    """Beyond what Python and numpy have."""
    bubblewrap: bool = True
    """Use bubblewrap where it is installed."""
    strict: bool = False
    """Run nothing unless every layer of the sandbox holds."""
