"""Decisions by topic, beside those by block and by channel.

A passing intent and boredom are of topics: a user who has just clicked on two of a kind may want
more of it for a while, and one who has seen too much of it wants none. Blocks and channels reach
topics only through fixed averages; these components are told what was shown and clicked, remember
it by topic at several time scales, and may favour or rest each topic.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from marec_env.pipeline.component import Component, unit
from marec_env.pipeline.config import PipelineConfig
from marec_env.pipeline.index import nearest_unseen
from marec_env.pipeline.knowledge import Knowledge
from marec_env.pipeline.memory import look_up
from marec_env.pipeline.ranking import Ranking
from marec_env.pipeline.recall import Recall
from marec_env.pipeline.request import Request
from marec_env.pipeline.selection import top_k

_MAX_TOPIC = 1.0  # score units a topic may win or lose by itself: the spread of a block
_MAX_GAIN = 2.0  # and by the leaning of one time scale, squashed to [-1, 1]: as a block's weight
_MAX_REST = 4.0  # and lose by its exposure
_MAX_LEVEL = 0.5  # exposure, of 1, from which it may do so
_SOFTNESS = 0.03  # of that, for a slope to learn by
_OVEREXPOSED = 0.16  # exposure at which users may tire of a topic
_LEAST_LOG_SHARE = math.log(0.01)  # of the usual clicks, that a tired user makes
_APART = 4.0  # of a topic's items from all others: scores of both spaces lie within [-2, 2]


class Follower(Component):
    """Remembers by topic how clicks differ from what the user's usual rate would have given.

    Its state, float32: ``leaning`` ``[B, H T]``, per time scale and topic the decayed sum of clicks
    less those expected; ``fatigue`` ``[B, 2]``, the sum of the same over the session, weighted by
    how exposed the item's topic was, and that of the clicks expected. Expected are clicks at the
    slow rate, spread over positions as discounted cumulative gain weighs them (Jarvelin and
    Kekalainen, TOIS 2002).
    """

    def __init__(self, config: PipelineConfig) -> None:
        super().__init__(config)
        looks = 1.0 / torch.log2(torch.arange(config.slate_size) + 2.0)
        self._looks = looks / looks.mean()
        self._keep = torch.pow(0.5, 1.0 / torch.tensor(config.half_lives)).unsqueeze(1)

    def initial_state(self, knowledge: Knowledge) -> dict[str, Tensor]:
        """Return that nothing was shown."""
        self._looks, self._keep = self._looks.to(knowledge.device), self._keep.to(knowledge.device)
        size = len(self.config.half_lives) * knowledge.num_topics
        return {
            **super().initial_state(knowledge),
            "leaning": torch.zeros(size),
            "fatigue": torch.zeros(2),
        }

    def learn(self, request: Request, clicks: Tensor) -> None:
        """Take in the clicks, float32 ``[B, K]``."""
        super().learn(request, clicks)
        memory, topics = request.memory, look_up(request.knowledge.topics, request.need("slate"))
        expected = memory.slow_rate.unsqueeze(1) * self._looks
        excess = clicks - expected
        exposed = self._tiring(memory.exposure).gather(1, topics)
        more = torch.stack([(exposed * excess).sum(1), (exposed * expected).sum(1)], dim=1)
        by_topic = torch.zeros_like(memory.exposure).scatter_add_(1, topics, excess)
        leaning = self.state["leaning"].view(len(clicks), -1, by_topic.shape[1])
        leaning = self._keep * leaning + by_topic.unsqueeze(1)
        self.state |= {"leaning": leaning.flatten(1), "fatigue": self.state["fatigue"] + more}

    def _tiring(self, exposure: Tensor) -> Tensor:
        """Return how much each topic's exposure ``[B, T]`` says of who tires of it."""
        return exposure


class TopicRecall(Follower, Recall):
    """Chooses a quota level for each recall channel, and for the best items of each topic."""

    fields = (*Recall.fields, "feedback", "leaning", "fatigue")

    def initial_state(self, knowledge: Knowledge) -> dict[str, Tensor]:
        """Return that nothing was shown."""
        for topic in range(knowledge.num_topics):
            items = (knowledge.topics == topic).nonzero().squeeze(1)
            self._channels.append(partial(_best_of, topic, items))
        return super().initial_state(knowledge)

    @property
    def action_space(self) -> spaces.MultiDiscrete:
        """One level per channel, then one per topic."""
        recall = self.config.recall
        topics = self.knowledge.num_topics
        return spaces.MultiDiscrete([recall.levels] * (len(recall.channels) + topics))

    def decisions(self) -> tuple[str, ...]:
        """Return the names of the quotas."""
        topics = (f"quota of topic {topic}" for topic in range(self.knowledge.num_topics))
        return (*super().decisions(), *topics)

    def act(self, request: Request, action: Tensor) -> None:
        """Fill the candidates."""
        super().act(request, action)
        assert request.candidate_channel is not None
        # What came by its topic came by no channel.
        request.candidate_channel.clamp_(max=len(self.config.recall.channels))

    def default_action(self) -> Tensor:
        """Return that of ``recall``, nothing by topic."""
        none = torch.zeros(self.knowledge.num_topics, dtype=torch.int64)
        return torch.cat([super().default_action(), none])


