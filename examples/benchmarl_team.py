"""BenchMARL on this environment: its MAPPO, IPPO, QMIX, VDN, ... train the components.

``python examples/benchmarl_team.py RUN [REQUESTS SEED ALGORITHM]`` learns in the environment of a
run (``python train.py configs/quick.yaml --run-dir RUN``), records what it learned as a run's
folder, and compares the two.
"""

import sys
from pathlib import Path

from benchmarl.algorithms import algorithm_config_registry
from benchmarl.experiment import Experiment, ExperimentConfig
from benchmarl.models import MlpConfig

from agents import record_policy
from agents.commands.compare import command as compare
from marec_env.adapters.benchmarl import PipelineTask
from marec_env.rewards.config import DISCOUNT

SCRATCH = Path("runs/benchmarl")
EPOCHS, PARTS = 10, 4


def settings(sessions: int, length: int) -> dict[str, float]:
    """Return what differs from BenchMARL's defaults, which are of longer runs."""
    frames = sessions * length
    return {
        "gamma": DISCOUNT,
        "lr": 3e-4,
        "on_policy_n_envs_per_worker": sessions,
        "on_policy_collected_frames_per_batch": frames,
        "on_policy_n_minibatch_iters": EPOCHS,
        "on_policy_minibatch_size": frames // PARTS,
        "off_policy_n_envs_per_worker": sessions,
        "off_policy_collected_frames_per_batch": frames,
        "off_policy_n_optimizer_steps": EPOCHS * PARTS,
        "off_policy_train_batch_size": frames // PARTS,
        "off_policy_memory_size": 50_000,
    }


def main(
    run: str, requests: int = 200_000, seed: int = 0, algorithm: str = "mappo",
    sessions: int = 64, length: int = 32,
) -> Path:  # fmt: skip
    """Learn in a run's environment, and return the folder of what was learned."""
    config, chosen = ExperimentConfig.get_from_yaml(), settings(sessions, length)
    SCRATCH.mkdir(parents=True, exist_ok=True)
    plain = {"loggers": [], "create_json": False, "evaluation": False, "max_n_frames": requests}
    for key, value in {**chosen, **plain, "save_folder": str(SCRATCH)}.items():
        setattr(config, key, value)
    experiment = Experiment(
        task=PipelineTask(f"{run}/config.yaml"),
        algorithm_config=algorithm_config_registry[algorithm].get_from_yaml(),
        model_config=MlpConfig.get_from_yaml(),
        critic_model_config=MlpConfig.get_from_yaml(),
        seed=seed,
        config=config,
    )
    experiment.run()
    team = experiment.task.policy(experiment)
    name = f"benchmarl-{algorithm}"
    folder = record_policy(team, f"{run}/config.yaml", name, requests, seed=seed, settings=chosen)
    compare([Path(run), folder], output=folder / "comparison")
    return folder


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:4]), *sys.argv[4:])
