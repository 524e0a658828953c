"""Start Ray where a run needs it, and stop it where it was started."""

from __future__ import annotations

from collections.abc import Callable

from agents.learners.config import SamplingConfig
from marec_env.errors import ConfigError, RunError

__all__ = ["check_cpus", "start_ray"]


def start_ray(sampling: SamplingConfig) -> Callable[[], None]:
    """Connect to ``sampling.ray_address``, or start Ray in this machine, unless it runs already.

    Returns:
        a function that stops what was started here.

    Raises:
        RunError: the cluster does not answer.
    """
    import ray

    if ray.is_initialized():
        return lambda: None
    try:
        ray.init(
            address=sampling.ray_address,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise RunError(
            f"cannot reach Ray at sampling.ray_address '{sampling.ray_address}': {error}"
        ) from error

    def stop() -> None:
        ray.shutdown()

    return stop


def check_cpus(sampling: SamplingConfig) -> None:
    """Refuse more processes than Ray has CPUs, for which RLlib would wait without end.

    Raises:
        ConfigError: runners and learners need more CPUs than the cluster has.
    """
    import ray

    needed = sampling.num_env_runners + sampling.num_learners
    having = int(ray.cluster_resources().get("CPU", 0))
    if needed > having:
        raise ConfigError(
            f"sampling.num_env_runners + sampling.num_learners is {needed}, but Ray has {having}"
            " CPUs: lower them, or set sampling.ray_address to a larger cluster"
        )
