"""A trained team for use elsewhere: a user's history in, items out; without simulator or Ray."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from agents.learners.policy import TrainedPolicy
from marec_env.errors import ConfigError, DataError, RunError, unknown_name, visible
from marec_env.pipeline.pipeline import Pipeline
from marec_env.random import session_keys, whole_seed
from marec_env.vector import Rows
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
        """The policy is that of the components of ``world.config.pipeline``."""
        self._world = world
        self._policy = policy
        self._device = world.knowledge.text.device
        self._positions = {item: place for place, item in enumerate(world.catalog.ids)}

    def __repr__(self) -> str:
        """Say what it recommends, and by whom it is decided."""
        config = self._world.config
        team, kept = ", ".join(config.pipeline.components), config.pipeline.candidates
        items = f"{len(self._positions):,} items of {config.data.source}"
        return f"Recommender of {items}: {team}; {kept} candidates a request"

    @classmethod
    def load(
        cls, run: str | Path, device: str = "cpu", *, changed_log: bool = False
    ) -> Recommender:
        """Return the recommender of a run's newest undamaged checkpoint.

        Args:
            run: folder of a finished or running run of ``environment.kind: marec``.
            device: on which it works.
            changed_log: whether the log may be another than that of training: newer, for instance.

        Raises:
            RunError: the folder is no run's, has no undamaged checkpoint, or was trained on another
                log, other encoder weights or topics and ``changed_log`` is false.
            ConfigError: the run is not on the marec environment.
            DataError, AssetError: the run's log or encoder cannot be read.
        """
        from agents.runs.trained import load_run

        found = load_run(Path(run))
        policy = found.policy
        changed = found.changed_inputs()
        if changed and not changed_log:
            raise RunError(
                f"{run} was trained on other {', '.join(changed)} than are here; put back what "
                "was, or load with changed_log=True to recommend from what is here now"
            )
        world = build_world(found.environment.model_copy(update={"device": device}))
        for actor in policy.actors.values():
            actor.to(device)
        return cls(world, policy)

    @torch.no_grad()
    def recommend(
        self,
        history: Iterable[str | int],
        k: int = 10,
        feedback: Iterable[bool | float] | None = None,
        group: str | None = None,
        seed: int = 0,
    ) -> list[Recommendation]:
        """Return ``k`` items that are not in the history, in the order to show them.

        Args:
            history: the log's item identifiers, oldest first; empty for a new user. The latest
                ``population.history`` of them make the profile; none of them is shown again.
            k: items wanted, at most ``pipeline.candidates``.
            feedback: per item of the history, whether it was liked, or a rating in the log's units
                (liked from ``data.like_threshold`` on). 0 and 1 alone are dislikes and likes if 0
                is no rating of the log. Without it every item counts as liked.
            group: the user's group, for components that ask for it.
            seed: of the ranking component's exploration; equal calls give equal items.

        Raises:
            DataError: an item is not in the log; history is one text, or has no order; feedback has
                another length, is no number, or could be ratings as well as likes.
            ConfigError: k or group is out of range.
        """
        past = self._places(_listed("history", history))
        liked = self._liked(feedback, len(past))
        pipeline = self._pipeline(k, len(set(past.tolist())))
        first = torch.zeros(1, dtype=torch.int64, device=self._device)
        pipeline.reset(Rows(), *self._known(past, liked, group))
        # All of the history is seen, also what is too old for the profile.
        pipeline.memory.seen[0, past] = True
        self._policy.reset()
        request = pipeline.begin(session_keys(whole_seed(seed), first))
        sequential = self._world.config.pipeline.sequential
        agents = pipeline.agents
        for turn in [(agent,) for agent in agents] if sequential else [agents]:
            observations = {agent: pipeline.observe(agent) for agent in turn}
            actions = pipeline.fit(self._policy.act(observations))
            for agent in turn:
                pipeline.act(request, agent, actions[agent])
        slate = pipeline.finish(request)[0].tolist()
        assert request.scores is not None and request.slate_slot is not None
        scores = request.scores.gather(1, request.slate_slot)[0].tolist()
        catalog = self._world.catalog
        return [
            Recommendation(catalog.ids[item], catalog.titles[item], score)
            for item, score in zip(slate, scores, strict=True)
        ]

    def _pipeline(self, k: int, past: int) -> Pipeline:
        config, world = self._world.config, self._world
        try:
            k = operator.index(k)
        except TypeError as error:
            raise ConfigError(f"k is {k!r}; give a whole number such as 10") from error
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

    def _places(self, history: Sequence[object]) -> Tensor:
        places = []
        for item in history:
            whole = isinstance(item, float | np.floating) and float(item).is_integer()
            name = str(int(item)) if whole else str(item)  # type: ignore[call-overload]
            if name not in self._positions:
                raise DataError(
                    f"history: item '{visible(name)}' is not in the log"
                    f" '{self._world.config.data.source}'; leave it out"
                )
            places.append(self._positions[name])
        return torch.tensor(places, dtype=torch.int64, device=self._device)

    def _liked(self, feedback: Iterable[object] | None, items: int) -> list[bool]:
        """Return which items of the history were liked."""
        if feedback is None:
            return [True] * items
        values = _listed("feedback", feedback)
        if len(values) != items:
            raise DataError(
                f"feedback has {len(values)} entries, history {items}; give one an item"
            )
        if all(isinstance(value, bool | np.bool_) for value in values):
            return [bool(value) for value in values]
        numbers = [_number(value, place) for place, value in enumerate(values)]
        known = self._world.visible_log
        threshold, ratings = known.like_threshold, known.rating
        if not set(numbers) <= {0.0, 1.0} or bool(ratings.max() <= 1.0):
            return [value >= threshold for value in numbers]
        # The log knows other ratings than 0 and 1: is this one of them, or a like?
        if 0.0 in numbers and bool(ratings.min() > 0.0):
            return [value == 1.0 for value in numbers]
        raise DataError(
            f"feedback of 0 and 1 alone may be ratings ({float(ratings.min()):g} ... "
            f"{float(ratings.max()):g}) or likes; give True and False, for instance rating >= "
            f"{threshold:g}"
        )

    def _known(
        self, past: Tensor, liked: Sequence[bool], group: str | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return history and what was liked, ``[1, L]`` each and -1 padded, and the group."""
        length = self._world.population.history.shape[1]
        items = torch.full((1, length), -1, dtype=torch.int64, device=self._device)
        likes = torch.zeros(1, length, dtype=torch.bool, device=self._device)
        if kept := min(length, len(past)):
            items[0, -kept:] = past[-kept:]
            likes[0, -kept:] = torch.tensor(liked[-kept:], device=self._device)
        names = self._world.population.group_names
        if group is not None and group not in names:
            raise ConfigError(unknown_name("group", str(group), names))
        number = names.index(group) if group is not None else 0
        return items, likes, torch.tensor([number], device=self._device)


def _listed(what: str, values: Iterable[object]) -> list[object]:
    """Return values in their order; one text is no list of letters, and sets have no order."""
    if isinstance(values, str | bytes | bytearray | memoryview):
        raise DataError(f"{what} is the text {values!r}; give a list, such as [{values!r}]")
    if isinstance(values, Set | Mapping) or not isinstance(values, Iterable):
        raise DataError(f"{what} is a {type(values).__name__}; give a list, oldest first")
    if getattr(values, "ndim", 1) == 0:  # iterable by its type only
        raise DataError(f"{what} is the single value {values!r}; give a list, oldest first")
    return list(values)


def _number(value: object, place: int) -> float:
    try:
        found = math.nan if isinstance(value, str | bytes) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found):
        raise DataError(
            f"feedback holds {value!r} at position {place}; give True, False or a rating, or leave "
            "the item out of history and feedback"
        )
    return found
