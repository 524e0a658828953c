"""A run on another's environment is evaluated: returns against random play, episode by episode."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from gymnasium import spaces
from pettingzoo import ParallelEnv

from agents.baselines import RandomTeam
from agents.commands import compare, evaluate, train
from agents.comparison.runs import TRAINED
from agents.pettingzoo_adapter import PettingZooVectorEnv
from agents.pettingzoo_rollout import play_episodes
from agents.runs.metrics_log import read_metrics
from marec_env.errors import ConfigError

FORBIDDEN = 2


class Paying(ParallelEnv):
    """Episodes of 2 to 5 steps; ``left`` is paid 1 for action 1 of the two allowed ones, ``right``
    four times what it says.
    """

    metadata = {"name": "paying"}  # noqa: RUF012 - PettingZoo's form
    possible_agents = ["left", "right"]  # noqa: RUF012

    def observation_space(self, agent):
        return spaces.Box(-1, 1, (1,), np.float32)

    def action_space(self, agent):
        return spaces.Discrete(3) if agent == "left" else spaces.Box(0, 1, (1,), np.float32)

    def _views(self):
        mask = np.array([1, 1, 0], np.int8)
        infos = {"left": {"action_mask": mask}, "right": {}}
        return {agent: np.ones(1, np.float32) for agent in self.agents}, infos

    def reset(self, seed=None, options=None):
        self.agents = list(self.possible_agents)
        self.left = int(np.random.default_rng(seed).integers(2, 6))
        return self._views()

    def step(self, actions):
        assert actions["left"] != FORBIDDEN
        self.left -= 1
        paid = {"left": float(actions["left"] == 1), "right": 4.0 * float(actions["right"][0])}
        over = dict.fromkeys(self.agents, self.left == 0)
        views, infos = self._views()
        self.agents = [] if self.left == 0 else self.agents
        return views, paid, over, dict.fromkeys(paid, False), infos


def paying():
    return Paying()


CONFIG = {
    "environment": {
        "kind": "pettingzoo",
        "entry_point": f"{__name__}:paying",
        "num_envs": 3,
    },
    "algorithm": {"epochs": 2},
    "sampling": {"num_sessions": 4, "rollout_length": 8},
    "training": {"env_steps": 64},
    "evaluation": {"sessions": 7, "every": 32},
    "tracking": {"wandb": "disabled"},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("paying")
    (folder / "paying.yaml").write_text(yaml.safe_dump(CONFIG))
    places = [folder / f"seed{seed}" for seed in (0, 1)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAREC_ALLOW_PLUGINS", "1")
        for seed, place in enumerate(places):
            assert train.start_run(str(folder / "paying.yaml"), [f"seed={seed}"], place) == 0
    return places


def test_episodes_are_the_same_however_many_are_played_at_once():
    found = []
    for copies in (1, 3):
        env = PettingZooVectorEnv(paying, copies)
        found.append(play_episodes(env, RandomTeam(env.action_spaces), 7, seed=5))
    one, three = (result.per_session for result in found)
    assert set(one) == {"return", "return/left", "return/right", "length"}
    for name in one:
        assert torch.equal(one[name], three[name]), name
    assert one["length"].min() >= 2
    assert len(one["length"].unique()) > 1
    torch.testing.assert_close(one["return"], (one["return/left"] + one["return/right"]) / 2)
    assert one["return/right"].mean() > one["return/left"].mean() > 0
    other = play_episodes(env, RandomTeam(env.action_spaces), 7, seed=6)
    assert not torch.equal(other.per_session["length"], one["length"])


def test_a_run_is_evaluated_as_it_trains_and_at_its_end(runs: list[Path]) -> None:
    found = json.loads((runs[0] / "evaluation.json").read_text())
    team, random = found["policies"][TRAINED]["outcomes"], found["policies"]["random"]["outcomes"]
    assert (found["sessions"], found["reference"]) == (7, "random")
    assert team["length"]["mean"] == random["length"]["mean"]
    gap = team["return/right"]["mean"] - random["return/right"]["mean"]
    assert team["return/right"]["difference"]["mean"] == pytest.approx(gap)
    rows = read_metrics(runs[0] / "metrics.jsonl")
    assert [row["env_steps"] for row in rows if "evaluation/return" in row] == [32, 64]
    assert rows[-1]["evaluation/return"] == pytest.approx(team["return"]["mean"])
    assert rows[0]["evaluation/return/random"] == pytest.approx(random["return"]["mean"])
    assert list((runs[0] / "best").iterdir())
    page = (runs[0] / "report.html").read_text()
    for told in ("Return an episode, of each agent", "return an episode, mean of agents",
                 "same 7 episodes", "Paired difference to random, the best by return"):  # fmt: skip
        assert told in page
    for untold in ("clicks", "oracle", "User outcomes"):
        assert untold not in page


def test_it_is_evaluated_again_and_compared_by_seed(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("MAREC_ALLOW_PLUGINS", "1")
    evaluate.command([runs[0]], sessions=4)
    again = json.loads((runs[0] / "evaluation-4sessions.json").read_text())
    assert again["policies"]["random"]["outcomes"]["return"]["sessions"] == 4
    with pytest.raises(ConfigError, match=r"static recommend items.*'random' plays there"):
        evaluate.command([runs[0]], baselines="static")
    compare.command(runs, output=tmp_path)
    assert "return an episode, mean of agents" in " ".join(capsys.readouterr().out.split())
    found = json.loads((tmp_path / "comparison.json").read_text())
    [team] = found["experiments"].values()
    means = [
        json.loads((run / "evaluation.json").read_text())["policies"][TRAINED]["outcomes"]
        for run in runs
    ]
    assert team["values"]["return"]["by_seed"] == [one["return"]["mean"] for one in means]
    assert list(found["policies"]) == ["random"]
    assert found["profile"]["quantity"] == "return"
