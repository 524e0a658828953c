"""Finished runs beside each other: read, grouped, summed up, and shown."""
