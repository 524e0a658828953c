from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from gymnasium import spaces
from torch.nn import functional

import marec_env
from marec_env import random
from marec_env.embeddings import embed_texts
from marec_env.environment_config import EnvironmentConfig
from marec_env.errors import ConfigError
from marec_env.pipeline.component import Component
from marec_env.pipeline.config import FixedMessages, LearnedMessages, PipelineConfig
from marec_env.pipeline.mailbox import Mailbox
from marec_env.pipeline.sentences import sentence_of, sentences
from marec_env.simulator import Simulator
from marec_env.vector import Rows
from marec_env.world import build_world
from tests.worlds import small_environment


class Speaker:
    """Stands for a component: says what its action is."""

    def __init__(self):
        self.counts = None

    def active(self, memory):
        return self.counts

    def summary(self, request, action):
        return action


def request_at(number, sessions=2):
    step = torch.full((sessions,), number) if isinstance(number, int) else number
    paid = []
    return SimpleNamespace(
        step=step, keys=torch.arange(sessions), memory=None, spend=paid.append, paid=paid
    )


def mailbox(senders=3, sessions=2, dim=2, **changes):
    config = LearnedMessages(dim=dim, **changes)
    return Mailbox(config, [Speaker() for _ in range(senders)], sessions, torch.device("cpu"))


def say(box, value, number=0, place=0):
    action = torch.cat([torch.zeros(2, 1), torch.full((2, 2), float(value))], dim=1)
    box.send(place, request_at(number), action)


def cost(box):
    request = request_at(0)
    box.charge(request)
    return request.paid[0]


def test_topologies():
    assert [mailbox().heard_by(place) for place in range(3)] == [[], [0], [0, 1]]
    full = mailbox(topology="full")
    assert [full.heard_by(place) for place in range(3)] == [[1, 2], [0, 2], [0, 1]]


def test_a_message_is_heard_by_the_right_ones_in_order():
    box = mailbox(topology="full")
    say(box, 0.5, place=0)
    say(box, -1.0, place=2)
    assert box.read(1)[0].tolist() == [0.5, 0.5, -1.0, -1.0]
    assert box.read(0)[0].tolist() == [0.0, 0.0, -1.0, -1.0]


@pytest.mark.parametrize("delay", [0, 1, 3])
def test_a_message_arrives_after_its_delay_and_stays_in_force(delay):
    box = mailbox(delay=delay)
    say(box, 0.7)
    for passed in range(delay + 3):
        heard = box.read(1)[0, 0].item()
        assert heard == pytest.approx(0.7 if passed >= delay else 0.0)
        box.next_request()


def test_messages_sent_in_turn_arrive_in_turn():
    box = mailbox(delay=2)
    heard = []
    for number in range(6):
        say(box, (number + 1) / 8, number)
        heard.append(8 * box.read(1)[0, 0].item())
        box.next_request()
    assert heard == [0.0, 0.0, 1.0, 2.0, 3.0, 4.0]


def test_only_every_nth_request_is_due_and_paid():
    box = mailbox(every=3, bandwidth_cost=0.5)
    heard, paid = [], []
    for number in range(5):
        say(box, (number + 1) / 8, number)
        heard.append(8 * box.read(1)[0, 0].item())
        paid.append(8 * cost(box)[0].item())
        box.next_request()
    assert heard == [1.0, 1.0, 1.0, 4.0, 4.0]
    assert paid == [0.5, 0.0, 0.0, 2.0, 0.0]


def test_sessions_at_different_requests_are_due_at_different_times():
    box = mailbox(every=2)
    say(box, 1.0, torch.tensor([0, 1]))
    assert box.read(1)[:, 0].tolist() == [1.0, 0.0]


def test_noise_has_its_spread_and_is_repeatable():
    boxes = [mailbox(2, 20_000, 1, noise=0.3) for _ in range(2)]
    for box in boxes:
        box.send(0, request_at(0, 20_000), torch.zeros(20_000, 2))
    heard = boxes[0].read(1)
    assert heard.std().item() == pytest.approx(0.3, rel=0.03)
    assert torch.equal(heard, boxes[1].read(1))


def test_noise_is_not_paid_for_nor_is_what_nobody_hears():
    box = mailbox(noise=1.0, bandwidth_cost=0.5)
    say(box, 0.0, place=0)
    say(box, 1.0, place=2)  # the last of a downstream team
    assert cost(box).tolist() == [0.0, 0.0]
    full = mailbox(topology="full", bandwidth_cost=0.5)
    say(full, 1.0, place=0)
    say(full, 1.0, place=2)
    assert cost(full).tolist() == [1.0, 1.0]
    request = request_at(0)
    full.charge_had(2, torch.zeros(2, 1), request)
    assert sum(request.paid).tolist() == [0.5, 0.5]


