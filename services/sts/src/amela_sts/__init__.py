"""Speech to discrete units and back, with the checkpoints of fairseq and textless."""
