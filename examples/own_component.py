"""A component of one's own with a memory: a newsroom that pushes new items, and paces itself.

Name it in YAML before the ranking, and give its objective terms and its place in F::

    pipeline:
      components: [profile, recall, feature, "examples.own_component:Newsroom", ranking]
    rewards:
      weights: {profile: 0.02, recall: 0.02, feature: 0.02, ranking: 1.0, newsroom: 0.05}

``python examples/own_component.py`` plays three requests with it and prints the last.
"""

from types import MappingProxyType

import torch
from gymnasium import spaces
from torch import Tensor

from marec_env.pipeline import Component, Knowledge, Request

KEEP = 0.8  # of what was pushed, a request: half of it is forgotten after three


class Newsroom(Component):
    """Adds up to two score units (a feature block's spread is 1) to the newest candidates.

    It remembers how hard it has pushed of late, sees it, and pushes the less the more it was.
    """

    name = "newsroom"  # the agent is newsroom_0
    fields = ("session", "candidates", "exposure", "pushed")  # what it sees; the last is its own
    before = ("ranking",)  # refuse an order in which it would come too late
    objective = MappingProxyType({"novelty": 0.5, "engagement": 0.5})

    @property
    def action_space(self) -> spaces.Box:
        """How hard to push."""
        return spaces.Box(-1.0, 1.0, (1,))

    def initial_state(self, knowledge: Knowledge) -> dict[str, Tensor]:
        """Remember one number of each session: nothing was pushed. Kept with the session."""
        return {"pushed": torch.zeros(1)}

    def act(self, request: Request, action: Tensor) -> None:
        """Lift new candidates. Batched: action and state are [B, 1], candidates [B, C]."""
        push = (action.clamp(-1.0, 1.0) + 1.0) * (1.0 - 0.5 * self.state["pushed"])
        request.notes["push"] = push
        request.add_bonus(push * request.candidate_freshness)

    def learn(self, request: Request, clicks: Tensor) -> None:
        """Take note after the answer, the only place where a component's memory changes."""
        push = request.notes["push"] / 2.0
        self.state["pushed"] = KEEP * self.state["pushed"] + (1.0 - KEEP) * push

    def default_action(self) -> Tensor:
        """Return no push at all."""
        return torch.tensor([-1.0])


if __name__ == "__main__":
    import marec_env

    team = ("profile", "recall", "feature", f"{__name__}:Newsroom", "ranking")
    env = marec_env.parallel_env({"pipeline": {"components": team}}, render_mode="ansi")
    env.reset(seed=0)
    for _ in range(3):
        env.step({agent: env.action_space(agent).sample() for agent in env.agents})
    print(env.render())
