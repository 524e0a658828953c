"""How much there is to gain in a game: random, hand-set and searched static play, oracles, a team.

Every policy meets the same held-out sessions, so differences are paired. The best static pipeline
is searched over all action dimensions on other sessions, once per search seed, and the environment
steps that each search spent are counted: a learner is to be compared at an equal number.

Beside each trained team stand two controls, for a team may beat every static decision because it
reacts to the session, or because its typical decision is a better static one than the search found.
They keep everything but the link between a session and what the team sees of it:

* *shuffled*: at every request each session is acted on as if it were another, drawn from recorded
  play of the same team at the same request number;
* *frozen*: the mean of the recorded actions, in every request of every session.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from agents.baselines import build_baseline
from agents.baselines.teams import StaticTeam
from agents.studies.equilibrium.decisions import PipelineGame, search
from agents.studies.equilibrium.lineups import Replay
from agents.studies.equilibrium.normal_form import Floats
from marec_env import random
from marec_env.errors import ConfigError
from marec_env.evaluation.policies import DrawingPolicy, Policy, TeamPolicy
from marec_env.evaluation.rollout import RolloutResult, rollout
from marec_env.evaluation.statistics import mean_estimate
from marec_env.pipeline.component import Component
from marec_env.pipeline.pipeline import Pipeline
from marec_env.reporting.table import TextTable
from marec_env.simulator import Simulator
from marec_env.vector import Action
from marec_env.world import World

MESSAGES = "messages"
"""In place of a field: what a component hears from the others."""
OUTCOMES = ("return", "clicks", "length", "satisfaction")
CRITERIA = {"clicks": "clicks", "return": "F"}
"""What static play is searched for, each by its own searches, and what tables call it: clicks are
what users get, F is what teams are paid."""
_FLOOR_AND_BARS = ("random", "static", "oracle_myopic", "oracle")


@dataclass(frozen=True, slots=True)
class LevelsPlan:
    """Budgets and cohorts, saved with the result."""

    search_budget: int
    """Static decisions tried by each search."""
    search_sessions: int
    search_seeds: tuple[int, ...]
    search_cohort: int
    """Seed of the sessions searched on; apart from the held-out ones."""
    sessions: int
    """Held-out sessions."""
    cohort: int
    """Their seed."""
    control_sessions: int = 256
    """Sessions of the search cohort on which a trained team's play is recorded for its controls."""


def search_static(
    world: World, plan: LevelsPlan, criterion: str, seed: int
) -> tuple[StaticTeam, int]:
    """Search one static decision of the whole team for the highest criterion; return the team, and
    the environment steps that the search spent.
    """
    replay = Replay(world, plan.search_cohort)
    game = PipelineGame(replay)
    sessions = np.arange(plan.search_sessions, dtype=np.int64)
    spent = 0

    def score(points: Floats) -> Floats:
        nonlocal spent
        played = game.play(points, sessions)
        spent += int(played.outcomes["length"].sum())
        values = played.values["team" if criterion == "return" else criterion]
        return np.asarray(values.mean(axis=1), dtype=np.float64)

    found = search(score, plan.search_budget, game.default(), seed)
    name = f"best static for {CRITERIA[criterion]} (seed {seed})"
    return StaticTeam(game.actions(found.best), name), spent


def measure_levels(
    world: World, plan: LevelsPlan, trained: Mapping[str, Policy] | None = None
) -> dict[str, Any]:
    """Return each policy's outcomes with intervals, and paired differences between neighbours;
    ``trained`` are further policies by name.
    """
    simulator = Simulator(world, 1, autoreset=False)
    policies: dict[str, Policy] = {n: build_baseline(n, simulator) for n in _FLOOR_AND_BARS}
    steps: dict[str, int] = {}
    searched: dict[str, list[str]] = {criterion: [] for criterion in CRITERIA}
    for criterion, names in searched.items():
        for seed in plan.search_seeds:
            team, spent = search_static(world, plan, criterion, seed)
            policies[team.name], steps[team.name] = team, spent
            names.append(team.name)
    teams = dict(trained or {})
    controls: dict[str, Policy] = {}
    for name, policy in teams.items():
        if isinstance(policy, TeamPolicy):  # recommenders of whole slates have no controls
            play = record_play(world, policy, plan.control_sessions, plan.search_cohort)
            controls[f"{name}, shuffled"] = ShuffledObservations(policy, play, plan.cohort)
            controls[f"{name}, frozen"] = frozen_mean(play)
    policies |= teams | controls
    played = {name: rollout(world, p, plan.sessions, plan.cohort) for name, p in policies.items()}
    best, differences = {}, []
    for criterion, names in searched.items():
        values = {name: found.per_session[criterion].numpy() for name, found in played.items()}
        best[criterion] = max(names, key=lambda name: played[name].means()[criterion])
        found = _differences(values, best[criterion], list(teams), list(controls))
        differences += [{"criterion": criterion, **entry} for entry in found]
    return {
        "environment": world.config.model_dump(mode="json"),
        "plan": asdict(plan) | {"criteria": tuple(CRITERIA)},
        "levels": {
            name: {key: numbers(outcomes.per_session[key].numpy()) for key in OUTCOMES}
            for name, outcomes in played.items()
        },
        "search_env_steps": steps,
        "best_static": best,
        "differences": differences,
    }


