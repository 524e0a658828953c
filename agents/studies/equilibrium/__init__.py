"""How close play is to a Nash equilibrium and to the cooperative optimum.

Payoff games solved exactly (:mod:`normal_form`, :mod:`mixed`, :mod:`correlated`), the pipeline's
decisions as a game (:mod:`decision_game`), best responses, joint search, credit and swap tests.
"""
