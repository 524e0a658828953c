"""Short scripts that run as they stand: one thing each, shown whole."""
