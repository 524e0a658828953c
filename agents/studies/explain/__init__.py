"""Why a trained team decides as it does: integrated gradients and grouped ablation.

:func:`.average.explain_team` explains each component on average over many requests,
:func:`.request.explain_request` one slate for one user; both are printed and written by
``python evaluate.py explain RUN``.
"""
