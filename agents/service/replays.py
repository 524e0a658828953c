"""Simulated sessions of a team, told as the service tells its own, and with what only a simulator
knows: each component's objective f_i, the team's F, and how content the user was.

They lie beside the bundle, not in it (``films.replays.json`` for ``films``): a bundle holds nothing
about users, and a simulated user's history is one of the log's.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from agents.learners.policy import TrainedPolicy
from agents.service.past import Past
from agents.service.sessions import Sessions
from agents.service.teams import replays_of
from agents.service.telling import details_told, session_told, slate_told
from marec_env.errors import RunError
from marec_env.simulator import Simulator

if TYPE_CHECKING:
    from agents.service.bundle import Bundle
    from marec_env.world import World

_OBJECTIVE = "objective/"
_LEAST = 4  # rows of the smallest batch of an engine


def pasts_of(simulator: Simulator) -> list[Past]:
    """Return what the recommender knows of a simulator's users, whose sessions have just begun."""
    memory = simulator.pipeline.memory
    groups, pasts = memory.group.argmax(1).tolist(), []
    for row in range(simulator.num_envs):
        known = memory.history[row] >= 0
        items, liked = memory.history[row][known], memory.history_liked[row][known]
        limits = tuple(memory.limits[row].tolist())
        pasts.append(Past(tuple(items.tolist()), tuple(liked.tolist()), groups[row], limits))
    return pasts


def played(world: World, bundle: Bundle, sessions: int, seed: int) -> list[dict[str, Any]]:
    """Return simulated sessions from their first request to their last.

    Args:
        world: whose users come.
        bundle: of a team of that world; it takes its most probable actions.
        sessions: how many.
        seed: of the users and their luck.

    Returns:
        by session ``history`` and ``requests``: each as a slate is told, with ``details``,
        ``clicks``, ``memory`` after them, ``objectives`` (f_i by component), ``team`` (F) and
        ``satisfaction``.
    """
    # A batch of fewer rows would be rounded otherwise than those of the engine.
    simulator = Simulator(world, max(sessions, _LEAST), autoreset=False)
    simulator.begin(torch.arange(simulator.num_envs), seed)
    engine, policy = Sessions(bundle), bundle.policy
    if isinstance(policy, TrainedPolicy):
        policy = policy.playing(sampled=False)  # the same networks, a memory of its own
    pasts, keys = pasts_of(simulator)[:sessions], simulator.session_keys.tolist()
    begun = engine.open(pasts, keys[:sessions])
    found: list[dict[str, Any]] = [
        {"history": session_told("", one)["history"], "requests": []} for one in begun
    ]
    alive = list(range(sessions))
    while alive:
        if policy is not None:
            for turn in simulator.turns:
                simulator.act(policy.act({agent: simulator.observe(agent) for agent in turn}))
        step = simulator.advance()
        assert simulator.last is not None
        over, clicks = step.terminated | step.truncated, simulator.last.feedback.clicks
        slates = engine.recommend([begun[row] for row in alive])
        for row, slate in zip(alive, slates, strict=True):
            if slate.places.tolist() != simulator.last.slate[row].tolist():
                raise RunError(
                    f"bundle '{bundle.name}' shows other slates than its team in the simulator; "
                    "export the run anew"
                )
            taken = [slate.items[k].item for k in clicks[row].nonzero().squeeze(1).tolist()]
            begun[row].click(taken)
            numbers = {name: float(value[row]) for name, value in step.metrics.items()}
            found[row]["requests"].append(
                {
                    **slate_told(f"{seed}.{row}", bundle, slate, None),
                    "details": details_told(slate),
                    "clicks": taken,
                    "memory": session_told("", begun[row])["memory"],
                    "objectives": {
                        name.removeprefix(_OBJECTIVE): value
                        for name, value in numbers.items()
                        if name.startswith(_OBJECTIVE)
                    },
                    "team": numbers["team_reward"],
                    "satisfaction": numbers["satisfaction"],
                }
            )
        alive = [row for row in alive if not over[row]]
    return found


def write_replays(run: Path, bundle: Path, sessions: int) -> Path:
    """Write simulated sessions of a run's bundle beside it, of the users on whom it was trained and
    the seed of its evaluation.

    Raises:
        MarecError: the run cannot be read, or the file not be written.
    """
    from agents.runs.trained import load_run
    from agents.service.bundle import load_bundle
    from marec_env.io import write_json
    from marec_env.world import build_world

    found, team = load_run(run), load_bundle(bundle)
    world = build_world(found.environment.model_copy(update={"device": "cpu"}))
    document = {
        "version": team.version,
        "sessions": played(world, team, sessions, found.config.evaluation.seed),
    }
    write_json(place := replays_of(bundle), document)
    return place
