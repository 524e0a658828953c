"""A reward term of one's own: clicks on the long tail.

Name it in YAML wherever a built-in term may stand::

    rewards:
      objectives: {recall: {recall: 0.5, "examples.own_reward:tail_clicks": 0.5}}
      team: {retention: 0.1, extra_cost: -1.0, "examples.own_reward:tail_clicks": 0.2}

``python examples/own_reward.py`` plays one request and prints the term's mean over 256 sessions.
"""

from torch import Tensor

from marec_env.rewards import Outcome


def tail_clicks(outcome: Outcome) -> Tensor:
    """Share of the slate that was clicked and is of the less popular half, float32 [B].

    A term is any function of the outcome: what was asked (``outcome.request``), what the users did
    (``outcome.feedback``), what they would have done (``outcome.truth``). Counting clicks, not
    items shown, it cannot be raised by padding the slate.
    """
    popularity = outcome.request.knowledge.popularity
    tail = popularity[outcome.slate] <= popularity.median()
    return (outcome.feedback.clicks * tail).mean(1)


if __name__ == "__main__":
    import marec_env

    simulator = marec_env.make_vec({"rewards": {"team": {f"{__name__}:tail_clicks": 1.0}}}, 256)
    simulator.step(simulator.default_actions())
    assert simulator.last is not None
    print(f"{float(tail_clicks(simulator.last).mean()):.4f}")
