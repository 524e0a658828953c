"""Moved: :func:`session_lengths` is in :mod:`marec_env.data.times`."""

from marec_env.data.times import session_lengths

__all__ = ["session_lengths"]
