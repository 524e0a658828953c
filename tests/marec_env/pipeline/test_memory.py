import pytest
import torch

from marec_env.errors import ConfigError
from marec_env.vector import Rows

SLATE = torch.tensor([[10, 14, 11, 12, 13]] * 3)  # topics 2, 2, 3, 0, 1
CLICKS = torch.tensor([[1.0, 0, 0, 1, 0], [0.0, 0, 0, 0, 0], [1.0, 1, 1, 1, 1]])


@pytest.fixture
def memory(pipeline):
    return pipeline.memory


def test_history_enters_every_time_scale(memory):
    # Session 0 liked item 1 (one before the last) and item 0 (two before).
    for scale, half_life in enumerate((2.0, 8.0, 32.0)):
        keep = 0.5 ** (1 / half_life)
        expected = keep * memory.knowledge.text[1] + keep**2 * memory.knowledge.text[0]
        assert torch.allclose(memory.taste_text[0, scale], expected, atol=1e-6)
    assert torch.allclose(memory.dislike_cf[0], memory.knowledge.cf[2])
    assert memory.history_length.tolist() == [3.0] * 3
    assert memory.seen[0].nonzero().squeeze(1).tolist() == [0, 1, 2]


def test_one_request_by_hand(memory):
    before = memory.taste_cf.clone()
    memory.update(SLATE, CLICKS, None, None)
    cf = memory.knowledge.cf
    keep = 0.5 ** (1 / 8.0)
    assert torch.allclose(memory.taste_cf[0, 1], keep * before[0, 1] + cf[10] + cf[12], atol=1e-5)
    expected = keep * cf[2] + cf[14] + cf[11] + cf[13]
    assert torch.allclose(memory.dislike_cf[0], expected, atol=1e-5)
    # A quarter of the exposure is new: shares 1/5, 1/5, 2/5, 1/5 of the slate by topic.
    assert memory.exposure[0].tolist() == pytest.approx([0.05, 0.05, 0.1, 0.05])
    assert memory.last_rate.tolist() == pytest.approx([0.4, 0.0, 1.0])
    assert memory.fast_rate[0].item() == pytest.approx(0.5 * 0.15 + 0.5 * 0.4)
    assert memory.slow_rate[0].item() == pytest.approx(0.9 * 0.15 + 0.1 * 0.4)
    assert memory.since_click.tolist() == [0.0, 1.0, 0.0]
    assert memory.recent[0, :4].tolist() == [12, 10, 1, 0]
    assert memory.recent[1, :2].tolist() == [4, 3]
    assert memory.recent[2].tolist() == [13, 12, 11, 14, 10, 7, 6, -1]
    assert set(memory.seen[1].nonzero().squeeze(1).tolist()) == {3, 4, 5, 10, 11, 12, 13, 14}
    assert memory.session_items[0, 0].tolist() == SLATE[0].tolist()
    assert memory.session_clicks[2, 0].tolist() == [1.0] * 5
    assert memory.requests.tolist() == [1, 1, 1]


def test_interest_moves_towards_clicked_topics_only(memory):
    before = memory.interest.clone()
    memory.update(SLATE, CLICKS, None, None)
    gain = torch.tensor([0.05, 0.0, 0.05, 0.0])  # two clicks share a tenth
    assert torch.allclose(memory.interest[0], 0.9 * before[0] + gain)
    assert torch.allclose(memory.interest[1], 0.9 * before[1])


def test_channel_hits_and_block_use_by_hand(memory):
    channel = torch.tensor([[0, 0, 1, 1, 1]] * 3)
    blocks = torch.zeros(3, 5, 6)
    blocks[:, :, 0] = CLICKS  # predicts clicks perfectly where they vary
    blocks[:, :, 1] = -CLICKS
    memory.update(SLATE, CLICKS, channel, blocks)
    assert memory.channel_hits[0].tolist() == pytest.approx([0.05, 0.1 / 3, 0, 0, 0, 0, 0])
    assert memory.block_use[0].tolist() == pytest.approx([0.1, -0.1, 0, 0, 0, 0], abs=1e-6)
    assert memory.block_use[2].tolist() == [0.0] * 6  # all clicked: nothing to predict


def test_reset_of_one_session_leaves_the_others(memory):
    memory.update(SLATE, CLICKS, None, None)
    kept = memory.state_dict()
    memory.reset(
        Rows(torch.tensor([False, True, False])),
        torch.tensor([[-1, -1, -1, -1]]),
        torch.zeros(1, 4, dtype=torch.bool),
        torch.tensor([1]),
    )
    now = memory.state_dict()
    for name, value in now.items():
        assert torch.equal(value[[0, 2]], kept[name][[0, 2]]), name
    assert not bool(memory.seen[1].any())
    assert memory.history_length[1].item() == 0
    assert bool((memory.taste_text[1] == 0).all())
    assert memory.recent[1].tolist() == [-1] * 8
    assert memory.requests.tolist() == [1, 0, 1]
    assert memory.group[1].tolist() == [0.0, 1.0]


def test_a_state_of_another_version_is_refused(memory):
    state = memory.state_dict()
    del state["seen"]
    with pytest.raises(ConfigError, match="lacks 'seen': another version of marec saved it"):
        memory.load_state_dict(state)
