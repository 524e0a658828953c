"""What there is to gain in the pipeline game, and whether it has the properties it should have."""
