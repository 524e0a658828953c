"""Properties of users alone, measured and printed: ``python -m agents.studies.users``.

Each line says what a good simulator should show, the number found with its standard error, and
whether it holds. Lines about several components acting together need the pipeline and are not here.
Every comparison is paired: both policies meet the same users with the same luck.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import sys
from dataclasses import dataclass

import torch
from torch import Tensor

from marec_env import random
from marec_env.catalog.population import Population
from marec_env.classic.populations import synthetic_population
from marec_env.classic.rollout import EpisodeTotals, offer, play
from marec_env.users.base import Users
from marec_env.users.composed import ComposedUsers
from marec_env.users.config import (
    AmplificationDrift,
    IntentConfig,
    NoBoredom,
    NoPatience,
    ReturnConfig,
    SatisfactionConfig,
    SupplyConfig,
    ThresholdBoredom,
    UsersConfig,
    WalkDrift,
)
from marec_env.users.oracles import Oracle, farsighted_slate, myopic_slate, random_slate
from marec_env.users.registry import make_users

__all__ = ["Line", "report"]

_SLATE = 10
_HORIZON = 40
_SIGMAS = 3.0  # a difference counts from three standard errors


@dataclass(frozen=True, slots=True)
class Line:
    """One property and what was found."""

    number: int
    """Of the list in ``docs/users.md``."""
    claim: str
    found: str
    holds: bool

    def __str__(self) -> str:
        """Return the line as printed."""
        return f"{self.number:>2}  {'yes' if self.holds else 'NO ':<3}  {self.claim}: {self.found}"


def _stays(config: UsersConfig, **sections: object) -> UsersConfig:
    """Return a configuration of users who never leave, with some sections replaced."""
    return config.model_copy(update={"patience": NoPatience(), **sections})


class _Bench:
    """A population and sessions to compare policies on."""

    def __init__(self, sessions: int, seed: int) -> None:
        self.population: Population = synthetic_population(seed, items=500)
        self.keys = random.session_keys(seed + 1, torch.arange(sessions))

    def play(self, config: UsersConfig, policy: Oracle, horizon: int = _HORIZON) -> EpisodeTotals:
        people = self.population
        users = make_users(config, people, len(self.keys))
        topics, count = people.topics, people.num_topics
        return play(users, self.keys, policy, _SLATE, horizon, topics=topics, num_topics=count)


def _mean(values: Tensor) -> tuple[float, float]:
    """Return the mean and its standard error."""
    return float(values.mean()), float(values.std() / len(values) ** 0.5)


def _percent_gap(bench: _Bench, config: UsersConfig, horizon: int) -> tuple[float, float]:
    """Return by how many percent the farsighted policy's clicks exceed the myopic one's."""
    myopic = bench.play(config, myopic_slate, horizon).clicks
    far = bench.play(config, farsighted_slate, horizon).clicks
    gap, error = _mean(far - myopic)
    scale = 100.0 / float(myopic.mean())
    return gap * scale, error * scale


def _fatigue(bench: _Bench) -> list[Line]:
    usual = ThresholdBoredom(susceptible_share=1.0)

    def gap(horizon: int = _HORIZON, weight: float = usual.weight) -> tuple[float, float]:
        bored = usual.model_copy(update={"weight": weight})
        return _percent_gap(bench, _stays(UsersConfig(), boredom=bored), horizon)

    value, error = gap()
    none, _ = _percent_gap(bench, _stays(UsersConfig(), boredom=NoBoredom()), _HORIZON)
    series = {
        "horizon 5, 15, 40:": [gap(horizon=horizon) for horizon in (5, 15, 40)],
        "weight 1, 3, 9:": [gap(weight=weight) for weight in (1.0, 3.0, 9.0)],
    }
    return [
        Line(
            1,
            "sparing topics pays where they bore, and only there",
            f"+{value:.1f} % clicks ± {error:.1f}; without boredom {none:+.1f} %",
            value > _SIGMAS * error and none == 0.0,
        ),
        Line(
            2,
            "what it pays grows with horizon and boredom (percent; below 0 sparing costs more)",
            "; ".join(
                f"{name} " + ", ".join(f"{value:+.1f} ± {error:.1f}" for value, error in gaps)
                for name, gaps in series.items()
            ),
            all(
                later[0] > earlier[0]
                for gaps in series.values()
                for earlier, later in itertools.pairwise(gaps)
            ),
        ),
    ]


def _best(value: Tensor, items: Tensor, slate_size: int) -> Tensor:
    """Return each session's items of highest value ``[B, N]`` among ``items [B, M]``."""
    return items.gather(1, value.gather(1, items).topk(slate_size, dim=1).indices)


def diverse_slate(users: Users, keys: Tensor, items: Tensor, slate_size: int) -> Tensor:
    """Return the best item of each of the user's ``slate_size`` best topics."""
    del keys
    assert isinstance(users, ComposedUsers)
    chance = users.click_probability()
    topics = users.population.topics.expand_as(chance)
    best = torch.zeros(len(chance), users.population.num_topics, device=chance.device)
    best.scatter_reduce_(1, topics, chance, "amax")
    top = chance >= best.gather(1, topics)
    value = torch.where(top, chance, chance - 1.0)
    return _best(value, items, slate_size)


