"""Subcommands of evaluate.py: modules with a function ``command``, imported when asked for."""