def test_whose_action_does_not_count_says_nothing():
    box = mailbox(bandwidth_cost=0.5)
    box._components[0].counts = torch.tensor([True, False])
    say(box, 1.0)
    assert box.read(1)[:, 0].tolist() == [1.0, 0.0]
    assert cost(box).tolist() == [0.5, 0.0]


def test_saved_messages_of_another_delay_are_refused():
    with pytest.raises(ConfigError, match="saved messages have shape"):
        mailbox(delay=1).load_state_dict(mailbox(delay=2).state_dict())


def test_a_new_episode_hears_nothing():
    box = mailbox(delay=1)
    say(box, 1.0)
    box.reset(Rows(torch.tensor([True, False])))
    box.next_request()
    assert box.read(1)[:, 0].tolist() == [0.0, 1.0]


def test_a_summary_is_cut_padded_and_clipped():
    summary = torch.tensor([[0.5, -3.0, 0.25]]).expand(2, -1)
    for dim, expected in ((2, [0.5, -1.0]), (5, [0.5, -1.0, 0.25, 0.0, 0.0])):
        config = FixedMessages(dim=dim)
        box = Mailbox(config, [Speaker(), Speaker()], 2, torch.device("cpu"))
        box.send(0, request_at(0), summary)
        assert box.read(1)[0].tolist() == expected


def test_learned_messages_extend_boxes_and_pair_the_rest(make):
    pipeline = make.pipeline(messages={"kind": "learned", "dim": 3})
    silent = make.pipeline()
    assert pipeline.action_spaces["profile_0"].shape == (5 + 3,)
    recall = pipeline.action_spaces["recall_0"]
    assert isinstance(recall, spaces.Tuple)
    assert recall[0] == silent.action_spaces["recall_0"]
    assert recall[1].shape == (3,)
    widths = {
        agent: pipeline.observe(agent).shape[1] - silent.observe(agent).shape[1]
        for agent in pipeline.agents
    }
    assert widths == {"profile_0": 0, "recall_0": 3, "feature_0": 6, "ranking_0": 9}


class Wide(Component):
    """Decides a number between 0 and 10."""

    name = "wide"

    @property
    def action_space(self):
        return spaces.Box(0.0, 10.0, (1,))

    def act(self, request, action):
        pass

    def default_action(self):
        return torch.full((1,), 5.0)


def test_a_message_leaves_the_bounds_of_the_decision_as_they_are(make):
    pipeline = make.pipeline(
        components=(f"{__name__}:Wide",), messages={"kind": "learned", "dim": 2}
    )
    space = pipeline.action_spaces["wide_0"]
    assert space.low.tolist() == [0.0, -1.0, -1.0]
    assert space.high.tolist() == [10.0, 1.0, 1.0]


def test_what_is_said_is_heard_and_does_not_touch_the_decision(make):
    pipeline = make.pipeline(messages={"kind": "learned", "dim": 2})
    actions = pipeline.default_actions()
    quiet = pipeline.begin(make.keys())
    for agent in pipeline.agents:
        pipeline.act(quiet, agent, actions[agent])
    slate = pipeline.finish(quiet)
    assert torch.equal(pipeline.observe("ranking_0")[:, -6:], torch.zeros(3, 6))
    actions["profile_0"][:, -2:] = 0.5
    actions["recall_0"] = (actions["recall_0"][0], torch.full((3, 2), -0.25))
    loud = pipeline.begin(make.keys())
    for agent in pipeline.agents:
        pipeline.act(loud, agent, actions[agent])
    assert torch.equal(pipeline.finish(loud), slate)
    assert pipeline.observe("ranking_0")[0, -6:].tolist() == [0.5, 0.5, -0.25, -0.25, 0.0, 0.0]


def test_fixed_messages_say_what_was_decided(make):
    pipeline = make.pipeline(messages={"kind": "fixed", "dim": 7, "bandwidth_cost": 1.0})
    request = pipeline.begin(make.keys())
    levels = torch.tensor([[3, 0, 0, 0, 0, 0, 0]] * 3)
    pipeline.act(request, "recall_0", levels)
    pipeline.finish(request)
    assert pipeline.observe("feature_0")[0, -7:].tolist() == [1.0, 0, 0, 0, 0, 0, 0]
    assert request.extra_cost.tolist() == pytest.approx([1 / 7] * 3)


def test_keys_without_effect_are_refused():
    with pytest.raises(ConfigError, match="bandwidth_cost"):
        marec_env.parallel_env({"pipeline": {"messages": {"kind": "none", "bandwidth_cost": 1.0}}})


