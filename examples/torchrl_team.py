"""TorchRL on this environment: every component is a group and learns by a PPO of its own.

``python examples/torchrl_team.py RUN`` learns in the environment of a run (``python train.py
configs/quick.yaml --run-dir RUN``), records what it learned as a run's folder, and compares the
two. ``evaluate.py run RUN --baselines examples.torchrl_team:trained`` sets it into the table of any
run.
"""

import sys
from pathlib import Path

import torch
from tensordict.nn import NormalParamExtractor, TensorDictModule, TensorDictSequential
from torchrl.collectors import Collector
from torchrl.modules import MLP, ProbabilisticActor, TanhNormal, ValueOperator
from torchrl.objectives import ClipPPOLoss

import marec_env
from agents import record_policy
from agents.commands.compare import command as compare
from marec_env.adapters.torchrl import SessionsEnv
from marec_env.rewards.config import DISCOUNT

WEIGHTS = Path("runs/torchrl-team.pt")
MOMENTS = ("loc", "scale")
KEYS = ("reward", "action", "done", "terminated", "value", "sample_log_prob", "advantage")


def team_of(env: SessionsEnv) -> TensorDictSequential:
    """Return a Gaussian policy for each component, squashed into [-1, 1]."""
    parts = []
    for agent in env.group_map:
        size, keys = env.action_spec[agent, "action"].shape[-1], [(agent, k) for k in MOMENTS]
        body = torch.nn.Sequential(MLP(None, 2 * size, num_cells=[64]), NormalParamExtractor())
        module = TensorDictModule(body, [(agent, "observation")], keys)
        out = {"out_keys": [(agent, "action")], "log_prob_key": (agent, "sample_log_prob")}
        out |= {"distribution_class": TanhNormal, "return_log_prob": True}
        parts.append(ProbabilisticActor(module, dict(zip(MOMENTS, keys, strict=True)), **out))
    team = TensorDictSequential(*parts)
    team(env.reset())  # sizes of layers follow from the first batch
    return team


def learn(env: SessionsEnv, iterations: int, length: int = 16) -> TensorDictSequential:
    """Collect ``length`` requests a session, descend on them four times, and so on."""
    team, losses = team_of(env), torch.nn.ModuleList()
    for agent, actor in zip(env.group_map, team, strict=True):
        keys = [(agent, "observation")], [(agent, "value")]
        critic = ValueOperator(MLP(None, 1, num_cells=[64]), *keys)
        critic(env.reset())
        loss = ClipPPOLoss(actor, critic, normalize_advantage=True, entropy_coeff=0.001)
        loss.set_keys(value_target=(agent, "target"), **{key: (agent, key) for key in KEYS})
        loss.make_value_estimator(gamma=DISCOUNT, lmbda=0.95)
        losses.append(loss)
    optimizer, frames = torch.optim.Adam(losses.parameters(), lr=1e-3), env.batch_size[0] * length
    for batch in Collector(env, team, frames_per_batch=frames, total_frames=frames * iterations):
        for agent, loss in zip(env.group_map, losses, strict=True):
            for end in ("done", "terminated"):  # a session's end is the end of the group's agent
                batch["next", agent, end] = batch["next", end].unsqueeze(-1)
            loss.value_estimator(batch)
        for _ in range(4):
            found = [loss(batch).items() for loss in losses]
            optimizer.zero_grad()
            sum(value for part in found for key, value in part if "loss_" in key).backward()
            optimizer.step()
    return team


def trained(simulator, seed):
    """Return the team that was learned here (a baseline's factory)."""
    env = SessionsEnv(simulator, actions="box")
    team = team_of(env)
    team.load_state_dict(torch.load(WEIGHTS, weights_only=True))
    return env.policy(team)


def main(run: str, iterations: int = 100, sessions: int = 64, length: int = 16) -> Path:
    """Learn in a run's environment, and return the folder of what was learned."""
    simulator = marec_env.make_vec(f"{run}/config.yaml", num_sessions=sessions)
    torch.save(
        learn(SessionsEnv(simulator, actions="box"), iterations, length).state_dict(), WEIGHTS
    )
    team, requests = trained(simulator, 0), iterations * length * sessions
    folder = record_policy(team, f"{run}/config.yaml", "torchrl-ppo", requests)
    compare([Path(run), folder], output=folder / "comparison")
    return folder


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
