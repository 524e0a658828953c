"""Off-policy evaluation of teams: logs with propensities, reward models, and the errors they make.

:mod:`.logs` records what an exploring team did and earned, with the probability of
each component's action and of each slate, and beside it what the target would have earned in the
same states; :mod:`.study` estimates the latter from the former. The estimators are
:mod:`marec_env.evaluation.off_policy`.
"""
