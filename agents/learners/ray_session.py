"""Ray for a run: started where it is needed, asked for its resources first, and watched."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import torch

from agents.learners.config import SamplingConfig
from marec_env.errors import ConfigError, RunError

_CONNECT = 5.0  # seconds for a TCP connection
_JOIN = 60.0  # seconds for joining a cluster, in a process of its own
_RESERVE = 60.0  # seconds for a cluster to find the resources that a run needs
_EVERY = 1.0  # seconds between looks at Ray's processes
_JOINING = (
    "import ray, sys; ray.init(sys.argv[1], include_dashboard=False, log_to_driver=False,"
    " logging_level='ERROR')"
)


def start_ray(sampling: SamplingConfig) -> Callable[[], None]:
    """Connect to ``sampling.ray_address``, or start Ray in this machine, unless it runs already.

    Returns:
        a function that stops what was started here.

    Raises:
        RunError: the cluster does not answer, or Ray does not start here.
        ConfigError: it lacks the resources that the run needs.
    """
    import ray

    if ray.is_initialized():
        check_resources(sampling)
        return lambda: None
    if sampling.ray_address is not None:
        _try_address(sampling.ray_address)
    try:
        ray.init(
            address=sampling.ray_address,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
        )
    except Exception as error:  # a bare one where its node does not begin within half a minute
        raise _unreachable(sampling.ray_address, str(error)) from error
    try:
        check_resources(sampling)
    except ConfigError:
        ray.shutdown()
        raise
    return lambda: ray.shutdown()


def _unreachable(address: str | None, reason: str) -> RunError:
    if address is None:
        return RunError(
            f"cannot start Ray here: {' '.join(reason.split())}; other processes may keep this "
            "machine busy: try again, or join a cluster that runs with sampling.ray_address"
        )
    return RunError(
        f"cannot reach Ray at sampling.ray_address '{address}': {' '.join(reason.split())}; start a"
        " cluster there ('ray start --head'), or leave the key out to start Ray here"
    )


def _try_address(address: str) -> None:
    """Join a cluster in another process first: Ray would wait in ours for minutes, and then exit.

    Raises:
        RunError: it cannot be joined.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host, int(port)), _CONNECT).close()
        except (OSError, OverflowError) as error:
            raise _unreachable(address, str(error)) from error
    try:
        done = subprocess.run(
            [sys.executable, "-c", _JOINING, address],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_JOIN,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _unreachable(address, f"no answer in {_JOIN:.0f} s") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise _unreachable(address, last)


def check_resources(sampling: SamplingConfig) -> None:
    """Reserve what runners and learners need, and give it back; RLlib would wait without end.

    Raises:
        ConfigError: the cluster does not have it, or not in time.
    """
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group

    check_local_gpus(sampling)
    runners, learners = sampling.num_env_runners, sampling.num_learners
    gpus = sampling.gpus_per_learner
    if not runners + learners:
        return
    having = ray.cluster_resources()
    for kind, keys, needed in (
        # As RLlib asks: a learner with a GPU takes no CPU.
        ("CPU", "num_env_runners + sampling.num_learners", runners + (0 if gpus else learners)),
        ("GPU", "num_learners × sampling.gpus_per_learner", learners * gpus),
    ):
        if needed > having.get(kind, 0.0):
            raise ConfigError(
                f"sampling.{keys} needs {needed:g} {kind}s, but Ray has {having.get(kind, 0.0):g}: "
                "lower them, or set sampling.ray_address to a larger cluster"
            )
    learner = {"GPU": float(gpus)} if gpus else {"CPU": 1.0}
    bundles = [{"CPU": 1.0}] * runners + [learner] * learners
    reserved = placement_group(bundles)
    try:
        if not reserved.wait(_RESERVE):
            free = ray.available_resources()
            raise ConfigError(
                f"Ray found no room for sampling.num_env_runners={runners} and "
                f"sampling.num_learners={learners} with sampling.gpus_per_learner={gpus:g} in "
                f"{_RESERVE:.0f} s: of {having.get('CPU', 0.0):g} CPUs and "
                f"{having.get('GPU', 0.0):g} GPUs, {free.get('CPU', 0.0):g} and "
                f"{free.get('GPU', 0.0):g} are free, on several machines perhaps; lower the keys, "
                "or wait for other jobs to end"
            )
    finally:
        remove_placement_group(reserved)


def check_local_gpus(sampling: SamplingConfig) -> None:
    """Refuse GPUs that this machine lacks to the learner in this process.

    Raises:
        ConfigError: there are fewer.
    """
    here = torch.cuda.device_count()
    if not sampling.num_learners and sampling.gpus_per_learner > here:
        raise ConfigError(
            f"sampling.gpus_per_learner is {sampling.gpus_per_learner:g}, but PyTorch finds {here} "
            "GPUs on this machine, where the learner of sampling.num_learners=0 runs: lower it"
        )


@contextmanager
def watch_ray(died: Callable[[str], None]) -> Iterator[None]:
    """Tell when a process of Ray's dies on which everything depends, while in the context.

    Ray notices after a quarter of a minute, or a whole one, and then ends this process without a
    word that a user could act on.

    Args:
        died: is told what died, in another thread.
    """
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        yield
        return
    processes = {}
    with suppress(Exception):  # what Ray does not tell of cannot be watched
        context = ray.get_runtime_context()
        host, _, port = context.gcs_address.rpartition(":")
        processes[f"gcs_server at {context.gcs_address}"] = (host, int(port))
        for node in ray.nodes():
            if node["NodeID"] == context.get_node_id():
                place = (node["NodeManagerAddress"], node["NodeManagerPort"])
                processes[f"raylet at {place[0]}:{place[1]}"] = place
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_EVERY):
            for name, place in processes.items():
                try:
                    socket.create_connection(place, _CONNECT).close()
                except ConnectionError:  # refused: nobody listens any more
                    died(name)
                    return
                except OSError:
                    continue  # too busy to answer is not dead

    threading.Thread(target=watch, daemon=True, name="watch-ray").start()
    try:
        yield
    finally:
        over.set()
