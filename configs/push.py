"""Settings of `robopref push`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True)
class PushConfig:
    """Write a trained VLP, policy or reward as one folder that works anywhere, with a model card, here or in the Hugging Face
    hub.
    """

    run: Annotated[Path, tyro.conf.Positional]
    """Run folder of `robopref train-vlp` or `robopref train` (of a pipeline, its `vlp` or `policies/NAME`), or the `reward` in
    one of policy=piql.
    """
    to: str
    """Folder to write, or hf-hub:OWNER/NAME; the hub's token comes from the environment (HF_TOKEN)."""
    private: bool = False
    """Make the hub's repository private; one that is already there and public is refused."""
    overwrite: bool = False
    """Replace another model that a push wrote to the folder; the same model is written anew without it."""
    dry_run: bool = False
    """Only list the files and their sizes; nothing is written or sent."""
