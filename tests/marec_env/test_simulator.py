import numpy as np
import pytest
import torch

from marec_env.env import resolve
from marec_env.errors import ConfigError
from marec_env.pipeline.selection import top_k
from marec_env.simulator import Simulator
from marec_env.world import build_world

SMALL = {"embeddings": {"encoder": "hashing", "reduction": {"dimension": 8}}}
TRAINED_TEAM = ("trainer", "profile", "recall", "ranking")
IMPATIENT = {
    "patience": {"kind": "budget", "gain": 0.5, "cost": 0.25}
}  # episodes of a few requests
RICHER = {
    "pipeline": {"components": ("profile/query", "recall/topics", "feature", "ranking/topics")}
}


def make(sessions, autoreset=True, **changes):
    return Simulator(build_world(resolve({**SMALL, **changes})), sessions, autoreset=autoreset)


def random_actions(simulator, number, rows=None):
    """Random actions of 64 sessions, or the first ``rows`` of the same."""
    source = torch.Generator().manual_seed(number)
    actions = {}
    for agent, space in simulator.action_spaces.items():
        if agent.startswith(("profile", "ranking")):
            batch = torch.rand(64, *space.shape, generator=source) * 2 - 1
        else:
            batch = torch.randint(0, int(space.nvec[0]), (64, *space.shape), generator=source)
        actions[agent] = batch if rows is None else batch[:rows]
    return actions


def assert_close(one, two, name):
    # Vectorised sums differ in the last bits between batch sizes; nothing else may.
    assert torch.allclose(one.double(), two.double(), atol=2e-5), name


@pytest.mark.parametrize("changes", [{}, RICHER], ids=["default", "richer"])
def test_sessions_do_not_depend_on_the_batch_they_run_in(changes):
    many, few = make(64, users=IMPATIENT, **changes), make(8, users=IMPATIENT, **changes)
    many.reset(3)
    few.reset(3)
    ended = torch.zeros(8)
    for number in range(30):
        a = many.step(random_actions(many, number))
        b = few.step(random_actions(few, number, rows=8))
        assert torch.equal(many.last.slate[:8], few.last.slate)
        assert torch.equal(many.last.feedback.clicks[:8], few.last.feedback.clicks)
        assert torch.equal(a.terminated[:8], b.terminated)
        assert torch.equal(a.truncated[:8], b.truncated)
        for agent in few.agents:
            assert_close(a.rewards[agent][:8], b.rewards[agent], agent)
            assert_close(a.observations[agent][:8], b.observations[agent], agent)
            assert_close(a.final_observations[agent][:8], b.final_observations[agent], agent)
        assert_close(a.state[:8], b.state, "state")
        ended += b.terminated | b.truncated
    assert float(ended.min()) >= 2, "several episodes each"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"state": "privileged"},
        {"pipeline": {"sequential": True}},
        {"pipeline": {"messages": {"kind": "fixed", "delay": 2, "noise": 0.1}}},
        RICHER,
    ],
)
def test_a_stored_state_continues_exactly(changes):
    one, two = make(64, users=IMPATIENT, **changes), make(64, users=IMPATIENT, **changes)
    one.reset(1)
    for number in range(6):
        one.step(random_actions(one, number))
    stored = one.state_dict()
    first = [one.step(random_actions(one, number)) for number in range(6, 12)]
    two.reset(99)
    two.load_state_dict(stored)
    for number, a in zip(range(6, 12), first, strict=True):
        b = two.step(random_actions(two, number))
        assert torch.equal(a.state, b.state)
        assert torch.equal(a.terminated, b.terminated)
        for agent in one.agents:
            assert torch.equal(a.rewards[agent], b.rewards[agent])
            assert torch.equal(a.observations[agent], b.observations[agent])
        assert a.episodes.keys() == b.episodes.keys()
        for name, value in a.episodes.items():
            assert torch.equal(value, b.episodes[name]), name


