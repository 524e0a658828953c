import numpy as np
import pytest
import torch
from gymnasium import spaces

from agents.learners.config import MAPPOConfig
from agents.learners.policy import TrainedPolicy
from agents.learners.team import TeamSpec
from agents.loop.exposure import ExposureLog
from marec_env import random

BEST = 2  # of four choices, the one that users click on
SIZE = 3  # numbers that each component sees


def bandit_team(seed=0, normalise=False, network=None, boxes="clipped"):
    """Two components, a choice among four and a Box of one number, with fresh networks."""
    box = spaces.Box(-np.inf, np.inf, (SIZE,), np.float32)
    actions = {"picker_0": spaces.Discrete(4), "mover_0": spaces.Box(-1, 1, (1,), np.float32)}
    team = TeamSpec(
        agents=tuple(actions),
        turns=(tuple(actions),),
        observation_spaces=dict.fromkeys(actions, box),
        action_spaces=actions,
        state_space=box,
        actors={agent: (agent,) for agent in actions},
    )
    network = network or {"hidden": [8]}
    config = MAPPOConfig.model_validate(
        {"actor": {**network, "normalise_inputs": normalise}, "box_distribution": boxes}
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        actors = {agent: team.build_actor(config, agent).eval() for agent in team.agents}
        for actor in actors.values():  # decisions that depend on what is seen
            torch.nn.init.normal_(actor.head.weight, std=0.5)
    return TrainedPolicy(team, actors)


def bandit_log(policy, sessions=300, requests=3, seed=5):
    """A log of sessions of 1 to ``requests`` requests, whose first item is clicked if the best was
    picked, and the second if the number moved is positive.
    """
    keys = random.session_keys(seed, torch.arange(sessions))
    length = 1 + torch.arange(sessions) % requests
    columns = {"observations": {}, "actions": {}, "log_probabilities": {}}
    clicks = torch.zeros(sessions, requests, 2)
    for step in range(requests):
        live = (step < length).to(torch.float32)
        at = torch.full((sessions,), step)
        seen = {a: random.uniform(keys, step, f"test/{a}", SIZE) for a in policy.team.agents}
        made = policy.decide(seen, {a: policy.draws(a, keys, at) for a in seen})
        flat = {agent: decision.flat for agent, decision in made.items()}
        log_p = {agent: decision.log_probability for agent, decision in made.items()}
        clicks[:, step, 0] = live * (flat["picker_0"][:, 0] == BEST)
        clicks[:, step, 1] = live * (flat["mover_0"][:, 0] > 0)
        for name, found in zip(columns, (seen, flat, log_p), strict=True):
            for agent, value in found.items():
                shape = (-1, *[1] * (value.dim() - 1))
                columns[name].setdefault(agent, []).append(value * live.view(shape))
    tables = {
        name: {agent: torch.stack(values, dim=1) for agent, values in found.items()}
        for name, found in columns.items()
    }
    left = torch.arange(sessions) % 5 > 0
    slate = torch.arange(requests).view(1, -1, 1).expand(sessions, -1, 2) % 2 + torch.arange(2)
    return ExposureLog(
        key=keys, length=length, left=left, clicks=clicks,
        slate=slate, items=("a", "b", "c"), attributes={}, **tables,
    )  # fmt: skip


@pytest.fixture
def policy():
    return bandit_team()


@pytest.fixture
def log(policy):
    return bandit_log(policy)
