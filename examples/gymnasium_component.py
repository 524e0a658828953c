"""One component as a Gymnasium vector environment, and forty lines that learn in it (REINFORCE).

The ranking learns, the other components play their hand-set defaults. ``python
examples/gymnasium_component.py RUN`` learns in the environment of a run (``python train.py
configs/quick.yaml --run-dir RUN``), records what it learned as a run's folder, and compares the
two. ``evaluate.py run RUN --baselines examples.gymnasium_component:trained`` sets it into the table
of any run.
"""

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

import marec_env
from agents import record_policy
from agents.commands.compare import command as compare
from marec_env.adapters.gym import TeamVectorEnv
from marec_env.evaluation.policies import TeamPolicy
from marec_env.rewards.config import DISCOUNT
from marec_env.simulator import Simulator

WEIGHTS = Path("runs/gymnasium-ranking.pt")


def network(envs: TeamVectorEnv) -> nn.Module:
    """Return the mean action for an observation; the spread of what is tried is fixed."""
    size, count = envs.single_observation_space.shape[0], envs.single_action_space.shape[0]
    return nn.Sequential(nn.Linear(size, 64), nn.Tanh(), nn.Linear(64, count), nn.Tanh())


def learn(envs: TeamVectorEnv, iterations: int, length: int = 16, spread: float = 0.3) -> nn.Module:
    """Follow the policy's gradient on returns to go, less their mean over sessions."""
    torch.manual_seed(0)
    actor = network(envs)
    optimizer = torch.optim.Adam(actor.parameters(), lr=1e-3)
    seen = envs.reset(seed=0)[0]
    for iteration in range(iterations):
        logs: list[Tensor] = []
        rewards, going = [], []
        for _ in range(length):
            choice = torch.distributions.Normal(actor(torch.from_numpy(seen)), spread)
            action = choice.sample()
            logs.append(choice.log_prob(action).sum(1))
            seen, reward, ended, cut, _ = envs.step(action.clamp(-1, 1).numpy())
            rewards.append(torch.from_numpy(reward))
            going.append(torch.from_numpy(~(ended | cut)))
        to_go, loss = torch.zeros(envs.num_envs), torch.zeros(())
        for log, reward, goes_on in zip(logs[::-1], rewards[::-1], going[::-1], strict=True):
            to_go = reward.float() + DISCOUNT * to_go * goes_on
            loss = loss - (log * (to_go - to_go.mean())).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"iteration {iteration}: {torch.stack(rewards).mean():.3f} a request")
    return actor


def trained(simulator: Simulator, seed: int) -> TeamPolicy:
    """Return the team whose ranking was learned here (a baseline's factory)."""
    envs = TeamVectorEnv(simulator, "ranking_0")
    actor = network(envs)
    actor.load_state_dict(torch.load(WEIGHTS, weights_only=True))
    return envs.policy(lambda seen: actor(torch.from_numpy(seen)).detach().numpy())


def main(run: str, iterations: int = 200, sessions: int = 64, length: int = 16) -> Path:
    """Learn in a run's environment, and return the folder of what was learned."""
    simulator = marec_env.make_vec(f"{run}/config.yaml", num_sessions=sessions)
    actor = learn(TeamVectorEnv(simulator, "ranking_0"), iterations, length)
    WEIGHTS.parent.mkdir(exist_ok=True)
    torch.save(actor.state_dict(), WEIGHTS)
    team, requests = trained(simulator, 0), iterations * length * sessions
    folder = record_policy(team, f"{run}/config.yaml", "reinforce", requests)
    compare([Path(run), folder], output=folder / "comparison")
    return folder


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
