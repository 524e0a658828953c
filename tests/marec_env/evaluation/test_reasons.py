"""Why an item is shown, told to its user: facts, sentences, and what a model may say."""

import json
import math

import pytest

from marec_env.environment_config import EnvironmentConfig
from marec_env.evaluation.reasons import reasons
from marec_env.pipeline.memory import copied
from marec_env.pipeline.reasons import (
    ItemFacts,
    block_parts,
    channel_names,
    liked_past,
    slate_facts,
)
from marec_env.simulator import Simulator
from marec_env.text import Author
from marec_env.text.config import OpenAIText
from marec_env.text.models import Reply
from marec_env.world import build_world
from tests.worlds import small_environment

TITLES = ("The Third Man", "M", "Vertigo", "Man")


def facts(channel="cf", block="cf", liked=1, similarity=0.5):
    return ItemFacts(0, channel, 0.2, {"popularity": 0.0, block: 0.2}, liked, similarity)


def test_facts_are_those_of_the_funnel():
    world = build_world(EnvironmentConfig(**small_environment()))
    simulator = Simulator(world, 24)
    simulator.reset(seed=4)
    simulator.step(simulator.default_actions())
    before = copied(simulator.state_dict())
    simulator.step(simulator.default_actions())
    request = simulator.last.request
    simulator.load_state_dict(before)
    past, channels = liked_past(request.memory), channel_names(simulator.config.pipeline)
    spaces = {"cf": "cf", "item_to_item": "cf", "affinity": "cf", "diverse": "cf", "text": "text"}
    parts, told = block_parts(request)
    named = 0
    for row, found in enumerate(slate_facts(request, 24)):
        liked = past[row][past[row] >= 0]
        for place, fact in enumerate(found):
            item, slot = request.slate[row, place], request.slate_slot[row, place]
            assert fact.item == item and fact.score == request.scores[row, slot]
            assert fact.channel == channels[request.candidate_channel[row, slot]]
            assert told[row] and [*fact.parts.values()] == parts[row, slot].tolist()
            assert (fact.liked < 0) is (len(liked) == 0)
            if len(liked) and fact.channel in spaces:
                vectors = getattr(world.knowledge, spaces[fact.channel])
                alike = vectors[liked] @ vectors[item]
                assert fact.similarity == pytest.approx(float(alike.max()), abs=1e-6)
                assert fact.liked == liked[alike.argmax()]
                named += 1
    assert named > 20


def test_what_is_liked_is_of_the_session_then_of_the_history_newest_first():
    world = build_world(EnvironmentConfig(**small_environment()))
    simulator = Simulator(world, 24)
    simulator.reset(seed=4)
    memory = simulator.pipeline.memory
    liked = [
        [item for item, good in zip(items, liked, strict=True) if good and item >= 0]
        for items, liked in zip(memory.history.tolist(), memory.history_liked.tolist(), strict=True)
    ]
    simulator.step(simulator.default_actions())
    clicks = simulator.last.feedback.clicks > 0
    assert clicks.any()
    for row in range(24):
        clicked = simulator.last.slate[row][clicks[row]].tolist()
        found = [item for item in liked_past(memory)[row].tolist() if item >= 0]
        assert [*dict.fromkeys(found)] == [*dict.fromkeys((liked[row] + clicked)[::-1])]


@pytest.mark.parametrize(
    ("fact", "english", "chinese"),
    [
        (facts(), "“The Third Man”: people who liked “M”, as you did, like it too.",
         "《The Third Man》:和您一样喜欢《M》的人也喜欢它。"),
        (facts(channel="notes"), "“The Third Man”: it is much like “M”, which you liked.",
         "《The Third Man》:它与您喜欢的《M》很相似。"),
        (facts(channel="popular"), "“The Third Man”: many people like it.",
         "《The Third Man》:很多人都喜欢它。"),
        (facts(similarity=0.05, block="freshness"), "“The Third Man”: it is new here.",
         "《The Third Man》:它是新上架的。"),
        (facts(similarity=0.05, block="text"), "“The Third Man”: it fits what is known of you.",
         "《The Third Man》:它符合我们对您的了解。"),
        (facts(channel=None, block="", liked=-1, similarity=-math.inf),
         "“The Third Man”: a first suggestion, to learn what you like.",
         "《The Third Man》:先推荐一个,好了解您的喜好。"),
    ],
)  # fmt: skip
def test_sentences(fact, english, chinese):
    assert reasons([fact], TITLES) == [english]
    assert reasons([fact], TITLES, "zh") == [chinese]


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("Since you liked “M”, “The Third Man” may be for you.", True),
        ("You will like it.", False),  # which?
        ("“The Third Man” is as good as “Vertigo”.", False),  # of the catalog, not of the facts
        ("The Third Man, like Vertigo, is for you.", False),  # nor without quotes
        ("“The Third Man”, by the maker of “Citizen Kane”.", False),  # of no catalog at all
        ("The Third Man is more vertiginous than M.", True),
        ("《The Third Man》与《卡萨布兰卡》一样好。", False),
    ],
)
def test_a_model_may_rephrase_and_name_nothing_else(said, kept, tmp_path):
    class Model:
        name = "tiny"

        def complete(self, prompts, schema):
            return [Reply(json.dumps({"description": said}, ensure_ascii=False)) for _ in prompts]

    config = OpenAIText(model="m", attempts=1)
    author = Author(config, tmp_path, lambda line: None, lambda config: Model())
    (found,) = reasons([facts()], TITLES, "en", author)
    assert found == (said if kept else reasons([facts()], TITLES)[0])
    assert author.report.templates == (not kept)