def _differences(
    values: Mapping[str, Floats], best: str, teams: list[str], controls: list[str]
) -> list[dict[str, Any]]:
    """Return paired differences of one criterion, ``[S]`` a policy, most to the best static."""
    pairs = [("static", "random"), (best, "static"), ("oracle", best)]
    pairs += [(name, best) for name in (*teams, *controls)]
    found = [compared(values[one], values[other], one, other) for one, other in pairs]
    if len(teams) > 1:
        mean = np.mean([values[name] for name in teams], axis=0)
        pooled = compared(mean, values[best], f"mean of {len(teams)} trained teams", best)
        gains = [float((values[name] - values[best]).mean()) for name in teams]
        found.append(pooled | {"over_teams": numbers(gains)})  # over training seeds
    return found


def numbers(values: ArrayLike) -> dict[str, float | None]:
    """Return the mean with its interval and standard error."""
    estimate = mean_estimate(values)
    return {**estimate.as_json("mean"), "standard_error": estimate.standard_error}


def compared(first: Floats, second: Floats, name: str, other: str) -> dict[str, Any]:
    """Return the paired difference of ``first`` over ``second``, ``[S]`` each, and their names."""
    gap = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    found, base = mean_estimate(gap), float(second.mean())
    error = found.standard_error
    return {
        "of": name,
        "minus": other,
        **numbers(gap),
        "relative": found.value / base if base > 0 else None,
        "standard_errors": found.value / error if error > 0 else 0.0,
    }


def levels_table(report: Mapping[str, Any]) -> TextTable:
    """Return the levels of a report as a table, its differences in words below."""
    measures = ("F", "clicks", "requests", "satisfaction")
    rows = []
    for policy, row in report["levels"].items():
        cells = [f"{v['mean']:.2f} ± {v['standard_error']:.2f}" for v in row.values()]
        steps = report["search_env_steps"].get(policy)
        rows.append([policy, *cells, f"{steps:,}" if steps else ""])
    return TextTable(
        f"{report['plan']['sessions']} sessions, the same for all",
        ("policy", *(f"{name} ± s.e." for name in measures), "env steps of the search"),
        rows,
        [_sentence(row) for row in report["differences"]],
    )


def _sentence(row: Mapping[str, Any]) -> str:
    relative = "" if row["relative"] is None else f"{row['relative']:+.1%}, "
    part = f"{row['part']}: " if row.get("part") else ""
    line = (
        f"{part}{CRITERIA[row['criterion']]} of {row['of']} over {row['minus']}: "
        f"{row['mean']:+.2f} ± {row['standard_error']:.2f} "
        f"({relative}{row['standard_errors']:.1f} standard errors)"
    )
    if over := row.get("over_teams"):
        line += f"; over training seeds {over['mean']:+.2f} ± {over['standard_error']:.2f}"
    return line


@dataclass
class RecordedPlay:
    """What a team saw and did in sessions that were still going on."""

    observations: list[dict[str, Tensor]] = field(default_factory=list)
    """Per request number, per agent float32 ``[n_t, d_i]``; row ``j`` is one session for all."""
    actions: dict[str, list[tuple[Tensor, ...]]] = field(default_factory=dict)
    """Per agent and request its actions ``[n_t, ...]``, in parts where one has several."""


@torch.no_grad()
def record_play(world: World, policy: TeamPolicy, sessions: int, seed: int) -> RecordedPlay:
    """Play ``sessions`` sessions of the cohort ``seed`` and record the requests made in them."""
    simulator = Simulator(world, sessions, autoreset=False)
    simulator.begin(torch.arange(sessions), seed)
    policy.reset()
    if isinstance(policy, DrawingPolicy):
        policy.begin(simulator.session_keys)
    play = RecordedPlay()
    alive = torch.ones(sessions, dtype=torch.bool, device=simulator.device)
    while bool(alive.any()):
        seen: dict[str, Tensor] = {}
        for turn in simulator.turns:
            observations = {agent: simulator.observe(agent) for agent in turn}
            actions = policy.act(observations)
            simulator.act(actions)
            seen |= {agent: value[alive] for agent, value in observations.items()}
            for agent, action in actions.items():
                parts = action if isinstance(action, tuple) else (action,)
                play.actions.setdefault(agent, []).append(tuple(part[alive] for part in parts))
        play.observations.append(seen)
        step = simulator.advance()
        alive = alive & ~(step.terminated | step.truncated)
    return play


