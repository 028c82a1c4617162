"""Tiny real NeMo checkpoints that transcribe spoken commands, and the script that made them."""
