"""Why an item is shown, told to its user: facts, sentences, and what a model may say."""

import json

import pytest
import torch

from marec_env.environment_config import EnvironmentConfig
from marec_env.evaluation.reasons import ItemFacts, item_facts, liked_items, reasons
from marec_env.pipeline.reasons import channel_names
from marec_env.simulator import Simulator
from marec_env.text import Author
from marec_env.text.config import OpenAIText
from marec_env.text.models import Reply
from marec_env.world import build_world
from tests.worlds import small_environment


def facts(title="The Third Man", channel="cf", block="cf", liked="M", known_user=True):
    return ItemFacts(title, channel, block, liked, known_user)


@pytest.fixture(scope="module")
def answered():
    world = build_world(EnvironmentConfig(**small_environment()))
    simulator = Simulator(world, 24)
    simulator.reset(seed=4)
    simulator.step(simulator.default_actions())
    liked = [liked_items(simulator.pipeline.memory, row) for row in range(24)]
    simulator.step(simulator.default_actions())
    return world, simulator, liked


def test_facts_are_those_of_the_funnel(answered):
    world, simulator, liked = answered
    request, titles = simulator.last.request, world.catalog.titles
    channels = channel_names(simulator.config.pipeline)
    spaces = {"cf": "cf", "item_to_item": "cf", "affinity": "cf", "diverse": "cf", "text": "text"}
    named = 0
    for row in range(24):
        for place, fact in enumerate(item_facts(request, liked[row], titles, row)):
            item, slot = request.slate[row, place], request.slate_slot[row, place]
            assert fact.title == titles[item]
            assert fact.channel == channels[request.candidate_channel[row, slot]]
            assert fact.known_user is bool(len(liked[row]))
            if fact.liked and fact.channel in spaces:
                vectors = getattr(world.knowledge, spaces[fact.channel])
                best = (vectors[liked[row]] @ vectors[item]).argmax()
                assert fact.liked == titles[liked[row][best]]
                named += 1
    assert named > 20


def test_what_is_liked_is_history_then_session_newest_first(answered):
    _, simulator, liked = answered
    memory = simulator.pipeline.memory
    for row in range(24):
        now = liked_items(memory, row)
        clicked = simulator.last.slate[row][simulator.last.feedback.clicks[row] > 0]
        assert torch.equal(now, torch.cat([clicked.flip(0), liked[row]]))


@pytest.mark.parametrize(
    ("fact", "english", "chinese"),
    [
        (facts(), "“The Third Man”: people who liked “M”, as you did, like it too.",
         "《The Third Man》:和您一样喜欢《M》的人也喜欢它。"),
        (facts(channel="notes"), "“The Third Man”: it is much like “M”, which you liked.",
         "《The Third Man》:它与您喜欢的《M》很相似。"),
        (facts(channel="popular"), "“The Third Man”: many people like it.",
         "《The Third Man》:很多人都喜欢它。"),
        (facts(liked="", block="freshness"), "“The Third Man”: it is new here.",
         "《The Third Man》:它是新上架的。"),
        (facts(liked="", block="text"), "“The Third Man”: it fits what is known of you.",
         "《The Third Man》:它符合我们对您的了解。"),
        (facts(channel="", block="", liked="", known_user=False),
         "“The Third Man”: a first suggestion, to learn what you like.",
         "《The Third Man》:先推荐一个,好了解您的喜好。"),
    ],
)  # fmt: skip
def test_sentences(fact, english, chinese):
    assert reasons([fact]) == [english]
    assert reasons([fact], "zh") == [chinese]


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
    catalog = ("The Third Man", "M", "Vertigo", "Man")
    (found,) = reasons([facts()], "en", author, catalog)
    assert found == (said if kept else reasons([facts()])[0])
    assert author.report.templates == (not kept)
