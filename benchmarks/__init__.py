"""What is measured, by commands: python -m benchmarks.NAME or python benchmarks/NAME.py."""
