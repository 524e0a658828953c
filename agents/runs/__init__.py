"""Runs: their folders, checkpoints, metrics, progress, tracking, and the loop that trains."""