def test_the_best_items_are_found_a_few_sessions_at_a_time(monkeypatch):
    monkeypatch.setattr("marec_env.beginnings._CELLS", 3 * 1682)
    few = make(8)
    few.reset(3)
    few.restart(torch.tensor([True, False] * 4))
    taste = few.users.long_term_relevance()
    best = taste.masked_fill(few.pipeline.memory.seen, -torch.inf).topk(few._top.shape[1]).values
    assert_close(taste.gather(1, few._top), best, "relevance")


def test_a_stored_state_is_a_copy():
    simulator = make(4)
    simulator.reset(0)
    stored = simulator.state_dict()
    before = {k: v.clone() for k, v in stored["pipeline"]["memory"].items()}
    for number in range(3):
        simulator.step(random_actions(simulator, number, rows=4))
    for name, value in stored["pipeline"]["memory"].items():
        assert torch.equal(value, before[name]), name


def test_leaving_terminates_and_the_limit_truncates():
    patient = make(16, users={"patience": {"kind": "none"}}, max_requests=3)
    patient.reset(0)
    flags = [patient.step(random_actions(patient, n, rows=16)) for n in range(6)]
    assert [bool(step.truncated.all()) for step in flags] == [False, False, True] * 2
    assert not any(bool(step.terminated.any()) for step in flags)
    hasty = make(16, users={"patience": {"kind": "budget", "cost": 5.0}}, max_requests=3)
    hasty.reset(0)
    step = hasty.step(random_actions(hasty, 0, rows=16))
    assert bool(step.terminated.all())
    assert not bool(step.truncated.any())
    # Who leaves with the last request allowed has left, and was not cut off.
    hasty = make(16, users={"patience": {"kind": "budget", "cost": 5.0}}, max_requests=1)
    hasty.reset(0)
    step = hasty.step(random_actions(hasty, 0, rows=16))
    assert bool(step.terminated.all()) and not bool(step.truncated.any())


def test_final_state_is_the_old_episode_and_state_the_new_one():
    resting = make(64, autoreset=False, users=IMPATIENT)
    going_on = make(64, users=IMPATIENT)
    resting.reset(5)
    going_on.reset(5)
    seen = False
    for number in range(5):
        actions = random_actions(resting, number)
        a, b = resting.step(actions), going_on.step(actions)
        ended = b.terminated | b.truncated
        assert torch.equal(a.final_state, b.final_state)
        assert torch.equal(a.state, a.final_state)
        assert torch.equal(a.state[~ended], b.state[~ended])
        for agent in resting.agents:
            assert torch.equal(a.final_observations[agent], b.final_observations[agent])
            kept = b.observations[agent][~ended]
            assert torch.equal(kept, b.final_observations[agent][~ended])
        if bool(ended.any()):
            request = going_on.pipeline.memory.requests
            assert bool((request[ended] == 0).all())
            assert not torch.equal(b.state[ended], b.final_state[ended])
            seen = True
            break
    assert seen, "an episode ended"


def test_autoreset_begins_the_sessions_that_begin_would():
    simulator = make(8, users={"patience": {"kind": "none"}}, max_requests=2)
    simulator.reset(4)
    for number in range(2):
        step = simulator.step(random_actions(simulator, number, rows=8))
    second = torch.arange(8) + (1 << 32)
    alone = make(8, users={"patience": {"kind": "none"}}, max_requests=2)
    begun = alone.begin(second, 4)
    assert torch.equal(step.state, begun.state)


def test_the_same_sessions_meet_the_same_users_and_luck():
    simulator = make(6)
    sessions = torch.tensor([5, 17, 3, 900, 5, 0])
    first = simulator.begin(sessions, 11)
    users = simulator.users.user_index.clone()
    a = simulator.step(random_actions(simulator, 0, rows=6))
    simulator.step(random_actions(simulator, 1, rows=6))
    again = simulator.begin(sessions, 11)
    assert torch.equal(first.state, again.state)
    assert torch.equal(users, simulator.users.user_index)
    b = simulator.step(random_actions(simulator, 0, rows=6))
    assert torch.equal(a.state, b.state)
    assert users[0] == users[4]
    assert torch.equal(first.state[0], first.state[4])
    simulator.begin(sessions, 12)
    assert not torch.equal(users, simulator.users.user_index)


