"""A recall channel of one's own: what sells in the topic that the user clicked last.

Name it in YAML among the channels; the component ``recall`` decides how much of it to take::

    pipeline:
      recall:
        channels: [cf, text, popular, "examples.own_channel:same_topic"]

``python examples/own_channel.py`` plays one request and prints how many candidates it brought.
"""

import torch
from torch import Tensor

from marec_env.pipeline import Request


def same_topic(request: Request, length: int) -> Tensor:
    """The most popular unseen items of the latest clicked item's topic, int64 [B, length].

    A channel is any function of the open request. It gives items, best first, -1 where it has no
    more; what is repeated or has been seen is struck out. All sessions are answered at once.
    """
    knowledge, memory = request.knowledge, request.memory
    latest = memory.recent[:, 0]  # int64 [B], -1 where nobody clicked yet
    topic = knowledge.topics[latest.clamp(min=0)].unsqueeze(1)  # [B, 1]
    fits = knowledge.topics.unsqueeze(0) == topic  # [B, N]
    score = torch.where(fits, knowledge.popularity, -1.0)
    items = request.best_unseen(score, length)
    found = fits.gather(1, items) & (latest >= 0).unsqueeze(1)
    return torch.where(found, items, -1)


if __name__ == "__main__":
    import marec_env

    channels = ("cf", "text", "popular", f"{__name__}:same_topic")
    simulator = marec_env.make_vec({"pipeline": {"recall": {"channels": channels}}}, 256)
    simulator.step(simulator.default_actions())
    assert simulator.last is not None and simulator.last.request.candidate_channel is not None
    brought = (simulator.last.request.candidate_channel == 3).sum(1)
    print(f"{float(brought.to(torch.float32).mean()):.1f} of 100 candidates")
