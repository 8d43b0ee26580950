"""Settings: hydra groups, the dataclasses that they become, run folders, manifests and checkpoints."""
