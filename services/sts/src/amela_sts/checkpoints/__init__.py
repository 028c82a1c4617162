"""Checkpoints on disk: which there are, whether they are what they claim to be, and how to read them."""
