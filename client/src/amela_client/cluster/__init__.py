"""Servers as jobs: of SLURM, or on this machine."""
