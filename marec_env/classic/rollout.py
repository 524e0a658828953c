"""One episode a session, for reference policies: outcomes without any learner."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from marec_env import random
from marec_env.users.base import Feedback, Users
from marec_env.users.oracles import Oracle


@dataclass(slots=True)
class EpisodeTotals:
    """What ``B`` episodes came to; float32 ``[B]`` each."""

    reward: Tensor
    """Sum of the rewards."""
    clicks: Tensor
    length: Tensor
    """Requests."""
    satisfaction: Tensor
    """After the last request, in [0, 1]."""
    sessions: Tensor
    """Sessions begun."""
    days: Tensor
    """Sum of the gaps between them."""
    topic_entropy: Tensor
    """Entropy of the topics of the episode's clicks, nats; 0 without clicks."""


def reward_of(feedback: Feedback, reward: str) -> Tensor:
    """Return the request's reward, ``[B]``: engagement, or a behaviour summed over the slate."""
    if reward == "engagement":
        return feedback.engagement
    return feedback.behaviours[reward].sum(1)


def offer(users: Users, keys: Tensor, candidates: int) -> Tensor:
    """Return the items that a request of the sessions ``keys`` offers, int64 ``[B, C]``: so many
    ``candidates`` drawn at random, or for 0 the whole catalog.
    """
    if candidates in (0, users.num_items):
        items = torch.arange(users.num_items, device=keys.device)
        return items.expand(users.num_sessions, -1)
    draw = random.uniform(keys, users.request_index, "users/offer", users.num_items)
    return draw.topk(candidates, dim=1).indices


def play(
    users: Users,
    keys: Tensor,
    policy: Oracle,
    slate_size: int,
    horizon: int,
    *,
    candidates: int = 0,
    reward: str = "click",
) -> EpisodeTotals:
    """Play one episode in every session ``keys`` (int64 ``[B]``), at most ``horizon`` requests, and
    return what each came to; ``candidates`` as in :func:`offer`, ``reward`` as in
    :func:`reward_of`.
    """
    users.reset(keys)
    topics = users.population.topics
    zero = torch.zeros(len(keys), device=keys.device)
    total, clicks, length, days = zero.clone(), zero.clone(), zero.clone(), zero.clone()
    sessions, satisfaction = zero + 1, zero.clone()
    consumed = zero.new_zeros(len(keys), users.population.num_topics)
    active = torch.ones(len(keys), dtype=torch.bool, device=keys.device)
    for _ in range(horizon):
        slate = policy(users, keys, offer(users, keys, candidates), slate_size)
        feedback = users.respond(slate)
        total += torch.where(active, reward_of(feedback, reward), 0.0)
        clicks += torch.where(active, feedback.clicks.sum(1), 0.0)
        length += active
        satisfaction = torch.where(active, feedback.satisfaction, satisfaction)
        consumed.scatter_add_(1, topics[slate], feedback.clicks * active.unsqueeze(1))
        if feedback.gap_days is not None:
            sessions += active & (feedback.gap_days > 0)
            days += torch.where(active, feedback.gap_days, 0.0)
        active &= ~feedback.left
        if not active.any():
            break
    share = consumed / consumed.sum(1, keepdim=True).clamp(min=1.0)
    entropy = torch.special.entr(share).sum(1)
    return EpisodeTotals(total, clicks, length, satisfaction, sessions, days, entropy)
