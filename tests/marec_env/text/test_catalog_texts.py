"""Notes and texts about users in a world: what is written, who may read it, and when."""

import json
import math
import re
from dataclasses import replace

import pytest
import torch

from marec_env.environment_config import EnvironmentConfig
from marec_env.errors import ConfigError
from marec_env.pipeline.ranking import rerank
from marec_env.simulator import Simulator
from marec_env.text.author import Author, TextReport
from marec_env.text.catalog_texts import distilled, pairs_to_ask
from marec_env.text.models import Reply
from marec_env.text.prompts import like_prompts
from marec_env.world import build_world
from tests.worlds import small_environment

CHANNELS = ("cf", "popular", "fresh", "notes", "user_text")
COMPONENTS = ("profile/told", "recall", "feature", "ranking")
PIPELINE = {
    "candidates": 20,
    "slate_size": 5,
    "components": COMPONENTS,
    "recall": {"channels": CHANNELS},
    "blocks": {"cf": 0.02, "notes": 0.03},
}


def environment(text, pipeline=PIPELINE, **changes):
    return EnvironmentConfig(**small_environment(text=text, pipeline=pipeline, **changes))


@pytest.fixture(scope="module")
def told():
    return build_world(environment({"notes": True, "user_every": 2}))


def test_notes_say_what_is_known_of_an_item(told):
    note, title = told.texts.notes[5], told.log.titles[5]
    assert note.startswith(f"{title}: ") and told.log.genres[5][0] in note
    topic = told.catalog.topic_names[int(told.catalog.topics[5])]
    assert note.endswith(f"For those who like {topic}.") or topic in note
    assert told.knowledge.notes.shape == (300, 8) and len(told.texts.notes) == 300
    assert torch.allclose(told.knowledge.notes.norm(dim=1), torch.ones(300), atol=1e-5)
    assert told.texts.report == TextReport(texts=300 + 1 + 6 * 21)


def test_every_user_that_is_told_apart_has_a_text(told):
    simulator = Simulator(told, 64)
    simulator.reset(seed=3)
    memory, names = simulator.pipeline.memory, told.catalog.topic_names
    kinds = memory.user_kind()
    assert len(set(kinds.tolist())) > 10 and (kinds == 0).any()
    for row, kind in enumerate(kinds.tolist()):
        text, interest = told.texts.users[kind], memory.interest[row]
        if interest.sum() == 0:
            assert text == told.texts.users[0] and "new user" in text
            continue
        best = interest.argsort(descending=True, stable=True)[:2]
        liked = [names[topic] for topic in best.tolist() if interest[topic] > 0]
        likes, late = text.split(" Of late ")
        assert all(name in likes for name in liked)
        assert late == f"{names[int(told.catalog.topics[memory.recent[row, 0]])]}."


def test_a_text_holds_from_the_next_request_on_and_for_so_many(told):
    simulator = Simulator(told, 32)
    simulator.reset(seed=3)
    profile = simulator.pipeline.components[0]
    vectors = told.knowledge.user_texts
    new = vectors[0].expand(32, -1)
    assert torch.equal(profile.state["user_text"], new)
    before = vectors[simulator.pipeline.memory.user_kind()]
    seen = []
    for _ in range(3):
        simulator.step(simulator.default_actions())
        seen.append(profile.state["user_text"].clone())
    assert torch.equal(seen[0], before) and not torch.equal(before, new)
    assert torch.equal(seen[1], seen[0])  # chosen anew every two requests
    assert not torch.equal(seen[2], seen[0])
    observation = simulator.observe("profile_0")
    assert observation.shape[1] == simulator.observation_spaces["profile_0"].shape[0]
    assert torch.equal(observation[:, -8:], seen[2])


def test_channels_offer_what_is_nearest_to_the_texts(told):
    simulator = Simulator(told, 16)
    simulator.reset(seed=1)
    actions = simulator.default_actions()
    actions["recall_0"] = torch.tensor([0, 0, 0, 0, 3]).expand(16, -1)
    simulator.step(actions)
    simulator.step(actions)
    told_now = simulator.pipeline.components[0].state["user_text"]
    seen = simulator.pipeline.memory.seen.clone()
    simulator.step(actions)
    scores = (told_now @ told.knowledge.text.T).masked_fill(seen, -2.0)
    found = scores.gather(1, simulator.last.request.candidates)
    least = scores.topk(20, dim=1).values[:, -1:]
    assert (found >= least - 1e-6).all()


