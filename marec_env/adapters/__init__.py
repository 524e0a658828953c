"""Other people's algorithms on this environment: one module a library, imported when it is wanted.

``gym`` (Gymnasium's ``VectorEnv``), ``sb3`` (Stable-Baselines3's ``VecEnv`` on it), ``torchrl``
(TorchRL's ``EnvBase``) and ``benchmarl`` (a BenchMARL task on that) wrap what
:func:`marec_env.make_vec` makes; what their algorithms learn comes back as a
:class:`marec_env.evaluation.policies.TeamPolicy` and is compared like any other. Nothing here is
needed by the rest of the package (docs/other_libraries.md).
"""

from __future__ import annotations

from marec_env.errors import ConfigError

__all__ = ["missing"]


def missing(library: str, error: ImportError) -> ConfigError:
    """Return what to raise where an adapter's library, or what it needs itself, is not there."""
    return ConfigError(
        f"this adapter needs {library}, which cannot be imported ({error}): pip install {library}"
    )
