import pytest
import torch

from marec_env import played
from marec_env.environment_config import EnvironmentConfig
from marec_env.errors import DataError
from marec_env.played import played_clicks
from marec_env.simulator import Simulator
from marec_env.world import build_world
from tests.worlds import small_environment

SESSIONS, SEED = 7, 5


def environment(**changes):
    return EnvironmentConfig(**small_environment(**changes))


def told_by_hand(config):
    """What each session's log allows: of each click the earlier likes, the item, those passed."""
    simulator = Simulator(build_world(config), SESSIONS, autoreset=False)
    simulator.begin(-1 - torch.arange(SESSIONS), SEED)
    memory = simulator.pipeline.memory
    liked = [
        items[kept].tolist()
        for items, kept in zip(memory.history, memory.history_liked, strict=True)
    ]
    over = [False] * SESSIONS
    found = []
    for _ in range(config.max_requests):
        step = simulator.step(simulator.default_actions())
        slates = simulator.last.request.slate.tolist()
        clicks = simulator.last.feedback.clicks.tolist()
        for session in range(SESSIONS):
            if over[session]:
                continue
            answers = list(zip(slates[session], clicks[session], strict=True))
            taken = [item for item, click in answers if click]
            passed = {item for item, click in answers if not click}
            if liked[session] and passed:
                found += [(set(liked[session][-8:]), item, passed) for item in taken]
            liked[session] += taken
            over[session] = bool(step.terminated[session] | step.truncated[session])
    return found


def test_each_click_is_told_with_an_earlier_like_and_an_item_passed_beside_it():
    config = environment()
    found = played_clicks(config, SESSIONS, SEED).tolist()
    allowed = told_by_hand(config)
    assert len(found) == len(allowed) > 20
    allowed.sort(key=lambda entry: entry[1])
    left = sorted(found, key=lambda triple: triple[1])
    for anchor, clicked, passed in left:
        fitting = [a for a in allowed if a[1] == clicked and anchor in a[0] and passed in a[2]]
        assert fitting, (anchor, clicked, passed)
        allowed.remove(fitting[0])
    assert len({triple[0] for triple in left}) > 5 and len({triple[2] for triple in left}) > 5


def test_sessions_are_the_same_in_any_batch_and_others_under_another_seed(monkeypatch):
    whole = played_clicks(environment(), SESSIONS, SEED)
    monkeypatch.setattr(played, "_BATCH", 3)
    parts = played_clicks(environment(), SESSIONS, SEED)
    assert sorted(whole.tolist()) == sorted(parts.tolist())
    assert sorted(whole.tolist()) != sorted(played_clicks(environment(), SESSIONS, 6).tolist())


def test_play_without_a_like_is_refused():
    config = environment(max_requests=1, users={"new_user_share": 1.0})
    with pytest.raises(DataError, match=r"in 2 sessions .* raise finetune\.sessions"):
        played_clicks(config, 2, SEED)
