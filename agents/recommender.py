"""A trained team for use elsewhere: a user's history in, items out; without simulator or Ray."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from agents.learners.policy import TrainedPolicy
from marec_env.errors import ConfigError, DataError, unknown_name
from marec_env.pipeline.pipeline import Pipeline
from marec_env.random import session_keys
from marec_env.world import World, build_world

__all__ = ["Recommendation", "Recommender"]


@dataclass(frozen=True, slots=True)
class Recommendation:
    """One item of a slate."""

    item: str
    """The item's identifier in the log."""
    title: str
    score: float
    """What the ranking component gave it, before diversity and exploration."""


class Recommender:
    """The components of a run, each with its trained policy, answering one request at a time.

    >>> recommender = Recommender.load("runs/my-run")  # doctest: +SKIP
    >>> recommender.recommend(["50", "181", "174"], k=5)  # doctest: +SKIP
    """

    def __init__(self, world: World, policy: TrainedPolicy) -> None:
        """Args:
        world: catalog and what the recommender learned from the log.
        policy: of the components of ``world.config.pipeline``.
        """
        self._world = world
        self._policy = policy
        self._device = world.knowledge.text.device
        self._positions = {item: place for place, item in enumerate(world.catalog.ids)}

    @classmethod
    def load(cls, run: str | Path, device: str = "cpu") -> Recommender:
        """Return the recommender of a run's newest undamaged checkpoint.

        Args:
            run: folder of a finished or running run of ``environment.kind: marec``.
            device: on which it works.

        Raises:
            RunError: the folder is no run's, or has no undamaged checkpoint.
            ConfigError: the run is not on the marec environment.
            DataError, AssetError: the run's log or encoder cannot be read.
        """
        from agents.runs.trained import load_run

        found = load_run(Path(run))
        policy = found.policy
        world = build_world(found.environment.model_copy(update={"device": device}))
        for actor in policy.actors.values():
            actor.to(device)
        return cls(world, policy)

    @torch.no_grad()
    def recommend(
        self,
        history: Sequence[str | int],
        k: int = 10,
        feedback: Sequence[bool | float] | None = None,
        group: str | None = None,
        seed: int = 0,
    ) -> list[Recommendation]:
        """Return ``k`` items that are not in the history, in the order to show them.

        Args:
            history: the log's item identifiers, oldest first; empty for a new user. The latest
                ``population.history`` of them make the profile; none of them is shown again.
            k: items wanted, at most ``pipeline.candidates``.
            feedback: per item of the history, whether it was liked, or a rating in the log's units
                (liked from ``data.like_threshold`` on). Without it every item counts as liked.
            group: the user's group, for components that ask for it.
            seed: of the ranking component's exploration; equal calls give equal items.

        Raises:
            DataError: an item is not in the log, or feedback has another length than history.
            ConfigError: k or group is out of range.
        """
        pipeline = self._pipeline(k, len(set(map(str, history))))
        first = torch.zeros(1, dtype=torch.int64, device=self._device)
        pipeline.reset(first, *self._known(history, feedback, group))
        # All of the history is seen, also what is too old for the profile.
        pipeline.memory.seen[0, self._places(history)] = True
        self._policy.reset()
        request = pipeline.begin(session_keys(seed, first))
        sequential = self._world.config.pipeline.sequential
        agents = pipeline.agents
        for turn in [(agent,) for agent in agents] if sequential else [agents]:
            observations = {agent: pipeline.observe(agent) for agent in turn}
            actions = self._policy.act(observations)
            for agent in turn:
                pipeline.act(request, agent, actions[agent])
        slate = pipeline.finish(request)[0].tolist()
        assert request.scores is not None
        assert request.slate_slot is not None
        scores = request.scores.gather(1, request.slate_slot)[0].tolist()
        catalog = self._world.catalog
        return [
            Recommendation(catalog.ids[item], catalog.titles[item], score)
            for item, score in zip(slate, scores, strict=True)
        ]

    def _pipeline(self, k: int, past: int) -> Pipeline:
        config, world = self._world.config, self._world
        free = world.catalog.num_items - past
        most = min(config.pipeline.candidates, free)
        if not 1 <= k <= most or free < config.pipeline.candidates:
            raise ConfigError(
                f"k must lie in 1 ... {most} and leave {config.pipeline.candidates} unseen items"
                f" for candidates (got k = {k}, {free} unseen items)"
            )
        return Pipeline(
            config.pipeline.model_copy(update={"slate_size": k}),
            world.knowledge,
            1,
            history_length=world.population.history.shape[1],
            max_requests=config.max_requests,
            groups=len(world.population.group_names),
        )

    def _places(self, history: Sequence[str | int]) -> Tensor:
        places = []
        for item in map(str, history):
            if item not in self._positions:
                raise DataError(
                    f"history: item '{item}' is not in the log"
                    f" '{self._world.config.data.source}'; leave it out"
                )
            places.append(self._positions[item])
        return torch.tensor(places, dtype=torch.int64, device=self._device)

    def _known(
        self,
        history: Sequence[str | int],
        feedback: Sequence[bool | float] | None,
        group: str | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return history and what was liked, ``[1, L]`` each and -1 padded, and the group."""
        if feedback is None:
            feedback = [True] * len(history)
        if len(feedback) != len(history):
            raise DataError(
                f"feedback has {len(feedback)} entries, history {len(history)}; give one an item"
            )
        threshold = self._world.log.like_threshold
        liked = [bool(x) if isinstance(x, bool | np.bool_) else x >= threshold for x in feedback]
        length = self._world.population.history.shape[1]
        places = self._places(history)[-length:]
        items = torch.full((1, length), -1, dtype=torch.int64, device=self._device)
        likes = torch.zeros(1, length, dtype=torch.bool, device=self._device)
        if len(places):
            items[0, -len(places) :] = places
            likes[0, -len(places) :] = torch.tensor(liked[-length:], device=self._device)
        names = self._world.population.group_names
        if group is not None and group not in names:
            raise ConfigError(unknown_name("group", group, names))
        number = names.index(group) if group is not None else 0
        return items, likes, torch.tensor([number], device=self._device)