def test_two_policies_are_compared_under_common_random_numbers():
    simulator = make(32)
    simulator.begin(torch.arange(32), 2)
    unseen = top_k(simulator.pipeline.memory.seen.logical_not().float(), 20)
    item, other = unseen[:, :10], unseen[:, [0, 1, 2, 3, 4, 15, 16, 17, 18, 19]]
    simulator.step_slate(item)
    same = simulator.last.feedback.clicks
    simulator.begin(torch.arange(32), 2)
    simulator.step_slate(other)
    assert torch.equal(simulator.last.feedback.clicks[:, :5], same[:, :5])


def test_a_slate_from_outside_is_checked():
    simulator = make(2)
    simulator.begin(torch.tensor([0, 1]), 0)
    good = top_k(simulator.pipeline.memory.seen.logical_not().float(), 10)
    simulator.step_slate(good)
    good = top_k(simulator.pipeline.memory.seen.logical_not().float(), 10)
    for slate, message in (
        (good[:, :9], r"shape \(2, 9\); needed: \(2, 10\)"),
        (good[:, :0], r"shape \(2, 0\)"),
        (good[:1], r"shape \(1, 10\)"),
        (good + 1_682, "outside 0 ... 1681"),
        (good - 1_682, "outside 0 ... 1681"),
    ):
        with pytest.raises(ConfigError, match=message):
            simulator.step_slate(slate)
    twice = good.clone()
    twice[1, 9] = twice[1, 0]
    with pytest.raises(ConfigError, match="slate of session 1 holds an item twice"):
        simulator.step_slate(twice)
    known = int(simulator.last.slate[0, 3])
    again = good.clone()
    again[0, 4] = known
    with pytest.raises(ConfigError, match=f"session 0 holds item {known}, which it has seen"):
        simulator.step_slate(again)
    assert simulator.pipeline.memory.requests.tolist() == [1, 1], "nothing of these was shown"


def test_missing_actions_are_the_hand_set_ones():
    one, two = make(8), make(8)
    one.reset(0)
    two.reset(0)
    one.step({})
    two.step(two.default_actions())
    assert torch.equal(one.last.slate, two.last.slate)


def test_sequential_components_see_what_the_earlier_did_in_this_request():
    simulator = make(8, pipeline={"sequential": True})
    assert simulator.turns == (("profile_0",), ("recall_0",), ("feature_0",), ("ranking_0",))
    simulator.reset(0)
    actions = random_actions(simulator, 0, rows=8)
    before = {agent: simulator.observe(agent) for agent in simulator.agents}
    simulator.act({"profile_0": actions["profile_0"]})
    profile = simulator.observe("recall_0")[:, 9 : 9 + 8]
    assert torch.allclose(profile.norm(dim=1), torch.ones(8), atol=1e-4)
    assert bool((before["recall_0"][:, 9 : 9 + 8] == 0).all())
    simulator.act({"recall_0": actions["recall_0"]})
    assert not torch.equal(before["feature_0"], simulator.observe("feature_0"))
    simulator.act({"feature_0": actions["feature_0"]})
    assert not torch.equal(before["ranking_0"], simulator.observe("ranking_0"))
    simulator.act({"ranking_0": actions["ranking_0"]})
    simulator.advance()


def test_parallel_components_do_not():
    simulator = make(8)
    assert simulator.turns == (simulator.agents,)
    simulator.reset(0)
    before = {agent: simulator.observe(agent) for agent in simulator.agents}
    simulator.act({"profile_0": random_actions(simulator, 0, rows=8)["profile_0"]})
    for agent in simulator.agents:
        assert torch.equal(before[agent], simulator.observe(agent))


def test_order_of_action_entries_does_not_matter():
    one, two = make(8), make(8)
    one.reset(0)
    two.reset(0)
    actions = random_actions(one, 0, rows=8)
    one.step(actions)
    two.step(dict(reversed(actions.items())))
    assert torch.equal(one.last.slate, two.last.slate)


