"""Labellers that others have published, as the references of VLP; docs/vlp.md says what is theirs and what is ours."""
