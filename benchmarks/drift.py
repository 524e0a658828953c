"""Tastes change while a team serves: clicks over time of the team left alone, of teams that learn
on in two ways, and of one that was trained anew in the simulator of the changed users.

    python benchmarks/drift.py RUN --seeds 0 1 2 3 4 --output docs/results/drift.json

RUN is a finished run on the marec environment, whose team serves at first; seeds are of who visits
and of learning. In each round a learning team serves sessions, exploring, and a candidate that has
passed the gate serves a share of them; the candidate is then promoted, rolled back or waits for the
next round, before which a new one is learned where none waits (agents/loop/rounds.py): from the
logs alone (looped), or in the simulator, on the users of before the change fitted to the logs
(refitted). Learning begins when tastes have changed. All teams are measured by their most probable
actions on the same other sessions. The trained one is an oracle: it may ask the changed users as
often as it likes. With --informed N a team also learns N rounds on the changed users themselves, as
the refitted one does on those it believes in, without gate and canary: what a round's budget is
worth. What is done is kept below --work: an interrupted study goes on where it was.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agents.config import RunConfig
from agents.learners.policy import TrainedPolicy, load_policy, save_policy
from agents.learners.trainer import Trainer
from agents.loop.drift import ClickModel
from agents.loop.exposure import ExposureLog, play_log
from agents.loop.learning import keep_critics, kept_critics
from agents.loop.limits import broken_shares
from agents.loop.rounds import LoopConfig, consider, judge
from agents.loop.users import learn_on_users
from agents.runs.trained import TrainedRun, load_run
from marec_env.environment_config import EnvironmentConfig
from marec_env.evaluation.rollout import rollout
from marec_env.evaluation.statistics import mean_estimate
from marec_env.io import read_json, write_json, write_text
from marec_env.reporting.charts import Line, lines_figure
from marec_env.simulator import Simulator
from marec_env.world import World, build_world

COHORT = 2_000_003  # seed of the sessions on which teams are measured
MEMORY = 2  # rounds whose logs count, none from before a drift that was told
BEGUN = "begun"  # name of the run's team
SERVED = 3_000_017  # seed of the sessions that are served and logged


WAYS = ("looped", "refitted")


class Study:
    """One seed, and one way to learn."""

    def __init__(self, run: TrainedRun, options: argparse.Namespace, seed: int, way: str) -> None:
        self.run, self.options, self.seed, self.way = run, options, seed, way
        self.shared = options.work / run.name
        self.place = place = self.shared / f"seed{seed}" / way
        self.file = place / "rounds.json"
        self.done: list[dict[str, Any]] = (
            read_json(self.file, list[dict[str, Any]]) if self.file.exists() else []
        )
        environment = run.environment
        changes = {"fashion": options.fashion, "taste_drift": options.taste}
        changed = environment.population.model_copy(update=changes)
        drifted = environment.model_copy(update={"population": changed})
        self.environments: tuple[EnvironmentConfig, EnvironmentConfig] = (environment, drifted)

    def world(self, number: int) -> World:
        """Return the world of a round."""
        return build_world(self.environments[number >= self.options.drift_at])

    def clicks(self, world: World, policy: TrainedPolicy) -> list[float]:
        """Return clicks a session on the sessions that all teams are measured on."""
        found = rollout(world, policy, self.options.measured, COHORT, batch=self.options.measured)
        return [float(one) for one in found.per_session["clicks"]]

    def trained_anew(self) -> TrainedPolicy:
        """Return the oracle: the run's team, trained on in the changed users' simulator."""
        folder = self.shared / "oracle"
        if not (folder / "policy.json").exists():
            config: RunConfig = self.run.config
            world = build_world(self.environments[1])
            trainer = Trainer(
                config.algorithm, config.sampling, config.seed + 1, lambda n: Simulator(world, n)
            )
            trainer.begin_with(self.run.newest().trainer)
            while trainer.env_steps < self.options.oracle_steps:
                trainer.iterate()
            folder.mkdir(parents=True, exist_ok=True)
            save_policy(folder, trainer.policy().team, trainer.policy().actors)
        return load_policy(folder)

    def yardsticks(self) -> dict[str, list[list[float]]]:
        """Return clicks of the team left alone and of the oracle, before and after the change."""
        file = self.shared / "yardsticks.json"
        if not file.exists():
            before, after = (build_world(one) for one in self.environments)
            frozen, oracle = self.run.policy, self.trained_anew()
            found = {
                "frozen": [self.clicks(before, frozen), self.clicks(after, frozen)],
                "retrained": [self.clicks(before, frozen), self.clicks(after, oracle)],
            }
            write_json(file, found)
        return read_json(file, dict[str, list[list[float]]])

    def informed(self, loop: LoopConfig) -> list[float]:
        """Return mean clicks of a team after each round of learning on the changed users."""
        world, policy, found = build_world(self.environments[1]), self.run.policy, list[float]()
        critics = None
        for number in range(self.options.informed):
            seed = 1000 * self.seed + number
            actors, critics = learn_on_users(
                world, policy, loop.algorithm, loop.env_steps, seed, critics
            )
            for actor in actors.values():
                actor.eval()
            policy = TrainedPolicy(policy.team, actors)
            found.append(float(np.mean(self.clicks(world, policy))))
            print(f"informed, round {number}: {found[-1]:.2f}", flush=True)
        return found

    def play(self, loop: LoopConfig) -> None:
        """Play the rounds that are not done yet."""
        while len(self.done) < self.options.rounds:
            number = len(self.done)
            last = self.done[-1] if self.done else {"team": BEGUN, "candidate": None, "since": 0}
            fresh = dict.fromkeys(("verdict", "canary", "considered"))
            row: dict[str, Any] = {**last, **fresh, "round": number}
            if number > self.options.drift_at and not row["candidate"]:
                self._learn(row, loop.model_copy(update={"seed": 1000 * self.seed + number}))
            names = [name for name in (row["team"], row["candidate"]) if name]
            world, first = self.world(number), number * self.options.sessions
            sessions = torch.arange(first, first + self.options.sessions)
            share = round(len(sessions) * loop.canary_share) if len(names) > 1 else 0
            logs = [
                play_log(Simulator(world, len(part), autoreset=False), self._team(name), part,
                         SERVED + self.seed)
                for name, part in zip(names, (sessions[share:], sessions[:share]), strict=False)
            ]  # fmt: skip
            for name, log in zip(names, logs, strict=True):
                log.save(self._log(number, name))
            row["drift"] = self.drift(ExposureLog.joined(logs))
            if (row["drift"] or {}).get("drift"):
                row["since"] = number  # what was logged before tells of other tastes
            if row["candidate"]:
                tried = range(int(row["candidate"]), number + 1)
                served, canary = (self._known(name, tried).clicks_a_session() for name in names)
                row["verdict"], gain = judge(served, canary, loop)
                row["canary"] = None if gain is None else gain.as_json()
                if row["verdict"] == "promote":
                    row["team"] = row["candidate"]
                if row["verdict"] != "wait":
                    row["candidate"] = None
            row["clicks"] = self.clicks(world, self._team(row["team"]))
            row["served"] = float(torch.cat([log.clicks_a_session() for log in logs]).mean())
            self.done.append(row)
            write_json(self.file, self.done)
            print(
                f"seed {self.seed} round {number}: {self.way} {np.mean(row['clicks']):.2f}, "
                f"{row['verdict']} {row['canary']}",
                flush=True,
            )

    def _learn(self, row: dict[str, Any], loop: LoopConfig) -> None:
        """Let the team that serves learn from its latest logs, before a round."""
        number, name = row["round"], row["team"]
        world = self.world(number)
        rules = partial(
            broken_shares,
            config=world.config.pipeline, knowledge=world.knowledge, ids=world.catalog.ids,
        )  # fmt: skip
        before = build_world(self.environments[0]) if self.way == "refitted" else None
        latest = range(max(row["since"], number - MEMORY), number)
        found = consider(
            self._known(name, latest), self._team(name), loop, kept_critics(self.place / name),
            rules, before,
        )  # fmt: skip
        row["considered"] = found.as_json()
        print(f"seed {self.seed} round {number}: {found}", flush=True)
        if found.passed:
            row["candidate"] = f"{number:02d}"
            folder = self.place / row["candidate"]
            folder.mkdir(parents=True, exist_ok=True)
            save_policy(folder, found.policy.team, found.policy.actors)
            keep_critics(folder, found.critics)

    def _team(self, name: str) -> TrainedPolicy:
        return self.run.policy if name == BEGUN else load_policy(self.place / name)

    def _log(self, number: int, team: str) -> Path:
        return self.place / f"log-{number:02d}-{team}.safetensors"

    def _known(self, team: str, rounds: range) -> ExposureLog:
        """Return what a team has served in some rounds."""
        places = [self._log(number, team) for number in rounds]
        return ExposureLog.joined([ExposureLog.load(one) for one in places if one.exists()])

    def drift(self, log: ExposureLog) -> dict[str, Any] | None:
        """Return what a round's log says of a drift since the last that was told, or the first."""
        told = [row["round"] for row in self.done if (row["drift"] or {}).get("drift")]
        if not self.done:
            return None
        fitted_on = told[-1] if told else 0
        places = sorted(self.place.glob(f"log-{fitted_on:02d}-*.safetensors"))
        model = ClickModel.of(ExposureLog.joined([ExposureLog.load(one) for one in places]))
        return model.calibration(log).as_json()

    def summary(self) -> list[dict[str, Any]]:
        """Return the mean of each round and paired differences to the team left alone."""
        sticks, rounds = self.yardsticks(), []
        for row in self.done:
            after = int(row["round"] >= self.options.drift_at)
            frozen, clicks = np.array(sticks["frozen"][after]), np.array(row["clicks"])
            rounds.append(
                {
                    "clicks": clicks.mean(),
                    "clicks - frozen": mean_estimate(clicks - frozen).as_json(),
                    "served": row["served"],
                    "drift": row["drift"],
                    "verdict": row["verdict"],
                    "canary": row["canary"],
                    "gain_to_go": (row["considered"] or {}).get("gain_to_go"),
                    "failed": (row["considered"] or {}).get("failed"),
                }
            )
        return rounds


