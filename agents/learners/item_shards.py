"""Ray actors as the host of a large catalog's item vectors (``pipeline.recall.shards``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from marec_env.errors import RunError
from marec_env.pipeline.shards import Floats, Shard


class RayShards:
    """One actor a part, spread over the machines of the cluster; they end with this object."""

    def __init__(self, parts: Sequence[Mapping[str, Floats]], approximate: bool) -> None:
        """Start the actors: each receives its part by Ray's object store, and copies it."""
        import ray

        RAY.session()
        actor = ray.remote(Shard).options(num_cpus=0, scheduling_strategy="SPREAD")
        self.actors = [actor.remote(part, approximate) for part in parts]

    def ask(self, method: str, asked: Sequence[tuple[Any, ...] | None]) -> list[Any]:
        """See :class:`marec_env.pipeline.shards.Host`."""
        import ray

        waiting = [
            None if given is None else getattr(actor, method).remote(*given)
            for actor, given in zip(self.actors, asked, strict=True)
        ]
        answers = []
        for number, answer in enumerate(waiting):
            try:
                answers.append(None if answer is None else ray.get(answer))
            except ray.exceptions.RayActorError as error:
                RAY.lost += 1
                raise RunError(
                    f"item shard {number + 1} of {len(waiting)} (pipeline.recall.shards) has died: "
                    f"{' '.join(str(error).split())[:200]}; see whether its machine has memory "
                    "enough, and start anew (train.py --resume RUN goes on with a run)"
                ) from None
        return answers


class _Ray:
    """Ray as it runs, else where ``RAY_ADDRESS`` says, else in this machine."""

    lost = 0
    """How often a shard was found dead: what it was a part of is not to be used again."""

    def __call__(self, parts: Sequence[Mapping[str, Floats]], approximate: bool) -> RayShards:
        return RayShards(parts, approximate)

    def session(self) -> str:
        """Return which job of which Ray this process is, since the latest loss."""
        import ray

        if not ray.is_initialized():
            ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        context = ray.get_runtime_context()
        return f"{context.gcs_address} {context.get_job_id()} {self.lost}"


RAY = _Ray()
