import torch

from agents.learners.collector import Collector
from agents.learners.config import MAPPOConfig
from agents.learners.rl_modules import RolloutBatch, concatenate
from agents.learners.team import TeamSpec


def collector(mixed_team, sessions=6, index=0, seed=0):
    env = mixed_team(sessions)
    team = TeamSpec.of(env)
    torch.manual_seed(0)
    actors = {name: team.build_actor(MAPPOConfig(), name) for name in team.actors}
    return Collector(env, team, [actors], [seed], index)


def same(first, second):
    return all(torch.equal(first.agents[a][k], second.agents[a][k])
               for a in first.agents for k in first.agents[a])  # fmt: skip


def test_shapes_and_flags(mixed_team):
    rollout = collector(mixed_team).collect(9)
    assert rollout.env_steps == 54
    assert rollout.team["state"].shape == (6, 9, 6)
    assert rollout.agents["b"]["masks"].shape == (6, 9, 5)
    ended = rollout.team["ended"]
    assert torch.equal(rollout.team["starts"][:, 1:], ended[:, :-1])
    assert bool(rollout.team["starts"][:, 0].all())
    # Within an episode, the state after a step is the state before the next.
    going = ~ended[:, :-1]
    after, before = rollout.team["next_state"][:, :-1], rollout.team["state"][:, 1:]
    torch.testing.assert_close(after[going], before[going])
    assert not torch.allclose(after[~going], before[~going])


def test_masked_action_is_never_sampled(mixed_team):
    rollout = collector(mixed_team).collect(30)
    assert float(rollout.agents["b"]["actions"][..., 1].max()) == 0.0


def test_two_short_rollouts_equal_a_long_one(mixed_team):
    whole = collector(mixed_team).collect(10)
    parts = collector(mixed_team)
    first, second = parts.collect(4), parts.collect(6)
    for agent, columns in whole.agents.items():
        for key, column in columns.items():
            joined = torch.cat([first.agents[agent][key], second.agents[agent][key]], dim=1)
            assert torch.equal(column, joined)


def test_continues_exactly_from_its_state(mixed_team):
    one = collector(mixed_team)
    one.collect(7)
    state = one.state_dict()
    expected = one.collect(5)
    other = collector(mixed_team)
    other.load_state_dict(state)
    assert same(other.collect(5), expected)


def test_collectors_draw_apart(mixed_team):
    first, second = (collector(mixed_team, index=i).collect(3) for i in range(2))
    assert not torch.equal(first.agents["a"]["actions"], second.agents["a"]["actions"])


def test_step_metrics_are_means_over_all_steps(mixed_team):
    rollout = collector(mixed_team).collect(8)
    rewards = torch.stack([rollout.agents[a]["rewards"] for a in ("a", "b", "c")])
    assert abs(rollout.metrics["team_reward"] - float(rewards.mean())) < 1e-5
    assert rollout.metrics["episodes_ended"] == float(rollout.team["ended"].sum())


def test_agent_steps_count_decisions(mixed_team):
    batch = RolloutBatch(collector(mixed_team).collect(10))
    assert batch.env_steps() == 60
    assert batch.agent_steps() == 60 + 60 + 30


def test_concatenation_keeps_sessions_and_weighs_metrics(mixed_team):
    small = RolloutBatch(collector(mixed_team, sessions=2).collect(5))
    large = RolloutBatch(collector(mixed_team, sessions=6, index=1).collect(5))
    both = concatenate([small, large])
    assert both.env_steps() == 40
    assert torch.equal(
        both.policy_batches["a"]["actions"][2:], large.policy_batches["a"]["actions"]
    )
    expected = (
        10 * small.rollout.metrics["team_reward"] + 30 * large.rollout.metrics["team_reward"]
    ) / 40
    assert abs(both.rollout.metrics["team_reward"] - expected) < 1e-6
