"""Subcommands of evaluate.py: a module each, with a function ``command``, imported when asked for."""
