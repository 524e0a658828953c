import pytest
import torch

from marec_env.errors import ConfigError
from marec_env.pipeline.config import PipelineConfig
from marec_env.pipeline.profile import Profile
from marec_env.pipeline.ranking import Feature, Ranking
from marec_env.pipeline.recall import Recall
from marec_env.rewards import RewardConfig, TeamReward

NOTHING = torch.zeros(2)


def team_of(**changes):
    components = [kind(PipelineConfig()) for kind in (Profile, Recall, Feature, Ranking)]
    return TeamReward(RewardConfig(**changes), components)


def own_term(outcome):
    """A user's own: 1 in the first session."""
    return torch.tensor([1.0, 0.0])


def test_default_objectives_are_those_of_the_components(outcome):
    outcome.request.compute_cost = torch.tensor([0.2, 0.9])
    found = team_of().score(outcome)[0]
    assert found["profile_0"].tolist() == [0.5, 0.5]
    assert found["recall_0"].tolist() == pytest.approx([2 / 3, 2 / 3])
    assert found["feature_0"].tolist() == pytest.approx([0.3, 0.0]), "clipped at 0"
    assert found["ranking_0"].tolist() == pytest.approx([2 / 3, 0.0])


def test_the_team_objective_by_hand(outcome):
    outcome.request.extra_cost = torch.tensor([0.25, 0.0])
    _, total, _ = team_of().score(outcome)
    first = 0.02 * 0.5 + 0.02 * 2 / 3 + 0.02 * 0.5 + 2 / 3 + 0.1 * 1 - 0.25
    second = 0.02 * 0.5 + 0.02 * 2 / 3 + 0.02 * 0.5 + 0 + 0 - 0
    assert total.tolist() == pytest.approx([first, second])


def test_diagnostics_cannot_outweigh_the_outcome():
    config = RewardConfig()
    diagnostics = sum(weight for name, weight in config.weights.items() if name != "ranking")
    # One click of ten more is worth more than all that the diagnostics can gain together.
    assert diagnostics <= config.weights["ranking"] * 0.1
    assert config.team["retention"] > 0


def test_configured_objectives_and_weights(outcome):
    team = team_of(
        objectives={"recall": {"diversity": 0.5, f"{__name__}:own_term": 0.25}},
        weights={"recall": 2.0},
        team={},
    )
    objectives, total, _ = team.score(outcome)
    assert objectives["recall_0"].tolist() == pytest.approx([2 / 9 + 0.25, 2 / 9])
    assert total.tolist() == pytest.approx([4 / 9 + 0.5, 4 / 9])


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("own", [0.3, 0.6]),
        ("shared", [0.9, 0.9]),
        ("mix", [0.75, 0.825]),
        ("difference", [0.5, 0.9]),
    ],
)
def test_modes(mode, expected):
    team = team_of(mode=mode, mix=0.25)
    rewards = team.rewards(
        {"profile_0": torch.full((2,), 0.3), "recall_0": torch.full((2,), 0.6)},
        torch.full((2,), 0.9),
        {"profile_0": torch.full((2,), 0.4), "recall_0": NOTHING},
        NOTHING,
    )
    assert [rewards[agent][0].item() for agent in ("profile_0", "recall_0")] == pytest.approx(
        expected
    )


@pytest.mark.parametrize("mode", ["own", "shared", "mix", "difference"])
def test_shaping_is_added_in_every_mode(mode):
    arguments = ({"profile_0": NOTHING}, NOTHING, {"profile_0": NOTHING})
    rewards = team_of(mode=mode).rewards(*arguments, torch.tensor([0.5, -1.0]))
    assert rewards["profile_0"].tolist() == [0.5, -1.0]


def test_unknown_names_are_refused():
    with pytest.raises(ConfigError, match="reward term 'engagment' is unknown; did you mean"):
        team_of(team={"engagment": 1.0})
    with pytest.raises(ConfigError, match=r"rewards.objectives: component 'rank' is unknown"):
        team_of(objectives={"rank": {"engagement": 1.0}})
    with pytest.raises(ConfigError, match=r"rewards.weights: component 'recal' is unknown"):
        team_of(weights={"recal": 1.0})
    with pytest.raises(ConfigError, match="cannot import 'nowhere'"):
        team_of(team={"nowhere:term": 1.0})