def frozen_mean(play: RecordedPlay) -> StaticTeam:
    """Return the team that always plays the recorded mean; whole choices are rounded."""
    actions: dict[str, Action] = {}
    for agent, requests in play.actions.items():
        parts = []
        for made in zip(*requests, strict=True):
            mean = torch.cat(made).double().mean(0)
            whole = not made[0].dtype.is_floating_point
            parts.append((mean.round() if whole else mean).to(made[0].dtype))
        actions[agent] = parts[0] if len(parts) == 1 else tuple(parts)
    return StaticTeam(actions, "frozen mean")


class ShuffledObservations:
    """A team that is shown, for each session, what it saw in another one at the same request of its
    own recorded play, drawn by ``seed``.
    """

    def __init__(
        self, policy: TeamPolicy, play: RecordedPlay, seed: int,
        columns: Mapping[str, range] | None = None,
    ) -> None:  # fmt: skip
        """Args:
        policy: that acts.
        play: of it.
        seed: of the draws.
        columns: by agent, those of its observation that are another session's; by default all.
        """
        self._policy, self._play, self._seed = policy, play, seed
        self._columns = columns
        self.reset()

    def reset(self) -> None:
        """Begin new episodes."""
        self._policy.reset()
        self._request = -1
        self._heard: set[str] = set()

    def begin(self, sessions: Tensor) -> None:
        """Draw for the sessions with these keys, int64 ``[B]``, whatever else is in the batch."""
        self._keys = sessions
        if isinstance(self._policy, DrawingPolicy):
            self._policy.begin(sessions)

    def act(self, observations: Mapping[str, Tensor]) -> dict[str, Action]:
        """Act on the observations of other sessions."""
        if self._request < 0 or self._heard & observations.keys():  # the next request's first turn
            self._request = min(self._request + 1, len(self._play.observations) - 1)
            self._heard = set()
            seen = self._play.observations[self._request]
            rows = len(next(iter(seen.values())))
            stream = f"control/shuffled/{self._seed}"
            drawn = random.integers(self._keys, self._request, stream, 1, rows)
            self._rows = drawn.squeeze(1)
        self._heard |= observations.keys()
        seen = self._play.observations[self._request]
        shown = {agent: seen[agent][self._rows] for agent in observations}
        if self._columns is not None:
            for agent, own in observations.items():
                others, mixed = slice(*_ends(self._columns[agent])), own.clone()
                mixed[:, others] = shown[agent][:, others]
                shown[agent] = mixed
        return self._policy.act(shown)


def _ends(columns: range) -> tuple[int, int]:
    return columns.start, columns.stop


def others_field(
    world: World, policy: TeamPolicy, field: str, sessions: int, seed: int
) -> RolloutResult:
    """Return what comes of a team that sees one field, or hears messages, as of other sessions.

    Args:
        world: in which it plays.
        policy: the team.
        field: a field of its observations, or ``messages``.
        sessions: of the cohort.
        seed: of the cohort.

    Raises:
        ConfigError: no component sees the field.
    """
    pipeline = Simulator(world, 1).pipeline
    columns = {
        component.agent: _columns(pipeline, component, field) for component in pipeline.components
    }
    if not any(columns.values()):
        raise ConfigError(f"no component sees '{field}': there is nothing to shuffle")
    play = record_play(world, policy, sessions, seed)
    return rollout(world, ShuffledObservations(policy, play, 0, columns), sessions, seed)


def _columns(pipeline: Pipeline, component: Component, field: str) -> range:
    """Return where a component's observation has a field; empty where it does not see it."""
    if type(component).observe is not Component.observe:
        raise ConfigError(
            f"component '{component.name}' makes its observation itself: which of its numbers are "
            f"'{field}' is not known"
        )
    view = pipeline.view(component.agent)
    ends = [0, *accumulate(view[name].shape[1] for name in component.granted)]
    if field == MESSAGES:  # what it hears comes last
        return range(ends[-1], pipeline.observe(component.agent).shape[1])
    if field not in component.granted:
        return range(0)
    place = component.granted.index(field)
    return range(ends[place], ends[place + 1])
