"""How closely the simulator follows a log: held-out click model, rates, distributions, a page."""