def test_notes_bring_neighbours_of_what_was_liked_and_score_by_them(told):
    simulator = Simulator(told, 16)
    simulator.reset(seed=1)
    memory, notes = simulator.pipeline.memory, told.knowledge.notes
    recent, seen = memory.recent.clone(), memory.seen.clone()
    actions = simulator.default_actions()
    actions["recall_0"] = torch.tensor([0, 0, 0, 3, 0]).expand(16, -1)
    simulator.step(actions)
    request, found = simulator.last.request, 0
    for row in range(16):
        liked = recent[row][recent[row] >= 0]
        candidates = request.candidates[row]
        brought = candidates[request.candidate_channel[row] == 3]
        near = (notes[liked] @ notes.T).scatter(1, liked[:, None], -2.0).topk(16, dim=1).indices
        assert set(brought.tolist()) <= set(near.flatten().tolist())
        if len(liked) and len(brought):
            assert brought[0] == next(one for one in near.T.flatten() if not seen[row, one])
            found += 1
            score = notes[candidates] @ notes[liked].mean(0)
            block = request.blocks[row, :, 1]
            assert torch.corrcoef(torch.stack([score, block]))[0, 1] > 0.999
    assert found > 5


def test_a_run_with_texts_goes_on_where_it_was(told):
    slates = []
    for resumed in (False, True):
        simulator = Simulator(told, 8)
        simulator.reset(seed=2)
        for request in range(5):
            if resumed and request == 3:
                state, simulator = simulator.state_dict(), Simulator(told, 8)
                simulator.reset(seed=9)
                simulator.load_state_dict(state)
            simulator.step(simulator.default_actions())
        slates.append(simulator.last.slate)
    assert torch.equal(*slates)


def test_texts_that_are_wanted_and_not_written_are_named(told):
    silent = replace(told, knowledge=replace(told.knowledge, user_texts=None))
    with pytest.raises(ConfigError, match=r"environment\.text\.user_every"):
        Simulator(silent, 4)
    plain = replace(told, knowledge=replace(told.knowledge, note_neighbours=None))
    simulator = Simulator(plain, 4)
    simulator.reset(seed=0)
    with pytest.raises(ConfigError, match=r"environment\.text\.notes: true"):
        simulator.step(simulator.default_actions())


def test_a_model_writes_in_its_language_once_for_all_runs(tmp_path, monkeypatch):
    asked = []

    class Model:
        name = "tiny"

        def complete(self, prompts, schema):
            asked.extend(prompts)
            return [Reply(json.dumps({"description": f"关于{user}"})) for _, user in prompts]

    monkeypatch.setattr(Author.__init__, "__defaults__", (print, lambda config: Model()))
    text = {"model": {"kind": "openai", "model": "x"}, "language": "zh", "notes": True}
    config = environment({**text, "folder": str(tmp_path)}, {"candidates": 20, "slate_size": 5})
    world = build_world(config)
    assert world.texts.notes[2].startswith(f"关于《{world.log.titles[2]}》:")
    assert len(asked) == len(set(world.texts.notes)) and "你" in asked[0][0]
    written = world.texts.report.file
    replayed = build_world(
        environment(
            {**text, "model": {"kind": "replay", "file": written}},
            {"candidates": 20, "slate_size": 5},
        )
    )
    assert replayed.texts.notes == world.texts.notes
    assert replayed.texts.fingerprint == world.texts.fingerprint
    assert torch.equal(replayed.knowledge.notes, world.knowledge.notes)


def test_what_a_model_judges_is_learned_for_all_items():
    made = torch.Generator().manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(200, 6, generator=made), dim=1)
    taste = torch.randn(3, 6, generator=made)
    truth = 5 * vectors @ taste.T - 4  # [N, T]
    asked = torch.stack([torch.randperm(200, generator=made)[:90] for _ in range(3)])
    table, explained = distilled(vectors, asked, truth.T.gather(1, asked))
    expected = (truth - truth.mean(0)) / truth.std(0, correction=0)
    assert table.shape == (200, 3) and explained > 0.95
    assert torch.allclose(table, expected, atol=0.3)
    for topic in range(3):
        assert torch.corrcoef(torch.stack([table[:, topic], expected[:, topic]]))[0, 1] > 0.995
    noise = torch.randn(3, 90, generator=made)
    table, explained = distilled(vectors, asked, noise)
    assert explained < 0.1  # of nothing nothing is learned
    assert table.T.gather(1, asked).argsort(1).equal(noise.argsort(1))  # as they were judged
    assert not distilled(vectors, asked, torch.zeros(3, 90))[0].any()


