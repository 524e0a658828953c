"""Training over two Ray nodes, one of which is killed: ``python benchmarks/two_nodes.py``.

Two nodes are started on loopback addresses of their own, with a CPU each, and a team trains with a
runner on either. Then the second node's processes are killed, and later a third node joins. Printed
is, for each iteration, how many runners answered and how many steps were counted: a runner's lost
steps are not counted, and no step twice. Exit code 1 if training stops, a count is none of one or
two runners' steps, or the runner does not come back on the new node. A minute or two on one core.
"""

from __future__ import annotations

import socket
import sys
import time
from typing import Any

import ray
from ray.cluster_utils import Cluster

from agents.learners.config import MAPPOConfig, SamplingConfig
from agents.learners.trainer import Trainer
from marec_env import make_vec

SESSIONS, LENGTH = 16, 8
STEPS = SESSIONS * LENGTH  # of a runner and iteration
PATIENCE = 240.0  # seconds until a runner must be back
ENVIRONMENT = {
    "max_requests": 8,
    "embeddings": {"encoder": "hashing", "cache": False},
    "population": {"sweeps": 1},
    "knowledge": {"sweeps": 1},
}


def environment(num_sessions: int, **options: Any) -> Any:
    return make_vec(ENVIRONMENT, num_sessions=num_sessions)


def where(trainer: Trainer) -> list[str]:
    """Return the address of the node that each runner is on."""
    group = trainer._engine.algorithm.env_runner_group
    return sorted(
        group.foreach_env_runner(
            lambda _: ray.util.get_node_ip_address(), local_env_runner=False, timeout_seconds=60
        )
    )


def main() -> int:
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "node_ip_address": "127.0.0.2", "include_dashboard": False},
    )
    second = cluster.add_node(num_cpus=1, node_ip_address="127.0.0.3")
    ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")
    sampling = SamplingConfig(num_sessions=SESSIONS, rollout_length=LENGTH, num_env_runners=2)
    trainer = Trainer(MAPPOConfig(), sampling, 0, environment)
    total, seen, told = 0, set(), None

    def iterate(event: str = "") -> int:
        nonlocal total, told
        metrics = trainer.iterate()
        gained, total = trainer.env_steps - total, trainer.env_steps
        if event or gained != told:
            runners = metrics.get("healthy_runners", float("nan"))
            print(f"{event or 'then':<24} {runners:.0f} runners, {gained} steps, {total} in all")
        told = gained
        seen.add(gained)
        return gained

    try:
        iterate(f"on {' and '.join(where(trainer))}")
        iterate()
        cluster.remove_node(second, allow_graceful=False)
        for number in range(6):
            iterate("second node killed" if number == 0 else "")
        alone = told == STEPS
        cluster.add_node(num_cpus=1, node_ip_address="127.0.0.4")
        began, back = time.monotonic(), False
        while not back and time.monotonic() - began < PATIENCE:
            back = iterate() == 2 * STEPS
        print(f"third node joined: back after {time.monotonic() - began:.0f} s" if back else "lost")
        print(f"runners on {' and '.join(where(trainer))}; machine {socket.gethostname()}")
    finally:
        trainer.close()
        ray.shutdown()
        cluster.shutdown()
    return 0 if alone and back and seen <= {0, STEPS, 2 * STEPS} else 1


if __name__ == "__main__":
    sys.exit(main())
