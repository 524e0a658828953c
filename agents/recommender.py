"""A trained team for use elsewhere: a user's history in, items out; without simulator or Ray."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from agents.service.bundle import Bundle, is_bundle, load_bundle
from agents.service.past import Past, past_of
from agents.service.sessions import Session, Sessions
from agents.service.slates import Recommendation
from marec_env.errors import ConfigError, RunError
from marec_env.random import session_keys, whole_seed

__all__ = ["Recommendation", "Recommender"]


class Recommender:
    """The components of a run, each with its trained policy.

    >>> recommender = Recommender.load("runs/my-run")  # doctest: +SKIP
    >>> recommender.recommend(["50", "181", "174"], k=5)  # doctest: +SKIP
    """

    def __init__(self, bundle: Bundle) -> None:
        """The team, and what it knows of the items."""
        self.bundle = bundle
        self._engines: dict[int, Sessions] = {}

    def __repr__(self) -> str:
        """Say what it recommends, and by whom it is decided."""
        return f"Recommender of {self.bundle!r}"

    @classmethod
    def load(
        cls, place: str | Path, device: str = "cpu", *, changed_log: bool = False
    ) -> Recommender:
        """Return the recommender of a bundle, or of a run's newest undamaged checkpoint.

        Args:
            place: folder of a bundle (``marec export``), which loads in a fraction of a second and
                needs no log; or of a finished or running run of ``environment.kind: marec``.
            device: on which it works.
            changed_log: whether a run's log may be another than that of training: newer, for
                instance.

        Raises:
            RunError: the folder is neither; a bundle is damaged or of an unknown format; a run has
                no undamaged checkpoint, or was trained on another log, other encoder weights or
                topics and ``changed_log`` is false.
            ConfigError: the run is not on the marec environment.
            DataError, AssetError: the run's log or encoder cannot be read.
        """
        if is_bundle(Path(place)):
            return cls(load_bundle(place, device))
        from agents.runs.trained import load_run
        from marec_env.world import build_world

        found = load_run(Path(place))
        policy = found.policy
        changed = found.changed_inputs()
        if changed and not changed_log:
            raise RunError(
                f"{place} was trained on other {', '.join(changed)} than are here; put back what "
                "was, or load with changed_log=True to recommend from what is here now"
            )
        world = build_world(found.environment.model_copy(update={"device": device}))
        for actor in policy.actors.values():
            actor.to(device)
        return cls(Bundle.of(world, policy, found.name))

    def recommend(
        self,
        history: Iterable[str | int],
        k: int = 10,
        feedback: Iterable[bool | float] | None = None,
        group: str | None = None,
        seed: int = 0,
        attributes: Mapping[str, float] | None = None,
    ) -> list[Recommendation]:
        """Return ``k`` items that are not in the history, in the order to show them.

        It is the first request of a :meth:`session`, which is then forgotten.

        Args:
            history, k, feedback, group, seed, attributes: as of :meth:`session`.

        Raises:
            DataError, ConfigError: as of :meth:`session`.
        """
        session = self.session(history, k, feedback, group, seed, attributes)
        try:
            return list(session.recommend().items)
        finally:
            session.close()

    def session(
        self,
        history: Iterable[str | int] = (),
        k: int = 10,
        feedback: Iterable[bool | float] | None = None,
        group: str | None = None,
        seed: int = 0,
        attributes: Mapping[str, float] | None = None,
    ) -> Session:
        """Return a session that remembers what it showed and what was clicked.

        Args:
            history: the log's item identifiers, oldest first; empty for a new user. The latest
                ``population.history`` of them make the profile; none of them is shown again.
            k: items of a slate, at most ``pipeline.candidates``.
            feedback: per item of the history, whether it was liked, or a rating in the log's units
                (liked from ``data.like_threshold`` on). 0 and 1 alone are dislikes and likes if 0
                is no rating of the log. Without it every item counts as liked.
            group: the user's group, for components that ask for it.
            seed: of the ranking component's exploration; equal calls give equal items.
            attributes: the user's own limits, by name (``risk_limit``).

        Raises:
            DataError: an item is not in the log; history is one text, or has no order; feedback has
                another length, is no number, or could be ratings as well as likes.
            ConfigError: k, group or an attribute is out of range.
        """
        past = past_of(self.bundle, history, feedback, group, attributes)
        key = int(session_keys(whole_seed(seed), torch.zeros(1, dtype=torch.int64)))
        [session] = self.engine(self._slate_size(k, past)).open([past], [key])
        return session

    def engine(self, k: int = 10) -> Sessions:
        """Return what runs the sessions with slates of ``k`` items, many in one batch.

        >>> recommender.engine(10).recommend([one, another])  # doctest: +SKIP
        """
        if k not in self._engines:
            self._engines[k] = Sessions(self.bundle, slate_size=k)
        return self._engines[k]

    def _slate_size(self, k: int, past: Past) -> int:
        try:
            k = operator.index(k)
        except TypeError as error:
            raise ConfigError(f"k is {k!r}; give a whole number such as 10") from error
        candidates = self.bundle.pipeline.candidates
        free = len(self.bundle.ids) - past.distinct
        most = min(candidates, free)
        if not 1 <= k <= most or free < candidates:
            raise ConfigError(
                f"k must lie in 1 ... {most} and leave {candidates} unseen items"
                f" for candidates (got k = {k}, {free} unseen items)"
            )
        return k
