"""Learners, baselines and equilibrium analysis."""
