from itertools import pairwise

import pytest
import torch

from marec_env.errors import ConfigError
from marec_env.evaluation.rollout import rollout
from marec_env.simulator import Simulator


class Defaults:
    """The hand-set pipeline as a team."""

    def __init__(self, world, batch):
        self.actions = Simulator(world, batch).default_actions()
        self.resets = 0

    def reset(self):
        self.resets += 1

    def act(self, observations):
        return {agent: self.actions[agent][: seen.shape[0]] for agent, seen in observations.items()}


class MostRelevant:
    """Shows what is truly most relevant, so that the metrics are known."""

    privileged = True

    def recommend(self, simulator):
        relevance = simulator.users.long_term_relevance()
        seen = simulator.pipeline.memory.seen
        size = simulator.config.pipeline.slate_size
        return relevance.masked_fill(seen, -torch.inf).topk(size).indices


class LeastRelevant:
    privileged = True

    def recommend(self, simulator):
        relevance = -simulator.users.long_term_relevance()
        seen = simulator.pipeline.memory.seen
        size = simulator.config.pipeline.slate_size
        return relevance.masked_fill(seen, -torch.inf).topk(size).indices


def test_outcomes_do_not_depend_on_the_batch(world):
    whole = rollout(world, Defaults(world, 12), sessions=12, seed=3)
    parts = rollout(world, Defaults(world, 5), sessions=12, seed=3, batch=5)
    assert torch.equal(whole.sessions, parts.sessions)
    assert torch.equal(whole.user, parts.user)
    for name, values in whole.per_session.items():
        torch.testing.assert_close(values, parts.per_session[name], equal_nan=True, msg=name)
    torch.testing.assert_close(whole.impressions, parts.impressions)
    torch.testing.assert_close(whole.clicks, parts.clicks)
    for stage, counts in whole.funnel.items():
        torch.testing.assert_close(counts, parts.funnel[stage])


def test_policies_meet_the_same_users(world):
    team = rollout(world, Defaults(world, 16), sessions=16, seed=3)
    slates = rollout(world, MostRelevant(), sessions=16, seed=3)
    other = rollout(world, MostRelevant(), sessions=16, seed=4)
    assert torch.equal(team.user, slates.user)
    assert torch.equal(team.is_new, slates.is_new)
    assert not torch.equal(team.user, other.user)


def test_sums_agree_with_a_plain_loop(world):
    outcomes = rollout(world, MostRelevant(), sessions=4, seed=3)
    simulator, policy = Simulator(world, 4, autoreset=False), MostRelevant()
    simulator.begin(torch.arange(4), 3)
    clicks, length, reward, alive = [0.0] * 4, [0] * 4, [0.0] * 4, [True] * 4
    while any(alive):
        step = simulator.step_slate(policy.recommend(simulator))
        for row in range(4):
            if alive[row]:
                clicks[row] += float(step.metrics["clicks"][row])
                reward[row] += float(step.metrics["team_reward"][row])
                length[row] += 1
                alive[row] = not bool(step.terminated[row] | step.truncated[row])
    assert outcomes.per_session["clicks"].tolist() == pytest.approx(clicks)
    assert outcomes.per_session["length"].tolist() == pytest.approx(length)
    assert outcomes.per_session["return"].tolist() == pytest.approx(reward)
    assert outcomes.clicks.sum() == pytest.approx(sum(clicks))
    assert outcomes.impressions.sum() == pytest.approx(5 * sum(length))


def test_the_truly_best_slate_has_perfect_metrics(world):
    best = rollout(world, MostRelevant(), sessions=10, seed=0)
    for name in ("precision", "ndcg", "mrr", "hit_rate"):
        assert best.per_session[name].tolist() == pytest.approx([1.0] * 10), name
    assert best.per_session["recall"].tolist() == pytest.approx([5 / 20] * 10)
    assert best.per_session["f1"].tolist() == pytest.approx([2 * 5 / 25] * 10)
    assert best.funnel["slate"].tolist() == pytest.approx([5.0] * 10)
    worst = rollout(world, LeastRelevant(), sessions=10, seed=0)
    assert worst.per_session["precision"].max() == 0.0
    assert worst.per_session["clicks"].mean() < best.per_session["clicks"].mean()


def test_the_funnel_narrows(world):
    funnel = rollout(world, Defaults(world, 16), sessions=16, seed=0).funnel
    assert list(funnel) == ["relevant", "candidates", "scored", "slate", "clicked"]
    stages = list(funnel.values())
    # Diversity may bring in relevant items that score alone leaves out: `scored` stands apart.
    assert (funnel["candidates"] >= funnel["scored"]).all()
    for wider, narrower in pairwise([s for name, s in funnel.items() if name != "scored"]):
        assert (wider >= narrower).all()
    assert stages[0].tolist() == pytest.approx([20.0] * 16)
    assert 0 < stages[1].mean() < 20
    slates = rollout(world, MostRelevant(), sessions=4, seed=0).funnel
    assert list(slates) == ["relevant", "slate", "clicked"]


def test_without_diversity_and_exploration_the_slate_is_what_score_says(world):
    class NoDiversity(Defaults):
        def act(self, observations):
            actions = super().act(observations)
            if "ranking_0" in actions:
                space = Simulator(world, 1).action_spaces["ranking_0"]
                floor = torch.as_tensor(space.low).flatten()[-2:]  # diversity and temperature
                actions["ranking_0"] = actions["ranking_0"].clone()
                actions["ranking_0"][:, -2:] = floor
            return actions

    def moved(policy):
        funnel = rollout(world, policy, sessions=16, seed=0).funnel
        return float((funnel["scored"] - funnel["slate"]).abs().mean())

    # The lowest temperature is not zero: near ties may still fall the other way.
    assert 4 * moved(NoDiversity(world, 16)) < moved(Defaults(world, 16))


def test_components_that_decided_nothing_have_no_objective(world):
    team = rollout(world, Defaults(world, 4), sessions=4, seed=0).per_session
    slates = rollout(world, MostRelevant(), sessions=4, seed=0).per_session
    assert {"objective/profile_0", "objective/ranking_0"} <= set(team)
    assert not any(name.startswith("objective/") for name in slates)


def test_recurrent_teams_are_reset_before_each_batch(world):
    policy = Defaults(world, 4)
    rollout(world, policy, sessions=12, seed=0, batch=4)
    assert policy.resets == 3


def test_no_sessions_are_an_error(world):
    with pytest.raises(ConfigError, match="at least one"):
        rollout(world, Defaults(world, 1), sessions=0, seed=0)
