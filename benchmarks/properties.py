"""Properties of users, alone and behind a pipeline, measured and printed.

``python benchmarks/properties.py [CONFIG] [--set KEY=VALUE]`` prints one line a property of
``docs/users.md`` with its numbers and standard errors. It exits with 1 if one of users alone (1, 2,
7, 9, 10, 12) does not hold; whether one of components acting together (4 to 6) holds is a finding
about the configured game. All comparisons are paired: the same sessions with the same luck. What is
chosen is chosen on other sessions than it is reported on.

4. Nominators trained each for itself can be as bad as random (Hron et al., "On component
   interactions in two-stage recommender systems", NeurIPS 2021). Every channel picks the quota
   level at which it brings most of the user's best items, the others at their default; all these
   choices together are compared with random levels, and with levels searched jointly for clicks.
5. Changing the ranker shifts the best recall. For three rankers (relevance only, one that also
   avoids what was shown, popularity only) the best single channel, pair of channels or all of them
   alike is found and played beside those found for the other rankers.
6. Two channels that do not know of each other recall the same items.

Property 3, own objectives against the shared one at a narrow funnel, is that of the game itself:
``python evaluate.py equilibrium --parts anarchy``.
"""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor

from marec_env import random
from marec_env.catalog.population import Population
from marec_env.classic.populations import synthetic_population
from marec_env.classic.rollout import EpisodeTotals, offer, play
from marec_env.errors import ConfigError
from marec_env.evaluation.rollout import relevant_items
from marec_env.pipeline.ranking import Ranking
from marec_env.pipeline.recall import CHANNELS
from marec_env.pipeline.selection import first_occurrences
from marec_env.simulator import Simulator
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
from marec_env.world import World

_SLATE, _HORIZON = 10, 40  # of users alone
_TRAIN, _TEST = 11, 12  # seeds of the sessions chosen on and reported on
_SIGMAS = 3.0  # a difference counts from three standard errors
_SMALLEST = 1e-9  # keeps quotients by a mean of no clicks finite
_WARM_UP = 3  # requests before channels are compared, so that there are recent clicks


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


def _estimate(values: Tensor) -> tuple[float, float]:
    """Return the mean over sessions and its standard error."""
    return float(values.mean()), float(values.std() / values.numel() ** 0.5)


def _gap(first: Tensor, second: Tensor) -> tuple[float, float]:
    """Return the paired difference in percent of the second's mean, and its standard error."""
    gap, error = _estimate(first - second)
    scale = 100.0 / max(float(second.mean()), _SMALLEST)
    return gap * scale, error * scale


def _stays(config: UsersConfig, **sections: object) -> UsersConfig:
    """Return a configuration of users who never leave, with some sections replaced."""
    return config.model_copy(update={"patience": NoPatience(), **sections})


class _Bench:
    """A population and sessions to compare policies on."""

    def __init__(self, sessions: int, seed: int) -> None:
        self.population: Population = synthetic_population(seed, items=500)
        self.keys = random.session_keys(seed + 1, torch.arange(sessions))

    def play(self, config: UsersConfig, policy: Oracle, horizon: int = _HORIZON) -> EpisodeTotals:
        users = make_users(config, self.population, len(self.keys))
        return play(users, self.keys, policy, _SLATE, horizon)


def _percent_gap(bench: _Bench, config: UsersConfig, horizon: int) -> tuple[float, float]:
    """Return by how many percent the farsighted policy's clicks exceed the myopic one's."""
    myopic = bench.play(config, myopic_slate, horizon).clicks
    return _gap(bench.play(config, farsighted_slate, horizon).clicks, myopic)


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
    fall, fall_error = _estimate(calm - greedy)
    rise, rise_error = _estimate(diverse - greedy)
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
    gap, error = _estimate(share["fair"] - share["greedy"])
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
    clicks, clicks_error = _estimate(
        passing.clicks / passing.length - lasting.clicks / lasting.length
    )
    gap_passing = passing.days / (passing.sessions - 1).clamp(min=1)
    gap_lasting = lasting.days / (lasting.sessions - 1).clamp(min=1)
    days, days_error = _estimate(gap_passing - gap_lasting)
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