def test_asked_are_the_nearest_and_some_of_the_rest(told):
    catalog = told.catalog
    asked = pairs_to_ask(catalog, 20)
    assert asked.shape == (6, 20) and all(len(set(row)) == 20 for row in asked.tolist())
    for topic, row in enumerate(asked):
        centre = catalog.text[catalog.topics == topic].mean(0)
        order = (catalog.text @ centre).argsort(descending=True)
        assert set(row[:10].tolist()) == set(order[:10].tolist())
        places = [int((order == item).nonzero()) for item in row[10:]]
        assert places[0] == 10 and places == sorted(places) and places[-1] > 250
    assert pairs_to_ask(catalog, 1000).shape == (6, 300)


def test_the_re_ranker_scores_by_the_topics_that_a_user_likes(tmp_path, monkeypatch):
    """A model to which users like items of their topic, and others the less the later their row."""
    asked = []

    class Model:
        name = "judge"

        def score(self, prompts, options):
            asked.extend(prompts)
            likes = [
                user.split("such as")[0].removeprefix("User: Likes ").strip(", ") in
                user.split("Item:")[1] for _, user in prompts
            ]  # fmt: skip
            return [Reply(json.dumps([-0.1, -3.0] if like else [-3.0, -0.1])) for like in likes]

    monkeypatch.setattr(Author.__init__, "__defaults__", (print, lambda config: Model()))
    pipeline = PIPELINE | {
        "components": ("profile", "recall", "feature", "ranking"),
        "recall": {"channels": ("popular", "fresh")},
        "blocks": {"rerank": 0.03},
    }
    model = {"kind": "openai", "model": "x"}
    text = {"model": model, "rerank": 300, "folder": str(tmp_path)}
    world = build_world(environment(text, pipeline))
    assert world.texts.any and world.texts.report.scores == 6 * 300
    assert len(asked) == 6 * 300 and not world.texts.notes
    simulator = Simulator(world, 32)
    simulator.reset(seed=1)
    mix, before = simulator.pipeline.memory.interest.clone(), len(asked)
    simulator.step(simulator.default_actions())
    request = simulator.last.request
    said = world.knowledge.reranked[request.candidates]  # [B, C, T]
    share = mix + 0.2 * world.knowledge.topic_share
    score = (said * (share / share.sum(1, keepdim=True)).unsqueeze(1)).sum(2)
    spread = (score - score.mean(1, keepdim=True)) / score.std(1, correction=0, keepdim=True)
    assert torch.allclose(request.blocks[:, :, 0], spread, atol=1e-4)
    assert len(asked) == before  # no step asks
    config = request.config
    indexed = config.recall.model_copy(update={"index": "faiss", "index_above": 0})
    of_many = replace(request, config=config.model_copy(update={"recall": indexed}))
    assert of_many.indexed and not request.indexed
    found = [rerank(one, request.candidates) for one in (of_many, replace(request))]
    assert torch.allclose(*found, atol=1e-5)
    # Slates are of the topics that users like: more than of those that they were offered.
    topics = world.knowledge.topics
    liked = mix.argmax(1, keepdim=True)
    known = mix.sum(1) > 0
    shown = (topics[simulator.last.slate] == liked)[known].float().mean()
    assert shown > 1.5 * (topics[request.candidates] == liked)[known].float().mean()
    plain = build_world(environment({}, {"candidates": 20, "slate_size": 5}))
    assert plain.knowledge.reranked is None and not plain.texts.any
    silent = Simulator(replace(plain, config=world.config), 4)
    silent.reset(seed=0)
    with pytest.raises(ConfigError, match=r"environment\.text\.rerank: 64"):
        silent.step(silent.default_actions())


def test_the_template_judges_by_the_words_of_the_topic(told):
    world = build_world(environment({"rerank": 12}, {"candidates": 20, "slate_size": 5}))
    assert world.texts.report == TextReport(scores=6 * 12)
    prompt, *rest = like_prompts(told.catalog, told.texts.notes, torch.tensor([[0]] * 6), "en")
    name = told.catalog.topic_names[0]
    words = set(re.findall(r"\w+", name.lower()))
    held = words & set(re.findall(r"\w+", told.texts.notes[0].lower()))
    yes, no = json.loads(prompt.template)
    assert math.exp(yes) == pytest.approx((1 + len(held)) / (2 + len(words)))
    assert math.exp(yes) + math.exp(no) == pytest.approx(1)
    assert f"Likes {name}, such as" in prompt.user and told.texts.notes[0] in prompt.user
    assert prompt.options == ("yes", "no") and len({one.key for one in (prompt, *rest)}) == 6
    chinese = like_prompts(told.catalog, told.texts.notes, torch.tensor([[0]] * 6), "zh")[0]
    assert chinese.options == ("会", "不会") and "喜欢" in chinese.user
