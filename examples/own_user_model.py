"""A user model of one's own: users who click half as often while they rest from a click.

A model answers slates for a whole batch of users; the base class keeps sessions, keys and state.
Name it in YAML::

    environment:
      users: {model: "examples.own_user_model:RestingUsers", new_user_share: 0.3}

``python examples/own_user_model.py`` plays 256 sessions and prints clicks a request.
"""

import torch
from torch import Tensor

from marec_env import random
from marec_env.users.base import Feedback, Users

SCALE = 4.0  # logits of taste between an item and its opposite are twice this
REST = 3  # requests after a click in which a user clicks half as often
LEAVE = 0.05  # probability of leaving at each request


class RestingUsers(Users):
    """Clicks by taste, less often for a while after every click."""

    hidden_size = 1

    def _build(self, config, population) -> None:
        self.rest = self._keep("rest", 0.0)  # requests of rest left, float32 [B]

    def long_term_relevance(
        self, items: Tensor | None = None, rows: Tensor | None = None
    ) -> Tensor:
        """Return logits of lasting taste, whatever the user's mood."""
        index = self.user_index if rows is None else self.user_index[rows]
        return SCALE * self._score(self.population.user_factors[index], items) - SCALE / 2

    def click_probability(self, items: Tensor | None = None) -> Tensor:
        """Return taste as a probability, halved while the user rests."""
        tired = 0.5 ** (self.rest > 0).to(torch.float32)
        return tired.unsqueeze(1) * torch.sigmoid(self.long_term_relevance(items))

    def respond(self, slate: Tensor) -> Feedback:
        """Click, rest, perhaps leave."""
        size = slate.shape[1]
        # Draws follow from the session's key and request, so luck is the same for every policy.
        draws = random.uniform(self._keys, self.request_index, "resting", size + 1)
        clicks = (draws[:, :size] < self.click_probability(slate)).to(torch.float32)
        self.rest.copy_(torch.where(clicks.any(1), float(REST), (self.rest - 1).clamp(min=0)))
        self.request_index += 1
        share = clicks.mean(1)
        return Feedback({"click": clicks}, share, share, draws[:, size] < LEAVE)

    def hidden_state(self) -> Tensor:
        """Return the rest that is left, for a privileged critic."""
        return (self.rest / REST).unsqueeze(1)


if __name__ == "__main__":
    import marec_env

    config = {"users": {"model": f"{__name__}:RestingUsers"}}
    simulator = marec_env.make_vec(config, num_sessions=256)
    for request in range(5):
        step = simulator.step(simulator.default_actions())
        print(f"request {request}: {float(step.metrics['clicks'].mean()):.2f} clicks")