def of_users(sessions: int = 500, seed: int = 0) -> list[Line]:
    """Measure the properties of users alone.

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


@dataclass(frozen=True, slots=True)
class PropertiesPlan:
    """Budgets."""

    sessions: int = 256
    """Sessions that each alternative is reported on; half as many are chosen on."""
    random_levels: int = 24
    """Random quota levels played, and tried by the joint search."""


@dataclass(frozen=True, slots=True)
class Played:
    """``P`` static recall decisions on the same ``S`` sessions."""

    clicks: Tensor
    """Float32 ``[P, S]``, a session."""
    found: Tensor
    """Float32 ``[P, S, channels]``: the user's best items that each channel brought, a request."""


@torch.no_grad()
def play_recall(
    world: World, levels: Tensor, sessions: int, seed: int, ranking: Tensor | None = None
) -> Played:
    """Play static quota levels, all else by default.

    Args:
        world: the game; its team must have a recall component, and a ranking one if ``ranking``.
        levels: int64 ``[P, channels]``.
        sessions: S.
        seed: of the sessions.
        ranking: float32, the ranking's action; its default if ``None``.
    """
    count, channels = levels.shape
    simulator = Simulator(world, count * sessions, autoreset=False)
    simulator.begin(torch.arange(sessions).repeat(count), seed)
    actions = simulator.default_actions()
    recall = _agent(simulator, "recall")
    actions[recall] = levels.repeat_interleave(sessions, dim=0).to(simulator.device)
    if ranking is not None:
        action = ranking.to(simulator.device).expand(simulator.num_envs, -1)
        actions[_agent(simulator, "ranking")] = action
    alive = torch.ones(simulator.num_envs, dtype=torch.bool, device=simulator.device)
    clicks = torch.zeros(simulator.num_envs, device=simulator.device)
    length = torch.zeros_like(clicks)
    # One column more, for candidates that no channel brought.
    found = torch.zeros(simulator.num_envs, channels + 1, device=simulator.device)
    while bool(alive.any()):
        step = simulator.step(actions)
        outcome = simulator.last
        assert outcome is not None
        request = outcome.request
        assert request.candidates is not None and request.candidate_channel is not None
        clicks += alive * outcome.feedback.clicks.sum(1)
        length += alive
        hit = relevant_items(simulator).gather(1, request.candidates) & alive.unsqueeze(1)
        found.scatter_add_(1, request.candidate_channel, hit.to(torch.float32))
        alive = alive & ~(step.terminated | step.truncated)
    per_request = found[:, :channels] / length.unsqueeze(1)
    return Played(
        clicks.view(count, sessions).cpu(), per_request.view(count, sessions, channels).cpu()
    )


def _first(wanted: Tensor, count: int) -> Tensor:
    """Return the first ``count`` true places of each row."""
    return wanted & (wanted.cumsum(1) <= count)


def _agent(simulator: Simulator, component: str) -> str:
    return next(agent for agent in simulator.agents if agent.startswith(f"{component}_"))


def _levels(world: World, count: int, seed: int) -> Tensor:
    """Return random quota levels, int64 ``[count, channels]``."""
    recall = world.config.pipeline.recall
    keys = random.session_keys(seed, torch.arange(count))
    return random.integers(keys, 0, "properties/levels", len(recall.channels), recall.levels)


