"""Voice activity: the detector, and what segments are made of its answers."""
