"""Comparison that can be believed: paired cohorts, metrics, statistics."""