def nominators(world: World, plan: PropertiesPlan) -> Line:
    """Measure property 4."""
    recall = world.config.pipeline.recall
    channels = len(recall.channels)
    few = max(plan.sessions // 2, 2)
    # Channel c at level l, the others at 1: row c * levels + l.
    alone = torch.ones(channels * recall.levels, channels, dtype=torch.int64)
    for place, (channel, level) in enumerate(
        itertools.product(range(channels), range(recall.levels))
    ):
        alone[place, channel] = level
    own = play_recall(world, alone, few, _TRAIN).found.mean(1)  # [rows, channels]
    chosen = torch.stack(
        [
            own[channel * recall.levels : (channel + 1) * recall.levels, channel].argmax()
            for channel in range(channels)
        ]
    )
    tried = _levels(world, plan.random_levels, _TRAIN)
    joint = tried[play_recall(world, tried, few, _TRAIN).clicks.mean(1).argmax()]
    others = _levels(world, plan.random_levels, _TEST)
    played = play_recall(
        world, torch.cat([torch.stack([chosen, joint]), others]), plan.sessions, _TEST
    ).clicks
    by_chance = played[2:].mean(0)
    gap, error = _gap(played[0], by_chance)
    gain, gain_error = _gap(played[1], played[0])
    return Line(
        4,
        "nominators trained each for itself are no better than random ones",
        f"levels {_text(chosen)}: {gap:+.1f} % ± {error:.1f} clicks against random levels; "
        f"searched jointly ({_text(joint)}): {gain:+.1f} % ± {gain_error:.1f} above them",
        gap < _SIGMAS * error and gain > _SIGMAS * gain_error,
    )


def _text(levels: Tensor) -> str:
    return "".join(str(level) for level in levels.tolist())


def _ranker(world: World, weights: dict[str, float], diversity: float) -> Tensor:
    """Return a ranking action: block weights and diversity as shares of their largest values."""
    config = world.config.pipeline
    action = Ranking(config).default_action()
    blocks = list(config.blocks)
    for place, name in enumerate(blocks):
        action[place] = 2.0 * weights.get(name, 0.0) - 1.0
    action[len(blocks)] = 2.0 * diversity - 1.0
    return action


def shift(world: World, plan: PropertiesPlan) -> Line:
    """Measure property 5."""
    channels = len(world.config.pipeline.recall.channels)
    single = torch.eye(channels, dtype=torch.int64)
    pairs = [single[a] + single[b] for a, b in itertools.combinations(range(channels), 2)]
    tried = torch.cat([single, torch.stack(pairs), torch.ones(1, channels, dtype=torch.int64)])
    rankers = {
        "relevance": _ranker(world, {"cf": 0.5, "text": 0.5}, 0.0),
        "exposure-aware": _ranker(world, {"cf": 0.5, "text": 0.5, "exposure": 1.0}, 0.5),
        "popularity": _ranker(world, {"popularity": 0.5}, 0.0),
    }
    few = max(plan.sessions // 2, 2)
    best = torch.stack(
        [
            tried[play_recall(world, tried, few, _TRAIN, ranker).clicks.mean(1).argmax()]
            for ranker in rankers.values()
        ]
    )
    found, advantages = [], []
    for place, (name, ranker) in enumerate(rankers.items()):
        clicks = play_recall(world, best, plan.sessions, _TEST, ranker).clicks
        others = clicks[torch.arange(len(clicks)) != place].mean(0)
        gap, error = _gap(clicks[place], others)
        found.append(f"{name}: {_channels(world, best[place])} ({gap:+.1f} % ± {error:.1f})")
        advantages.append((clicks[place] - others) / others.mean().clamp(min=_SMALLEST))
    gain, gain_error = _estimate(100.0 * torch.stack(advantages).mean(0))
    return Line(
        5,
        "changing the ranker shifts the best recall",
        f"best recall for each ranker, and its clicks above the other rankers' best: "
        f"{'; '.join(found)}; on average {gain:+.1f} % ± {gain_error:.1f}",
        len({tuple(levels.tolist()) for levels in best}) > 1 and gain > _SIGMAS * gain_error,
    )


def _channels(world: World, levels: Tensor) -> str:
    names = world.config.pipeline.recall.channels
    return " + ".join(names[place] for place in levels.nonzero().squeeze(1).tolist())


@torch.no_grad()
def duplicates(
    world: World, plan: PropertiesPlan, first: str = "cf", second: str = "item_to_item"
) -> Line:
    """Measure property 6: each of two channels brings half of the candidates.

    Args:
        world: the game.
        plan: budgets.
        first: a channel.
        second: another.
    """
    simulator = Simulator(world, plan.sessions, autoreset=False)
    simulator.begin(torch.arange(plan.sessions), _TEST)
    for _ in range(_WARM_UP):
        simulator.step(simulator.default_actions())
    request = simulator.pipeline.begin(simulator.session_keys)
    request.need("candidates")  # by all channels alike
    half = max(world.config.pipeline.candidates // 2, 1)
    seen = simulator.pipeline.memory.seen
    top = simulator.users.long_term_relevance().masked_fill(seen, -torch.inf)
    count = world.config.measure.true_top
    relevant = torch.zeros_like(seen).scatter_(1, top.topk(count, dim=1).indices, True)
    # Asked for more than they may bring, so that coordination has something to put in place.
    offers = [
        _unseen(first_occurrences(CHANNELS.get(name)(request, 2 * half)), seen)
        for name in (first, second)
    ]
    own = [_members(offer, half, seen) for offer in offers]
    there = own[1].sum(1) >= half  # where the second channel fills its half by itself
    share = (own[0] & own[1]).sum(1) / own[1].sum(1).clamp(min=1)
    alone = ((own[0] | own[1]) & relevant).sum(1) / count
    rest = torch.where(own[0].gather(1, offers[1].clamp(min=0)), -1, offers[1])
    together = ((own[0] | _members(rest, half, seen)) & relevant).sum(1) / count
    twice, error = _estimate(share[there].cpu())
    gain, gain_error = _estimate((together - alone)[there].cpu())
    return Line(
        6,
        "two channels without coordination recall duplicates",
        f"{100 * twice:.1f} % ± {100 * error:.1f} of the {half} items of {second} are also among "
        f"the {half} of {first}; leaving them out adds {gain:+.4f} ± {gain_error:.4f} to a recall "
        f"of {float(alone[there].mean()):.3f} ({int(there.sum())} sessions)",
        twice > _SIGMAS * error,
    )


def _unseen(items: Tensor, seen: Tensor) -> Tensor:
    """Replace seen items by -1."""
    return torch.where((items >= 0) & ~seen.gather(1, items.clamp(min=0)), items, -1)


def _members(items: Tensor, count: int, seen: Tensor) -> Tensor:
    """Return bool ``[B, N]``, the first ``count`` items of each row; -1 is none."""
    kept = _first(items >= 0, count)
    # A column more takes what is not kept.
    member = torch.zeros(seen.shape[0], seen.shape[1] + 1, dtype=torch.bool, device=seen.device)
    member.scatter_(1, torch.where(kept, items, seen.shape[1]), True)
    return member[:, :-1]


def report(world: World, plan: PropertiesPlan) -> list[Line]:
    """Measure properties 4 to 6.

    Raises:
        ConfigError: the pipeline lacks a component or a channel that they are about.
    """
    config = world.config.pipeline
    needed = {"pipeline.components": ("recall", "ranking")}
    needed["pipeline.recall.channels"] = ("cf", "item_to_item")
    for key, there in zip(needed, (config.components, config.recall.channels), strict=True):
        if absent := [name for name in needed[key] if name not in there]:
            raise ConfigError(
                f"environment.{key}: properties 4 to 6 need {' and '.join(needed[key])} "
                f"(missing: {', '.join(absent)})"
            )
    return [nominators(world, plan), shift(world, plan), duplicates(world, plan)]


def main(
    config: Annotated[Path, typer.Argument(help="YAML file; the default game without one.")] = Path(
        "configs/default.yaml"
    ),
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key.")
    ] = None,
    sessions: Annotated[int, typer.Option(min=4, help="Sessions of each alternative.")] = 256,
    alone: Annotated[
        int, typer.Option(min=0, help="Sessions a policy of users alone; 0 leaves those out.")
    ] = 500,
) -> None:
    """Print what users do, and what components do to each other, with standard errors."""
    from agents.config import RunConfig
    from agents.entry import run_command
    from marec_env.config.loader import load
    from marec_env.environment_config import EnvironmentConfig
    from marec_env.world import build_world

    def run() -> int:
        environment = load(config, RunConfig, changes or ()).environment
        if not isinstance(environment, EnvironmentConfig):
            raise ConfigError(f"{config}: only environment.kind 'marec' has these properties")
        certain = of_users(alone) if alone else []
        found = report(build_world(environment), PropertiesPlan(sessions=sessions))
        for line in sorted([*certain, *found], key=lambda line: line.number):
            typer.echo(str(line))
        return 0 if all(line.holds for line in certain) else 1

    raise typer.Exit(run_command(run))


if __name__ == "__main__":
    typer.run(main)
