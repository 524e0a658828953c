"""One answered request of two sessions over twelve items, small enough to work out by hand."""

import pytest
import torch
from torch.nn.functional import normalize

from marec_env.pipeline import Knowledge, Pipeline, PipelineConfig
from marec_env.rewards import Outcome, Truth
from marec_env.users.base import Feedback
from marec_env.vector import Rows

SLATE = torch.tensor([[0, 4, 1], [2, 3, 11]])  # topics 0, 0, 1 and 2, 3, 3
CLICKS = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
CANDIDATES = torch.tensor([[0, 4, 1, 5, 6], [2, 3, 11, 7, 8]])


def make_knowledge() -> Knowledge:
    source = torch.Generator().manual_seed(0)
    return Knowledge(
        text=normalize(torch.randn(12, 4, generator=source), dim=1),
        cf=normalize(torch.randn(12, 3, generator=source), dim=1),
        neighbours=torch.zeros(12, 2, dtype=torch.int64),
        popularity=torch.arange(12) / 11,
        age=torch.arange(12.0),
        topics=torch.arange(12) % 4,
        num_topics=4,
        version="v1",
        providers=torch.zeros(12, dtype=torch.int64),
    )


@pytest.fixture
def outcome() -> Outcome:
    knowledge = make_knowledge()
    config = PipelineConfig(candidates=5, slate_size=3)
    pipeline = Pipeline(config, knowledge, 2, history_length=2, max_requests=4)
    history = torch.tensor([[9, 10], [-1, -1]])
    pipeline.reset(Rows(), history, torch.ones(2, 2).bool(), torch.zeros(2, dtype=torch.int64))
    request = pipeline.begin(torch.arange(2))
    request.slate, request.candidates = SLATE, CANDIDATES
    return Outcome(
        request=request,
        feedback=Feedback(
            behaviours={"click": CLICKS},
            engagement=CLICKS.mean(1),
            satisfaction=torch.tensor([0.7, 0.2]),
            left=torch.tensor([False, True]),
        ),
        truth=Truth(
            candidate_probability=torch.tensor([[0.9, 0.1, 0.5, 0.2, 0.3], [0.5] * 5]),
            probe=torch.tensor([[2, 3, 7, 8], [0, 1, 4, 5]]),
            probe_probability=torch.tensor([[0.2, 0.4, 0.6, 0.8], [0.3, 0.3, 0.3, 0.3]]),
            top=torch.tensor([[9, 0, 6, 7, 1], [5, 2, 7, 0, 1]]),
            top_count=3,
        ),
        seen_before=pipeline.memory.seen,
        attributes={},
    )
