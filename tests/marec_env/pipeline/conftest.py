"""A small catalog and pipeline for the tests of the recommender's side."""

import pytest
import torch
from torch.nn.functional import normalize

from marec_env import random
from marec_env.pipeline import Knowledge, Pipeline, PipelineConfig
from marec_env.vector import Rows

ITEMS, TOPICS, SESSIONS = 60, 4, 3


def make_knowledge(items: int = ITEMS, topics: int = TOPICS, seed: int = 0) -> Knowledge:
    source = torch.Generator().manual_seed(seed)
    return Knowledge(
        text=normalize(torch.randn(items, 6, generator=source), dim=1),
        cf=normalize(torch.randn(items, 5, generator=source), dim=1),
        neighbours=torch.stack([torch.randperm(items, generator=source)[:4] for _ in range(items)]),
        popularity=torch.rand(items, generator=source),
        age=torch.rand(items, generator=source) * 100,
        topics=torch.arange(items) % topics,
        num_topics=topics,
        version="v1",
        providers=torch.arange(items) % 5,
    )


def make_pipeline(
    sessions: int = SESSIONS, knowledge: Knowledge | None = None, max_requests: int = 6, **changes
) -> Pipeline:
    """A pipeline whose session b consumed items 3b, 3b + 1, 3b + 2 and liked all but the last."""
    config = PipelineConfig(**{"candidates": 20, "slate_size": 5, **changes})
    pipeline = Pipeline(
        config,
        knowledge or make_knowledge(),
        sessions,
        history_length=4,
        max_requests=max_requests,
        groups=2,
    )
    first = 3 * torch.arange(sessions).unsqueeze(1)
    history = torch.cat([torch.full((sessions, 1), -1), first + torch.arange(3)], dim=1)
    liked = torch.tensor([False, True, True, False]).expand(sessions, -1)
    pipeline.reset(Rows(), history, liked, torch.arange(sessions) % 2)
    return pipeline


def keys(sessions: int = SESSIONS) -> torch.Tensor:
    return random.session_keys(7, torch.arange(sessions))


@pytest.fixture
def pipeline() -> Pipeline:
    return make_pipeline()


@pytest.fixture
def request_(pipeline):
    """An open request of the pipeline, with the hand-set profile built."""
    opened = pipeline.begin(keys(pipeline.num_sessions))
    pipeline.components[0].act(opened, pipeline.default_actions()["profile_0"])
    return opened


@pytest.fixture
def make():
    """The makers of this file, for tests that need other settings."""

    class Makers:
        knowledge = staticmethod(make_knowledge)
        pipeline = staticmethod(make_pipeline)
        keys = staticmethod(keys)

    return Makers
