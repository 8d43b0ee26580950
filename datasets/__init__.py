"""What happened: episodes, clips and preferences on disk."""
