"""Attribute inference: what the recommender's view of a session tells of the user's group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from agents.studies.privacy.quality import auc, proportion
from marec_env import random
from marec_env.evaluation.policies import TeamPolicy
from marec_env.evaluation.statistics import Estimate
from marec_env.simulator import Simulator
from marec_env.vector import Action
from marec_env.world import World

FOLDS = 5
_RIDGE = 10.0  # cases' worth of shrinkage of each weight
_ITERATIONS = 60
_SESSIONS_A_USER = 3  # drawn, so that most users are met


def views(
    world: World, policy: TeamPolicy | None, requests: int, seed: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return users met, int64 ``[V]``, each once, and what is seen of them, float32 ``[V, d]``, by
    name: profile vectors and observations, messages where there are some, and a policy's decisions.

    Means over the first ``requests`` requests of a session, or as many as it has.

    Args:
        world: whose users are met.
        policy: who plays; hand-set actions if ``None``.
        requests: at least 1.
        seed: of the sessions.
    """
    count = _SESSIONS_A_USER * world.population.num_users
    simulator = Simulator(world, count, autoreset=False)
    simulator.reset(seed)
    if policy is not None:
        policy.reset()
    alive = torch.ones(count, dtype=torch.bool, device=simulator.device)
    total: dict[str, Tensor] = {}
    length = torch.zeros(count, 1, device=simulator.device)
    for _ in range(requests):
        observed: dict[str, Tensor] = {}
        decided: list[Tensor] = []
        for turn in simulator.turns:
            now = {agent: simulator.observe(agent) for agent in turn}
            observed |= now
            if policy is not None:
                actions = policy.act(now)
                simulator.act(actions)
                decided += [_numbers(action) for action in actions.values()]
        step = simulator.advance() if decided else simulator.step(simulator.default_actions())
        seen = {"observations": torch.cat([*observed.values()], dim=1)}
        if decided:
            seen["decisions"] = torch.cat(decided, dim=1)
        assert simulator.last is not None
        request = simulator.last.request
        profiles = [part for part in (request.profile_cf, request.profile_text) if part is not None]
        if profiles:
            seen["profile vectors"] = torch.cat(profiles, dim=1)
        if (sent := simulator.pipeline.messages()) is not None:
            seen["messages"] = sent
        for name, value in seen.items():
            value = torch.where(alive.unsqueeze(1), value, 0.0)
            total[name] = total[name] + value if name in total else value
        length += alive.unsqueeze(1)
        alive = alive & ~(step.terminated | step.truncated)
    person = simulator.users.user_index.cpu()
    met, first = np.unique(person.numpy(), return_index=True)
    kept = torch.from_numpy(first)
    return torch.from_numpy(met), {
        name: (value / length).cpu()[kept] for name, value in total.items()
    }


def _numbers(action: Action) -> Tensor:
    """Return an action as float32 ``[B, n]``."""
    parts = action if isinstance(action, tuple) else (action,)
    return torch.cat([part.flatten(1) if part.dim() > 1 else part[:, None] for part in parts], 1)


def infer(features: Tensor, group: Tensor, seed: int = 0) -> dict[str, Estimate]:
    """Return how well a logistic regression tells held-out users' groups.

    Args:
        features: float ``[V, d]``, of distinct users.
        group: int64 ``[V]``.
        seed: of the folds; each user is held out once.

    Returns:
        ``accuracy``, ``base`` (of always naming the largest group) and ``auc``: of each group
        against the others, the mean over groups weighted by size, with the interval's half-widths
        so weighted as well.
    """
    known, label = torch.unique(group, return_inverse=True)
    keys = random.session_keys(seed, torch.arange(len(label)))
    fold = random.integers(keys, 0, "privacy/folds", 1, FOLDS).squeeze(1)
    score = torch.zeros(len(label), len(known), dtype=torch.float64)
    for held in range(FOLDS):
        train, test = fold != held, fold == held
        mean, spread = features[train].mean(0), features[train].std(0).clamp_min(1e-6)
        scaled = ((features - mean) / spread).to(torch.float64)
        score[test] = _fitted(scaled[train], label[train], len(known), scaled[test])
    hits = int((score.argmax(1) == label).sum())
    largest = int(torch.bincount(label).max())
    each = [
        auc(score[label == place, place].numpy(), score[label != place, place].numpy())
        for place in range(len(known))
    ]
    share = torch.bincount(label).to(torch.float64) / len(label)

    def weighted(name: str) -> float:
        return float(sum(w * getattr(one, name) for w, one in zip(share, each, strict=True)))

    mean_auc = replace(each[0], value=weighted("value"), low=weighted("low"), high=weighted("high"))
    return {
        "auc": mean_auc,
        "accuracy": proportion(hits, len(label)),
        "base": proportion(largest, len(label)),
    }


def _fitted(train: Tensor, label: Tensor, groups: int, test: Tensor) -> Tensor:
    """Return held-out logits, float64 ``[W, G]``, of a ridge-penalised multinomial regression."""
    weight = torch.zeros(train.shape[1] + 1, groups, dtype=torch.float64, requires_grad=True)
    ones = train.new_ones(len(train), 1)
    design = torch.cat([train, ones], dim=1)
    optimiser = torch.optim.LBFGS(
        [weight], max_iter=_ITERATIONS, line_search_fn="strong_wolfe", tolerance_grad=1e-6
    )

    def loss() -> Tensor:
        optimiser.zero_grad()
        fit = torch.nn.functional.cross_entropy(design @ weight, label, reduction="sum")
        value = fit + 0.5 * _RIDGE * weight[:-1].square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        return torch.cat([test, test.new_ones(len(test), 1)], dim=1) @ weight


def groups_of(
    groups: Mapping[str, tuple[Tensor, tuple[str, ...]]], met: Tensor
) -> dict[str, Tensor]:
    """Return each attribute's groups of the users met, where there are at least two groups."""
    return {name: of[met] for name, (of, names) in groups.items() if len(names) > 1}