def test_episode_outcomes_are_sums_and_means_of_their_requests():
    simulator = make(4, users={"patience": {"kind": "none"}}, max_requests=3)
    simulator.reset(0)
    steps = [simulator.step(random_actions(simulator, n, rows=4)) for n in range(3)]
    clicks = sum(step.metrics["clicks"] for step in steps)
    team = sum(step.metrics["team_reward"] for step in steps)
    outcome = steps[-1].episodes
    assert outcome["length"].tolist() == [3.0] * 4
    assert torch.allclose(outcome["clicks"], clicks)
    assert torch.allclose(outcome["return"], team)
    assert torch.allclose(outcome["team_reward_per_request"], team / 3)


def test_the_privileged_state_adds_the_users_hidden_state():
    plain, privileged = make(4), make(4, state="privileged")
    plain.reset(0)
    step = privileged.reset(0)
    size = plain.state_space.shape[0]
    assert torch.equal(step.state[:, :size], plain.state())
    assert torch.equal(step.state[:, size:], privileged.users.hidden_state())


@pytest.mark.parametrize(
    ("agent", "action", "message"),
    [
        ("ranking_0", torch.full((4, 8), torch.nan), "not finite"),
        ("recall_0", torch.zeros(4, 6, dtype=torch.int64), r"shape \[4, 6\]; needed: \[4, 7\]"),
        ("recall_0", torch.zeros(3, 7, dtype=torch.int64), "needed"),
        ("feature_0", torch.full((4, 6), -3), r"choices outside 0 ... 1"),
        ("feature_0", torch.ones(4, 6), "choices are torch.int64"),
        ("rankin_0", torch.zeros(4, 8), "did you mean 'ranking_0'"),
        ("profile_0", [0.0] * 5, "give a tensor"),
    ],
)
def test_actions_that_do_not_fit_are_refused_and_leave_no_trace(agent, action, message):
    simulator, other = make(4), make(4)
    with pytest.raises(ConfigError, match=message):
        simulator.step({**simulator.default_actions(), agent: action})
    one, two = (s.step(s.default_actions()) for s in (simulator, other))
    assert torch.equal(one.state, two.state)
    assert torch.equal(one.rewards["recall_0"], two.rewards["recall_0"])


def test_a_request_that_failed_halfway_is_begun_anew():
    simulator, other = (make(2, pipeline={"components": TRAINED_TEAM}) for _ in range(2))
    run = simulator.pipeline.components[2].act
    simulator.pipeline.components[2].act = None
    with pytest.raises(TypeError):
        simulator.step(simulator.default_actions())
    simulator.pipeline.components[2].act = run
    one, two = (s.step(s.default_actions()) for s in (simulator, other))
    assert torch.equal(one.metrics["team_reward"], two.metrics["team_reward"])


def test_a_state_of_another_batch_is_refused():
    with pytest.raises(ConfigError, match="saved with 3 sessions, this environment has 2"):
        make(2).load_state_dict(make(3).state_dict())


def test_a_loaded_state_lies_on_the_environments_device():
    """Sums and summaries as well, which a state read from disk has on the CPU."""
    simulator = make(2)
    simulator.step(simulator.default_actions())
    state = simulator.state_dict()
    moved = []

    class Elsewhere(torch.Tensor):
        def to(self, device):
            moved.append(device)
            return self.as_subclass(torch.Tensor)

    for part in (state["sums"], state["pipeline"]["summaries"]):
        for name in part:
            part[name] = part[name].as_subclass(Elsewhere)
    simulator.load_state_dict(state)
    assert moved == [simulator.device] * (len(state["sums"]) + 4)


@pytest.mark.parametrize("seed", [np.int64(5), np.uint32(5), True + 4])
def test_a_seed_of_any_integer_type_is_the_same(seed):
    simulator, other = make(2), make(2)
    simulator.reset(seed)
    other.reset(5)
    assert torch.equal(simulator.session_keys, other.session_keys)


