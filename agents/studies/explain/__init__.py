"""Why a trained team decides as it does: integrated gradients and grouped ablation.

:mod:`.average` explains each component on average over many requests, :mod:`.request` one slate
for one user; ``python evaluate.py explain RUN`` prints and writes both.
"""
