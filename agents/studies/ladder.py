"""The gap between trained teams and the oracle, split into parts by play that stands between them.

From the top: the oracle sees the users' hidden state; *informed play* knows the users' model but
infers each user from history and session (:mod:`agents.baselines.informed`); *searched actions* are
the best joint actions of the team's components that a search finds at every request, judged by the
same beliefs; trained teams have the same actions and have to learn everything. So

* oracle less informed play is what is *hidden*,
* informed play less searched actions is what the components' decisions cannot *express*,
* searched actions less trained teams is what was not *learned*.

Informed play does not explore, plans for boredom as the oracle does, and a search need not find the
best actions: each is a lower bound of the best of its kind.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from agents.baselines import build_baseline
from agents.baselines.informed import Informed
from agents.baselines.teams import draw_action
from agents.studies.headroom import OUTCOMES, LevelsPlan, compared, numbers, search_static
from marec_env import random
from marec_env.environment_config import EnvironmentConfig
from marec_env.errors import ConfigError, RunError
from marec_env.evaluation.policies import Policy
from marec_env.evaluation.rollout import rollout
from marec_env.evaluation.statistics import mean_estimate
from marec_env.pipeline.request import Request
from marec_env.reporting.charts import Bar, bars_figure
from marec_env.reporting.drawing import NEUTRAL, ORACLE, PALETTE, Figure
from marec_env.simulator import Simulator
from marec_env.users.composed import ComposedUsers
from marec_env.users.oracles import Outlook
from marec_env.vector import Action
from marec_env.world import World

FRESH = 8
"""One of so many tries is drawn from the whole action space; the others vary the best so far."""
_VARIED = 0.12  # share of a decision's numbers that a variation draws anew
_OF_THE_LAST = 8  # actions of the last component, which costs little, with each of the others'

_BATCH = 512  # sessions at once: a search's many small steps cost little more for many
_BELIEFS, _TRUTH = "searched actions, by beliefs", "searched actions, by hidden state"
_STATIC = "best static"
_SEED = re.compile(r"-seed\d+.*")  # of a run's folder: what follows tells runs alike apart


class SearchedActions:
    """At every request the best of many joint actions of the team, judged by expected clicks, now
    and by the boredom that the slate's topics lead to.

    The slate is what the team's components would show; a session keeps its best actions as the
    first try of the next request.
    """

    privileged = True

    def __init__(
        self, name: str, judge: Literal["beliefs", "truth"], tries: int, seed: int
    ) -> None:
        """Args:
        name: in reports.
        judge: what slates are judged by: informed play's beliefs, or the users' hidden state.
        tries: joint actions of all components but the last a request; each with eight of the last.
        seed: of the search.
        """
        self.name, self._tries, self._seed = name, tries, seed
        self._informed = Informed(name) if judge == "beliefs" else None
        self._last: dict[str, Tensor] = {}

    def recommend(self, simulator: Simulator) -> Tensor:
        """Return int64 ``[B, K]``.

        Raises:
            ConfigError: the users are not composed of modules, or actions have several parts.
        """
        outlook, seen = self._outlook(simulator), simulator.pipeline.memory.seen
        future = outlook.future(seen)
        keys = random.session_keys(self._seed, simulator.session_keys)
        first = int(simulator.pipeline.memory.requests[0]) * self._tries * _OF_THE_LAST
        *others, last = simulator.agents
        best = self._last if first else _tensors(simulator.default_actions())
        slate, worth = seen.new_zeros(()), torch.full_like(outlook.share[:, 0], -torch.inf)
        for number in range(self._tries * _OF_THE_LAST):
            step, anew = first + number, number % _OF_THE_LAST == 0
            tried = dict(best)
            for agent in simulator.agents if anew else [last]:
                if number:  # the first try is what was best before
                    fresh = anew and number // _OF_THE_LAST % FRESH == 0
                    tried[agent] = self._varied(simulator, agent, best[agent], keys, step, fresh)
            if anew:
                before, with_them = self._acted(simulator, others, tried), tried
            request = copy(before)
            self._act(simulator, request, last, tried[last])
            found = request.need("slate")
            value = outlook.worth(found, future)
            better = value > worth
            worth = torch.where(better, value, worth)
            slate = torch.where(better.unsqueeze(1), found, slate)
            best = {
                agent: _where(better, tried[agent] if agent == last else with_them[agent], kept)
                for agent, kept in best.items()
            }
        self._last = best
        return slate

    @staticmethod
    def _varied(
        simulator: Simulator, agent: str, action: Tensor, keys: Tensor, step: int, fresh: bool
    ) -> Tensor:
        """Return an action drawn anew, or one of which some numbers are."""
        space, stream = simulator.action_spaces[agent], f"searched/{agent}"
        drawn = _tensors({agent: draw_action(space, keys, step, stream)})[agent]
        if fresh:
            return drawn
        varied = random.uniform(keys, step, f"{stream}/varied", drawn[0].numel()) < _VARIED
        return torch.where(varied.view_as(drawn), drawn, action)

    def _outlook(self, simulator: Simulator) -> Outlook:
        if self._informed is not None:
            return self._informed.outlook(simulator)
        users = simulator.users
        if not isinstance(users, ComposedUsers):
            raise ConfigError(f"users.model: {self.name} needs users of the model 'marec'")
        return Outlook.of_truth(users, simulator.config.pipeline.slate_size)

    def _acted(
        self, simulator: Simulator, agents: Sequence[str], actions: Mapping[str, Tensor]
    ) -> Request:
        """Return a request in which these agents have acted; nothing is remembered of it."""
        request = simulator.pipeline.begin(simulator.session_keys)
        for agent in agents:
            self._act(simulator, request, agent, actions[agent])
        return request

    @staticmethod
    def _act(simulator: Simulator, request: Request, agent: str, action: Tensor) -> None:
        pipeline = simulator.pipeline
        fitting = pipeline.fit({agent: action})[agent]
        assert isinstance(fitting, Tensor)
        pipeline.components[pipeline.agents.index(agent)].act(request, fitting)


def _where(rows: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(rows.view(-1, *[1] * (new.dim() - 1)), new, old)


def _tensors(actions: Mapping[str, Action]) -> dict[str, Tensor]:
    found = {agent: action for agent, action in actions.items() if isinstance(action, Tensor)}
    if len(found) < len(actions):
        raise ConfigError("pipeline.messages: actions are searched without messages; set kind none")
    return found


def _unsearched(policy: Policy) -> tuple[Policy, int]:
    return policy, 0


def _rungs(
    world: World, plan: LevelsPlan, tries: int, trained: Mapping[str, Policy]
) -> dict[str, Callable[[], tuple[Policy, int]]]:
    """Return, from the foot, who plays each rung by name, and how many steps its search took."""
    simulator = Simulator(world, 1, autoreset=False)

    def named(name: str) -> Callable[[], tuple[Policy, int]]:
        return lambda: _unsearched(build_baseline(name, simulator))

    def static(seed: int) -> tuple[Policy, int]:
        return search_static(world, plan, "clicks", seed)

    def searched(name: str, judge: Literal["beliefs", "truth"]) -> tuple[Policy, int]:
        return _unsearched(SearchedActions(name, judge, tries, plan.search_cohort))

    return {
        "random": named("random"),
        "static": named("static"),
        **{f"{_STATIC}, search {seed}": partial(static, seed) for seed in plan.search_seeds},
        **{name: partial(_unsearched, policy) for name, policy in trained.items()},
        _BELIEFS: lambda: searched(_BELIEFS, "beliefs"),
        "informed_unmet": named("informed_unmet"),
        "informed_myopic": named("informed_myopic"),
        "informed": named("informed"),
        _TRUTH: lambda: searched(_TRUTH, "truth"),
        "oracle": named("oracle"),
    }


def measure_ladder(
    world: World,
    plan: LevelsPlan,
    tries: int,
    trained: Mapping[str, Policy],
    keep: Callable[[dict[str, Any]], None],
    earlier: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return each rung's outcomes, and paired differences in clicks that name the parts of the gap.

    Args:
        world: see :func:`marec_env.world.build_world`.
        plan: cohorts and the budget of the static search.
        tries: see :class:`SearchedActions`.
        trained: teams by name.
        keep: is given the report after every rung.
        earlier: a report made alike, whose rungs are taken over: cut short, or of fewer teams.

    Raises:
        RunError: the earlier report is of another environment or plan.
    """
    settings = {
        "environment": world.config.model_dump(mode="json"),
        "plan": {**_plain(plan), "tries": tries},
    }
    done = dict(earlier or {})
    for key, value in settings.items():
        if done and done.get(key) != value and not _as_now(key, done, world):
            raise RunError(
                f"the earlier ladder was made with another {key}; write elsewhere (--output), or "
                "add --replace"
            )
    report: dict[str, Any] = {**settings, "levels": {}, "search_env_steps": {}, "clicks": {}}
    for name, make in _rungs(world, plan, tries, trained).items():
        if name in done.get("levels", {}):
            for part in ("levels", "clicks", "search_env_steps"):
                report[part] |= {name: done[part][name]} if name in done[part] else {}
        else:
            policy, spent = make()
            played = rollout(world, policy, plan.sessions, plan.cohort, _BATCH)
            outcomes = played.per_session
            report["levels"][name] = {key: numbers(outcomes[key].numpy()) for key in OUTCOMES}
            report["clicks"][name] = outcomes["clicks"].tolist()
            if spent:
                report["search_env_steps"][name] = spent
        report["differences"] = _parts(report["clicks"], list(trained))
        keep(report)
    return report


