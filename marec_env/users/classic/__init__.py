"""Classic simulators that are no composition of the modules."""