@pytest.mark.parametrize("seed", [1.5, "5", None])
def test_what_is_no_integer_is_no_seed(seed):
    with pytest.raises(ConfigError, match="is no integer"):
        make(2).reset(seed)


@pytest.mark.parametrize("seeds", [torch.zeros(2), torch.zeros(3).long(), torch.zeros(2, 1).long()])
def test_seeds_of_sessions_are_whole_numbers_one_each(seeds):
    with pytest.raises(ConfigError, match=r"give one integer, or int64 \[2\]"):
        make(2).reset(seeds)


def test_a_part_nobody_decides_is_as_its_components_default():
    slates = []
    for components in (("profile",), ("profile", "ranking")):
        simulator = make(8, pipeline={"components": components})
        simulator.step(simulator.default_actions())
        slates.append(simulator.last.slate)
    assert torch.equal(*slates)


NO_TENSOR = SMALL


def of_another_shape(outcome):
    return outcome.feedback.engagement.unsqueeze(1)


def of_the_batch(outcome):
    return outcome.feedback.engagement.mean()


def not_finite(outcome):
    return outcome.feedback.engagement / 0.0


def a_number(memory):
    return 1.0


def columns_of_nan(request, candidates):
    return torch.full(candidates.shape, torch.nan)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rewards": {"team": {"HERE:of_another_shape": 1.0}}}, r"reward term .*\[4, 1\]"),
        ({"rewards": {"team": {"HERE:of_the_batch": 1.0}}}, r"reward term .*returned .*\[\]"),
        ({"rewards": {"team": {"HERE:not_finite": 1.0}}}, "reward term .*not finite"),
        ({"rewards": {"shaping": [{"potential": "HERE:a_number"}]}}, "potential .*returned float"),
        ({"pipeline": {"blocks": {"HERE:columns_of_nan": 0.0}}}, "block .*not finite"),
        ({"rewards": {"team": {"HERE:NO_TENSOR": 1.0}}}, "rewards.team: .* is a dict"),
        (
            {"rewards": {"objectives": {"recall": {"recal": 1}}}},
            "rewards.objectives.recall: .*recal",
        ),
        (
            {"pipeline": {"recall": {"channels": ["cf", "txt"]}}},
            "pipeline.recall.channels: .*'text'",
        ),
        ({"pipeline": {"blocks": {"txt": 0.1}}}, "pipeline.blocks: .*'text'"),
        ({"pipeline": {"components": ["profile", "math:sqrt"]}}, "'math:sqrt' is no component"),
        ({"pipeline": {"blocks": {}}}, "blocks"),
        ({"pipeline": {"half_lives": [2.0, 0.0]}}, "half_lives"),
        ({"pipeline": {"candidates": 70_000}}, "at most 65536"),
        ({"pipeline": {"blocks": {"cf": -0.1}}}, "blocks"),
        ({"device": "cdua"}, "device"),
        (
            {"pipeline": {"components": TRAINED_TEAM}, "rewards": {"team": {"retention": 0.1}}},
            "trainer.cost is not taken off F",
        ),
        (
            {
                "pipeline": {"messages": {"kind": "fixed", "bandwidth_cost": 0.1}},
                "rewards": {"team": {}},
            },
            "bandwidth_cost is not taken off F",
        ),
        (
            {"pipeline": {"data_prices": {"interest": 0.1}}, "rewards": {"team": {"recall": 1}}},
            "data_prices is not taken off F",
        ),
    ],
)
def test_what_cannot_work_is_told_in_one_line(changes, message):
    def placed(value):
        if isinstance(value, dict):
            return {placed(key): placed(entry) for key, entry in value.items()}
        if isinstance(value, list | tuple):
            return [placed(entry) for entry in value]
        return value.replace("HERE", __name__) if isinstance(value, str) else value

    def play():
        simulator = make(4, **placed(changes))
        simulator.step(simulator.default_actions())

    with pytest.raises(ConfigError, match=message) as caught:
        play()
    assert "\n" not in str(caught.value)
    assert "http" not in str(caught.value)