def _as_now(key: str, report: Mapping[str, Any], world: World) -> bool:
    """Return whether a report is of this environment, but for keys that it was made without."""
    try:
        made_in = EnvironmentConfig.model_validate(report.get(key), strict=False)
    except ValidationError:
        return False
    return key == "environment" and made_in == world.config


def _plain(plan: LevelsPlan) -> dict[str, Any]:
    found = {name: getattr(plan, name) for name in plan.__slots__}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in found.items()}


def _best_static(clicks: Mapping[str, list[float]]) -> str:
    """Return the search that did best, on these very sessions, in its favour; "" before any."""
    found = [name for name in clicks if name.startswith(_STATIC)]
    return max(found, key=lambda name: sum(clicks[name]), default="")


def _parts(clicks: Mapping[str, list[float]], teams: list[str]) -> list[dict[str, Any]]:
    """Return the paired differences of clicks between rungs that are there; of teams that differ in
    their seed only, the mean is one rung.
    """
    values = {name: np.asarray(found, dtype=np.float64) for name, found in clicks.items()}
    alike: dict[str, list[str]] = {}
    for name in teams:
        alike.setdefault(_SEED.sub("", name), []).append(name)
    rungs = []
    for experiment, names in alike.items():
        rungs.append(names[0] if len(names) == 1 else f"{experiment}, mean of {len(names)}")
        if values.keys() >= set(names):
            values[rungs[-1]] = np.mean([values[name] for name in names], axis=0)
    static = _best_static(clicks)
    pairs = (
        ("", "static", "random"),
        ("", static, "static"),
        *(("learning", team, static) for team in rungs),
        *(("other training", later, rungs[0]) for later in rungs[1:]),
        *(("not learned", _BELIEFS, team) for team in rungs),
        ("not expressible", "informed", _BELIEFS),
        ("hidden", "oracle", "informed"),
        ("planning", "informed", "informed_myopic"),
        ("tastes of users met", "informed", "informed_unmet"),
        *(("within reach of a learner", "informed_unmet", team) for team in rungs),
        ("not expressible, hidden state known", "oracle", _TRUTH),
        ("hidden, same actions", _TRUTH, _BELIEFS),
    )
    return [
        {"criterion": "clicks", "part": part, **compared(values[one], values[other], one, other)}
        for part, one, other in pairs
        if one in values and other in values
    ]


def ladder_figure(report: Mapping[str, Any]) -> Figure:
    """Draw the rungs' clicks with their intervals."""
    oracles, bars = ("oracle", _TRUTH), []
    best = _best_static(report["clicks"])
    for name, clicks in report["clicks"].items():
        if name.startswith(_STATIC) and name != best:
            continue
        plain = name in ("random", "static", best)
        color = NEUTRAL if plain else ORACLE if name in oracles else PALETTE["trained" not in name]
        bars.append(Bar(name, mean_estimate(clicks), color))
    sessions = report["plan"]["sessions"]
    return bars_figure(
        "clicks a session", bars, f"From chance to the hidden state: {sessions} sessions."
    )