def _influence(bench: _Bench) -> Line:
    drift = AmplificationDrift(gain=0.05)
    plain = {"boredom": NoBoredom(), "intent": IntentConfig(weight=0.0)}
    moving = _stays(UsersConfig(), drift=drift, **plain)
    still = _stays(UsersConfig(), **plain)
    greedy = bench.play(moving, myopic_slate).topic_entropy
    calm = bench.play(still, myopic_slate).topic_entropy
    diverse = bench.play(moving, diverse_slate).topic_entropy
    fall, fall_error = _mean(calm - greedy)
    rise, rise_error = _mean(diverse - greedy)
    return Line(
        7,
        "influence narrows what is consumed under greedy slates, diversity widens it",
        f"topic entropy {calm.mean():.2f} still, {greedy.mean():.2f} influenced "
        f"(fall {fall:.3f} ± {fall_error:.3f}), {diverse.mean():.2f} diverse "
        f"(rise {rise:.2f} ± {rise_error:.2f}) nats",
        fall > _SIGMAS * fall_error and rise > _SIGMAS * rise_error,
    )


def fair_slate(users: Users, keys: Tensor, items: Tensor, slate_size: int) -> Tensor:
    """Return promising items, of the providers nearest to leaving first: the click probability plus
    what a provider lacks in credit.
    """
    del keys
    assert isinstance(users, ComposedUsers)
    assert users.supply is not None
    assert users.population.providers is not None
    need = (1.0 - users.supply.credit).clamp(min=0.0)[:, users.population.providers]
    chance = users.click_probability()
    return _best(chance * (1.0 + need), items, slate_size)


def _providers(bench: _Bench) -> Line:
    supply = SupplyConfig(enabled=True, credit_initial=1.0, leave_below=0.3)
    config = _stays(UsersConfig(), supply=supply, boredom=NoBoredom())
    share = {}
    for name, policy in (("greedy", myopic_slate), ("fair", fair_slate)):
        users = make_users(config, bench.population, len(bench.keys))
        assert isinstance(users, ComposedUsers)
        assert users.supply is not None
        users.reset(bench.keys)
        for _ in range(_HORIZON):
            users.respond(policy(users, bench.keys, offer(users, bench.keys, 0), _SLATE))
        share[name] = users.supply.present.to(torch.float32).mean(1)
    gap, error = _mean(share["fair"] - share["greedy"])
    return Line(
        9,
        "greedy ranking starves providers, who leave",
        f"present after {_HORIZON} requests: {share['greedy'].mean():.2f} greedy, "
        f"{share['fair'].mean():.2f} with regard to need (gap {gap:.3f} ± {error:.3f})",
        gap > _SIGMAS * error and float(share["greedy"].mean()) < 1.0,
    )


def lasting_slate(users: Users, keys: Tensor, items: Tensor, slate_size: int) -> Tensor:
    """Return the items nearest to the user's lasting taste, whatever the passing intent."""
    del keys
    return _best(users.long_term_relevance(), items, slate_size)


def _objectives(bench: _Bench) -> Line:
    """Passing intent earns clicks, lasting taste earns return: objectives rank them differently."""
    config = UsersConfig(
        boredom=NoBoredom(),
        intent=IntentConfig(weight=0.6, source="catalog"),
        patience=NoPatience(),
        satisfaction=SatisfactionConfig(lasting=1.0, memory=0.8),
        returning=ReturnConfig(requests=5, sessions=20, bias=0.0, slope=0.3, max_gap=30),
    )
    horizon = 100
    passing = bench.play(config, myopic_slate, horizon)
    lasting = bench.play(config, lasting_slate, horizon)
    clicks, clicks_error = _mean(passing.clicks / passing.length - lasting.clicks / lasting.length)
    gap_passing = passing.days / (passing.sessions - 1).clamp(min=1)
    gap_lasting = lasting.days / (lasting.sessions - 1).clamp(min=1)
    days, days_error = _mean(gap_passing - gap_lasting)
    return Line(
        10,
        "clicks and return rank two policies differently",
        f"following the intent: {clicks:+.2f} ± {clicks_error:.2f} clicks a request, "
        f"but {days:+.2f} ± {days_error:.2f} days to the next session",
        clicks > _SIGMAS * clicks_error and days > _SIGMAS * days_error,
    )


def _repeatable(bench: _Bench) -> Line:
    config = UsersConfig(drift=WalkDrift())
    whole = bench.play(config, random_slate)
    few = min(8, len(bench.keys))
    part = _Bench(few, 0)
    part.population, part.keys = bench.population, bench.keys[:few]
    again = part.play(config, random_slate)
    same = all(
        torch.equal(getattr(whole, field.name)[:few], getattr(again, field.name))
        for field in dataclasses.fields(EpisodeTotals)
    )
    return Line(
        12,
        "same seed, same trajectory, at any batch size",
        f"{few} of {len(bench.keys)} sessions alone: {'bit-identical' if same else 'different'}",
        same,
    )


def report(sessions: int = 500, seed: int = 0) -> list[Line]:
    """Measure every property.

    Args:
        sessions: how many sessions each policy plays.
        seed: of the population and of the sessions.
    """
    bench = _Bench(sessions, seed)
    return [
        *_fatigue(bench),
        _influence(bench),
        _providers(bench),
        _objectives(bench),
        _repeatable(bench),
    ]


def main(arguments: list[str] | None = None) -> int:
    """Print the report; the exit code is 1 if a property does not hold."""
    parser = argparse.ArgumentParser(description="Properties of the user simulator, measured.")
    parser.add_argument("--sessions", type=int, default=500, help="sessions a policy plays")
    parser.add_argument("--seed", type=int, default=0, help="of population and sessions")
    chosen = parser.parse_args(arguments)
    lines = report(chosen.sessions, chosen.seed)
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return 0 if all(line.holds for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
