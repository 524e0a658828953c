"""The studies of ``python evaluate.py equilibrium``: each returns a section of the report."""