def figure(found: dict[str, Any], drift_at: int) -> str:
    """Return the picture: means over seeds, and each seed of those that learn on."""
    seeds = found["seeds"]
    ways = [way for way in WAYS if way in seeds[0]]
    rounds = min(len(seed[way]) for seed in seeds for way in ways)
    x = np.arange(rounds)
    sticks = found["yardsticks"]
    lines = {
        "retrained": Line(x, np.array([sticks["retrained"][int(k >= drift_at)] for k in x])),
        **{way: _line(x, [[r["clicks"] for r in s[way][:rounds]] for s in seeds]) for way in ways},
        "frozen": Line(x, np.array([sticks["frozen"][int(k >= drift_at)] for k in x])),
    }
    caption = (
        f"Clicks a session before and after tastes changed (before round {drift_at}): mean over "
        f"{len(seeds)} seeds, each seed of those that learn on in thin lines."
    )
    labels = "round", "clicks a session"
    return lines_figure(lines, labels, caption, ticks=[str(n) for n in range(rounds)]).svg


def _line(x: Any, seeds: list[list[float]]) -> Line:
    values = np.array(seeds)
    return Line(x, values.mean(axis=0), seeds=values)


def main() -> None:
    """Play what is missing, and write the report and its figure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--output", type=Path, default=Path("drift.json"))
    parser.add_argument("--work", type=Path, default=Path("drift"))
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--sessions", type=int, default=512, help="served in a round")
    parser.add_argument("--measured", type=int, default=192, help="sessions teams are measured on")
    parser.add_argument("--drift-at", type=int, default=1, help="first round of the changed users")
    parser.add_argument("--fashion", type=float, default=2.0)
    parser.add_argument("--taste", type=float, default=0.5)
    parser.add_argument("--oracle-steps", type=int, default=160_000)
    parser.add_argument("--informed", type=int, default=0, metavar="N")
    parser.add_argument("--canary-share", type=float, default=0.5)
    parser.add_argument("--gate", type=float, default=-0.02, help="share that a bound must exceed")
    parser.add_argument("--canary-most", type=int, default=512, help="sessions of a candidate")
    parser.add_argument("--passes", type=int, default=8, help="updates from each log")
    parser.add_argument("--env-steps", type=int, default=160_000, help="on refitted users, a round")
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = LoopConfig(
        canary_share=options.canary_share, canary_most=options.canary_most, gate=options.gate,
        passes=options.passes, env_steps=options.env_steps,
    )  # fmt: skip
    run, seeds = load_run(options.run), []
    left_out = ("run", "seeds", "ways", "output", "work")
    document: dict[str, Any] = {
        "settings": {key: value for key, value in vars(options).items() if key not in left_out},
        "loop": config.model_dump(mode="json"),
    }
    for seed in options.seeds:
        found: dict[str, Any] = {"seed": seed}
        for way in options.ways:
            study = Study(run, options, seed, way)
            study.play(config)
            found[way] = study.summary()
            sticks = study.yardsticks()
        seeds.append(found)
        means = {name: [float(np.mean(one)) for one in both] for name, both in sticks.items()}
        document |= {"yardsticks": means, "seeds": seeds}
        if options.informed and "informed" not in document:
            document["informed"] = study.informed(config)
        write_json(options.output, document)
        write_text(options.output.with_suffix(".svg"), figure(document, options.drift_at))


if __name__ == "__main__":
    main()
