"""Studies of teams: equilibria, headroom, off-policy estimates, explanation, calibration."""
