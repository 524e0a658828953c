"""Decisions by topic, beside those by block and by channel.

A passing intent and boredom are of topics: a user who has just clicked on two of a kind may want
more of it for a while, and one who has seen too much of it wants none. Blocks and channels reach
topics only through fixed averages; these components are told what was shown and clicked, remember
it by topic at several time scales, and may favour or rest each topic.
"""

from __future__ import annotations

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from marec_env.pipeline.component import Component
from marec_env.pipeline.config import PipelineConfig
from marec_env.pipeline.knowledge import Knowledge
from marec_env.pipeline.memory import look_up
from marec_env.pipeline.ranking import Ranking
from marec_env.pipeline.request import Request

__all__ = ["Follower", "TopicRanking"]

_MAX_TOPIC = 2.0  # score units a topic may win or lose, as much as a block may


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
        self._looks, self._keep = self._looks.to(knowledge.text), self._keep.to(knowledge.text)
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
        exposed = memory.exposure.gather(1, topics)
        more = torch.stack([(exposed * excess).sum(1), (exposed * expected).sum(1)], dim=1)
        by_topic = torch.zeros_like(memory.exposure).scatter_add_(1, topics, excess)
        leaning = self.state["leaning"].view(len(clicks), -1, by_topic.shape[1])
        leaning = self._keep * leaning + by_topic.unsqueeze(1)
        self.state |= {"leaning": leaning.flatten(1), "fatigue": self.state["fatigue"] + more}


class TopicRanking(Follower, Ranking):
    """Weights the blocks, and favours or rests topics: each by itself, and as the user leans."""

    fields = (*Ranking.fields, "feedback", "leaning", "fatigue")

    @property
    def action_space(self) -> spaces.Box:
        """Those of ``ranking``, then a gain per time scale of the leaning, then one per topic."""
        more = len(self.config.half_lives) + self.knowledge.num_topics
        return spaces.Box(-1.0, 1.0, (len(self.config.blocks) + 2 + more,), np.float32)

    def act(self, request: Request, action: Tensor) -> None:
        """Add what topics are worth, score the candidates and draw the slate."""
        scales, topics = len(self.config.half_lives), request.knowledge.num_topics
        end = action.shape[1] - topics
        gains, own = action[:, end - scales : end], action[:, end:]
        leaning = torch.tanh(self.state["leaning"]).view(len(action), scales, topics)
        worth = own.clamp(-1.0, 1.0) + (gains.clamp(-1.0, 1.0).unsqueeze(2) * leaning).sum(1)
        candidates = request.need("candidates")
        request.add_bonus(_MAX_TOPIC * worth.gather(1, request.topics_of(candidates)))
        super().act(request, action[:, : end - scales])

    def default_action(self) -> Tensor:
        """Return that of ``ranking``, all topics alike."""
        alike = len(self.config.half_lives) + self.knowledge.num_topics
        return torch.cat([super().default_action(), torch.zeros(alike)])
