"""How close play is to a Nash equilibrium and to the cooperative optimum.

:mod:`.study` runs the parts: :mod:`.exploitability`, :mod:`.credit`, :mod:`.matrix`,
:mod:`.anarchy`. They stand on games in normal form (:mod:`.normal_form`), the
pipeline's decisions as a game (:mod:`.decisions`, :mod:`.lineups`) and best responses.
"""
