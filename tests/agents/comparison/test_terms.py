"""Whatever term is configured, it is shown by its name wherever numbers of a policy are."""

import pytest

from agents.comparison import tables
from agents.comparison.report import as_page, run_page
from agents.comparison.runs import TRAINED
from agents.comparison.summary import summarise
from agents.config import MAPPOConfig, SamplingConfig
from agents.learners.trainer import Trainer
from marec_env.environment_config import EnvironmentConfig
from marec_env.evaluation.comparison import compare_outcomes
from marec_env.evaluation.rollout import rollout
from marec_env.simulator import Simulator
from marec_env.world import build_world
from tests.worlds import small_environment


def half_clicked(outcome):
    """A term of one's own."""
    return (outcome.feedback.clicks.mean(1) >= 0.5).float()


OWN = f"{__name__}:half_clicked"
REWARDS = {
    "objectives": {"ranking": {"engagement": 0.5, OWN: 0.5}},
    "team": {"retention": 0.1, "extra_cost": -1.0, OWN: 0.2},
}
TERMS = {"engagement", "retention", "extra_cost", OWN, "recall", "probe_quality"}


@pytest.fixture(scope="module")
def world():
    return build_world(EnvironmentConfig.model_validate(small_environment(rewards=REWARDS)))


class Defaults:
    """The hand-set pipeline."""

    def __init__(self, world):
        self.actions = Simulator(world, 8).default_actions()

    def reset(self):
        pass

    def act(self, observations):
        return {agent: self.actions[agent] for agent in observations}


class First:
    """A recommender of slates."""

    privileged = False

    def recommend(self, simulator):
        size = simulator.config.pipeline.slate_size
        return simulator.pipeline.memory.seen.float().topk(size, largest=False).indices


def test_f_is_the_weighted_sum_of_the_terms_shown(world):
    """Of a request, and of a session: also for recommenders of whole slates."""
    weights = world.config.rewards.weights
    for policy in (Defaults(world), First()):
        found = rollout(world, policy, sessions=8, seed=0).per_session
        mean = {name.removeprefix("term/"): v for name, v in found.items() if "term/" in name}
        assert set(mean) >= TERMS
        parts = {
            "profile": mean["probe_quality"],
            "recall": mean["recall"],
            "ranking": 0.5 * (mean["engagement"] + mean[OWN]),
        }
        team = sum(weights[name] * part for name, part in parts.items())
        team = team + 0.1 * mean["retention"] - mean["extra_cost"] + 0.2 * mean[OWN]
        rest = found["return"] / found["length"] - team  # f_feature, which is clipped
        assert bool((rest >= -1e-5).all())
        assert bool((rest <= weights["feature"] + 1e-5).all())


def test_tables_and_pages_name_every_term(world, make_run):
    policies = {TRAINED: Defaults(world), "first": First()}
    outcomes = {name: rollout(world, p, sessions=8, seed=0) for name, p in policies.items()}
    found = compare_outcomes(outcomes, ("first",))
    run, again = (make_run(found=found.as_dict(), seed=seed) for seed in (0, 1))
    summary = summarise([run])
    table = tables.terms_table(summary)
    assert set(table.header[2:]) >= TERMS
    assert [row[0] for row in table.rows] == ["mappo", "first"]
    assert all(cell != "-" for row in table.rows for cell in row[2:])
    for page in (run_page(run), as_page(summarise([run, again]), "t", "x")):
        assert "Reward terms" in page
    assert f">{OWN}</th>" in run_page(run)
    assert tables.further_table(summary) is None or OWN not in str(tables.further_table(summary))


def test_metrics_of_a_run_have_every_term(world):
    sampling = SamplingConfig(num_sessions=8, rollout_length=6)
    trainer = Trainer(MAPPOConfig(epochs=1), sampling, 0, lambda count: Simulator(world, count))
    metrics = trainer.iterate()
    assert metrics.keys() >= {f"term/{name}" for name in TERMS}
    assert metrics.keys() >= {f"episode/term/{name}_per_request" for name in TERMS}


def test_f_says_in_what_it_is_wherever_it_stands(world, make_run):
    """A session's sum and a request's mean are two columns that nobody takes for one another."""
    team = rollout(world, Defaults(world), sessions=8, seed=0)
    found = compare_outcomes({TRAINED: team}, ())
    summary = summarise([make_run(found=found.as_dict())])
    assert "F a session" in tables.outcomes_table(summary).header
    assert "F a request" in tables.further_table(summary).header