def test_what_is_said_is_cut_to_the_bounds_of_its_space_on_both_sides():
    box = mailbox()
    box.send(0, request_at(0), torch.tensor([[9.0, 1.7, -2.3], [9.0, -1.2, 0.25]]))
    assert box.read(1).tolist() == [[1.0, -1.0], [-1.0, 0.25]]
    of_pairs = box.space(spaces.Discrete(3))[1]
    assert (of_pairs.low.tolist(), of_pairs.high.tolist()) == ([-1.0, -1.0], [1.0, 1.0])


def test_each_session_pays_the_mean_size_of_its_own_message():
    box = mailbox(bandwidth_cost=0.5)
    box.send(0, request_at(0), torch.tensor([[9.0, 0.5, -0.25], [9.0, 1.0, 0.0]]))
    assert cost(box).tolist() == [0.1875, 0.25]


def test_noise_is_added_as_drawn():
    box = mailbox(noise=0.3)
    request = request_at(2)
    box.send(0, request, torch.tensor([[9.0, 0.5, -0.25], [9.0, 1.0, 0.0]]))
    drawn = random.normal(request.keys, request.step, "pipeline/message/0", 2)
    expected = torch.tensor([[0.5, -0.25], [1.0, 0.0]]) + 0.3 * drawn
    assert torch.equal(box.read(1), expected)


def private(value, epsilon, sessions=40_000):
    box = mailbox(2, sessions, 2, privacy={"epsilon": epsilon})
    box.send(0, request_at(0, sessions), torch.full((sessions, 3), value))
    return box.read(1)


def test_local_privacy_is_laplace_noise_of_the_stated_scale():
    heard = private(0.0, 40.0)
    assert heard.abs().mean().item() == pytest.approx(2 * 2 / 40.0, rel=0.03)
    assert heard.mean().abs().item() < 0.003
    assert torch.equal(heard, private(0.0, 40.0))
    numbers = torch.corrcoef(heard.T)[0, 1].abs().item()
    assert numbers < 0.02  # each number has noise of its own


def test_local_privacy_bounds_what_any_message_makes_likely():
    """The two messages that differ most, and the event that tells them apart best."""
    for epsilon in (1.0, 3.0):
        likely = [
            (private(value, epsilon) == 1.0).all(1).float().mean().item() for value in (1.0, -1.0)
        ]
        loss = torch.log(torch.tensor(likely[0] / likely[1])).item()
        assert 0.75 * epsilon < loss < 1.1 * epsilon
        assert private(1.0, epsilon).abs().max().item() <= 1.0


def spoken(**messages):
    config = small_environment(
        pipeline={
            "candidates": 20,
            "slate_size": 5,
            "messages": {"kind": "text", "topology": "full", **messages},
        }
    )
    world = build_world(EnvironmentConfig(**config))
    simulator = Simulator(world, 4)
    simulator.reset(seed=0)
    return world, simulator


def test_components_say_in_words_what_is_most_and_least():
    world, simulator = spoken(dim=6)
    components = simulator.pipeline.components
    said = [text for component in components for text in sentences(component)]
    assert "recall: most quota of cf, least quota of popular." in said
    assert "feature: most block text, least block cf." in said
    table = world.knowledge.sentences
    assert table.shape == (len(said), 6) == (len(set(said)), 6)
    full = embed_texts(world.embeddings, said)
    near = functional.normalize((full - full.mean(0)), dim=1)
    assert (
        torch.corrcoef(torch.stack([(near @ near.T).flatten(), (table @ table.T).flatten()]))[0, 1]
        > 0.5
    )  # what is alike in words is alike in numbers
    actions = simulator.default_actions()
    quota, block = torch.ones(4, 7, dtype=torch.int64), torch.ones(4, 6, dtype=torch.int64)
    quota[:, 0], quota[:, 4], block[:, 0] = 3, 0, 0
    actions["recall_0"], actions["feature_0"] = quota, block
    simulator.step(actions)
    sent = simulator.pipeline.messages_sent()
    for place, text in (
        (1, "recall: most quota of cf, least quota of popular."),
        (2, "feature: most block text, least block cf."),  # of equal ones the first
    ):
        expected = table[said.index(text)]
        assert torch.equal(sent[:, place], expected.expand(4, -1))
    assert simulator.action_spaces["recall_0"].shape == (7,)  # nothing is learned to be said


def test_a_component_without_names_says_that_it_has_decided():
    class Silent(Component):
        name = "silent"
        action_space = None

        def act(self, request, action):
            pass

        def default_action(self):
            pass

    component = Silent(PipelineConfig())
    assert sentences(component) == ["silent has decided."]
    assert sentence_of(component, torch.ones(3, 5)).tolist() == [0, 0, 0]


def test_words_are_made_before_a_simulator_is():
    world, _ = spoken()
    assert world.knowledge.sentences.shape[1] == 4
    with pytest.raises(ConfigError, match=r"environment\.pipeline\.messages: \{kind: text\}"):
        Simulator(replace(world, knowledge=replace(world.knowledge, sentences=None)), 4)