def _best_of(topic: int, items: Tensor, request: Request, length: int) -> Tensor:
    """Return the best unseen items of a topic, which are ``items``, by both spaces' scores."""
    if not len(items):
        return torch.full((request.num_sessions, 1), -1, device=items.device)
    if request.indexed:
        own = torch.zeros_like(request.memory.exposure)
        own[:, topic] = _APART
        query = torch.cat([request.both_profiles, own], dim=1)
        space = "both and topic"
        found = nearest_unseen(request.knowledge, request.memory, space, query, length)
        return torch.where(request.topics_of(found.clamp(min=0)) == topic, found, -1)
    request.need("profile_cf")
    by_space = request.cf_scores, request.text_scores
    scores = torch.stack([found.index_select(1, items) for found in by_space]).sum(0)
    seen = request.memory.seen.index_select(1, items)
    return items[top_k(scores, min(length, len(items)), excluded=seen)]


def _over(exposure: Tensor, level: Tensor | float) -> Tensor:
    """Return how far exposure is over a level, 0 to 1."""
    return torch.sigmoid((exposure - level) / _SOFTNESS)


class TopicRanking(Follower, Ranking):
    """Weights the blocks, follows the topics a user leans to, and rests those shown too much."""

    fields = (*Ranking.fields, "feedback", "leaning", "fatigue")

    @property
    def action_space(self) -> spaces.Box:
        """Those of ``ranking``; the gain of each time scale's leaning; how much a topic is rested,
        and from which exposure on; what each topic wins.
        """
        more = len(self.config.half_lives) + 2 + self.knowledge.num_topics
        return spaces.Box(-1.0, 1.0, (len(self.config.blocks) + 2 + more,), np.float32)

    def decisions(self) -> tuple[str, ...]:
        """Return the names of the numbers."""
        gains = (f"gain of leaning {life:g}" for life in self.config.half_lives)
        topics = (f"topic {topic}" for topic in range(self.knowledge.num_topics))
        return (*super().decisions(), *gains, "rest", "rest from exposure", *topics)

    def act(self, request: Request, action: Tensor) -> None:
        """Add what topics are worth, score the candidates and draw the slate."""
        scales, topics = len(self.config.half_lives), request.knowledge.num_topics
        first = action.shape[1] - topics - 2 - scales
        gains = _MAX_GAIN * unit(action[:, first : first + scales])
        rest, level = unit(action[:, first + scales : -topics]).unbind(1)
        worth = self._worth(request, gains, _MAX_REST * rest, _MAX_LEVEL * level)
        worth = worth + _MAX_TOPIC * action[:, -topics:].clamp(-1.0, 1.0)
        candidates = request.need("candidates")
        request.add_bonus(worth.gather(1, request.topics_of(candidates)))
        super().act(request, action[:, :first])

    def _worth(self, request: Request, gains: Tensor, rest: Tensor, level: Tensor) -> Tensor:
        """Return what following and resting make of each topic, in score units ``[B, T]``.

        Args:
            request: of sessions ``B``.
            gains: ``[B, H]``, of the leaning of each time scale.
            rest, level: ``[B]``, what a topic loses, and the exposure from which on it does.
        """
        leaning = torch.tanh(self.state["leaning"]).view(*gains.shape, -1)
        over = _over(request.memory.exposure, level.unsqueeze(1))
        return (gains.unsqueeze(2) * leaning).sum(1) - rest.unsqueeze(1) * over

    def default_action(self) -> Tensor:
        """Return that of ``ranking``, each gain and the rest at half its most, all topics alike."""
        more = len(self.config.half_lives) + 2 + self.knowledge.num_topics
        return torch.cat([super().default_action(), torch.zeros(more)])


class TiringRanking(TopicRanking):
    """Follows the topics a user leans to, and rests those shown too much as far as the session
    gives evidence that this user tires.

    Let a user who tires click on what is overexposed ``r`` times as often as usual, and who does
    not as usual. Of ``c`` clicks where ``e`` were expected the logarithm of the likelihood ratio of
    the two is ``(1 - r) e + c log r`` (Poisson), and with even odds at first the probability that
    the user tires its logistic function. ``fatigue`` counts what is overexposed only.
    """

    @property
    def action_space(self) -> spaces.Box:
        """Those of ``ranking``; the gain of each time scale's leaning; the rest and from which
        exposure on; r on a logarithmic scale.
        """
        more = len(self.config.half_lives) + 3
        return spaces.Box(-1.0, 1.0, (len(self.config.blocks) + 2 + more,), np.float32)

    def decisions(self) -> tuple[str, ...]:
        """Return the names of the numbers."""
        topics = self.knowledge.num_topics
        return (*super().decisions()[:-topics], "clicks of the tired")

    def act(self, request: Request, action: Tensor) -> None:
        """Add what topics are worth, score the candidates and draw the slate."""
        first = action.shape[1] - 3 - len(self.config.half_lives)
        gains = 2.0 * _MAX_GAIN * unit(action[:, first:-3])
        rest, level, clicks = unit(action[:, -3:]).unbind(1)
        excess, expected = self.state["fatigue"].unbind(1)
        log_share = _LEAST_LOG_SHARE * (1.0 - clicks)
        evidence = expected - log_share.exp() * expected + (excess + expected) * log_share
        rest = 4.0 * _MAX_REST * rest * torch.sigmoid(evidence)
        worth = self._worth(request, gains, rest, 2.0 * _OVEREXPOSED * level)
        candidates = request.need("candidates")
        request.add_bonus(worth.gather(1, request.topics_of(candidates)))
        Ranking.act(self, request, action[:, :first])

    def _tiring(self, exposure: Tensor) -> Tensor:
        return _over(exposure, _OVEREXPOSED)

    def default_action(self) -> Tensor:
        """Return that of ``ranking``, and the middle of the others: gains of 2, a rest of 8 from an
        exposure of 0.16, r = 0.1.
        """
        more = len(self.config.half_lives) + 3
        return torch.cat([Ranking.default_action(self), torch.zeros(more)])
