"""A component of one's own: a newsroom that decides how much to push new items.

Name it in YAML, between the built-in stages, and give its objective terms and its place in F::

    pipeline:
      components: [profile, recall, feature, "examples.own_component:Newsroom", ranking]
    rewards:
      weights: {profile: 0.02, recall: 0.02, feature: 0.02, ranking: 1.0, newsroom: 0.05}

``python examples/own_component.py`` plays one request with it and prints what was shown.
"""

from types import MappingProxyType

import torch
from gymnasium import spaces
from torch import Tensor

from marec_env.pipeline import Component, Request


class Newsroom(Component):
    """Adds up to two units of block score (whose spread is 1) to the newest candidates."""

    name = "newsroom"  # the agent is newsroom_0
    fields = ("session", "candidates", "exposure")  # what it may see
    before = ("ranking",)  # refuse an order in which it would come too late
    objective = MappingProxyType({"novelty": 0.5, "engagement": 0.5})

    @property
    def action_space(self) -> spaces.Box:
        """How hard to push."""
        return spaces.Box(-1.0, 1.0, (1,))

    def act(self, request: Request, action: Tensor) -> None:
        """Lift new candidates, in score units. Batched: action is [B, 1]."""
        freshness = request.candidate_freshness  # [B, C] in [0, 1]
        request.add_bonus((action.clamp(-1.0, 1.0) + 1.0) * freshness)

    def default_action(self) -> Tensor:
        """Return no push at all."""
        return torch.tensor([-1.0])


if __name__ == "__main__":
    import marec_env

    team = ("profile", "recall", "feature", f"{__name__}:Newsroom", "ranking")
    env = marec_env.parallel_env({"pipeline": {"components": team}}, render_mode="ansi")
    env.reset(seed=0)
    env.step({agent: env.action_space(agent).sample() for agent in env.agents})
    print(env.render())
