"""Users of the simulator visit a running service, which learns from them: over HTTP, end to end."""

import asyncio
import contextlib
import dataclasses
import json
import shutil
import socket
import threading
from pathlib import Path

import pytest
import torch

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

import uvicorn

from agents.cli import main
from agents.learners.policy import TrainedPolicy
from agents.loop.drift import Calibration
from agents.loop.exposure import ExposureLog, play_log
from agents.loop.learning import keep_critics
from agents.loop.rounds import LoopConfig
from agents.loop.schedule import Schedule
from agents.loop.visit import Service, visit
from agents.service.app import make_app
from agents.service.bundle import Bundle, load_bundle, save_bundle
from agents.service.config import ServiceConfig
from marec_env.errors import DataError, RunError
from marec_env.evaluation.rollout import rollout
from marec_env.simulator import Simulator
from tests.agents.service.conftest import small_team
from tests.worlds import small_environment

SESSIONS, SEED = 24, 5


@contextlib.contextmanager
def running(bundles, database, **settings):
    """Serve bundles at a port of this machine; return where."""
    app = make_app(bundles, database, ServiceConfig(**settings))
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def visited(url, world, concurrency, policy=None, sessions=range(SESSIONS)):
    async def go():
        async with Service(url, connections=concurrency) as service:
            return await visit(service, world, sessions, SEED, concurrency, policy)

    return asyncio.run(go())


@pytest.fixture(scope="module")
def team():
    return small_team()


@pytest.fixture(scope="module")
def place(team, tmp_path_factory):
    folder = tmp_path_factory.mktemp("loop") / "team"
    save_bundle(Bundle.of(*team), folder)
    return folder


def test_clicks_served_are_clicks_simulated_whoever_else_is_there(team, place, tmp_path):
    world, policy = team
    simulated = rollout(world, policy, SESSIONS, SEED)
    with running([place], tmp_path / "plain.sqlite") as url:
        for concurrency in (5, 24):
            found = visited(url, world, concurrency)
            assert found.clicks == simulated.per_session["clicks"].tolist()
            assert found.length == simulated.per_session["length"].tolist()
            assert found.left == (simulated.per_session["stayed"] == 0).tolist()
            assert found.policy == ["team"] * SESSIONS
            assert len(found.waits) == sum(found.length)
        static = visited(url, world, 24, policy="static")
        assert static.policy == ["static"] * SESSIONS
        assert static.clicks != found.clicks
        other = visited(url, world, 3, sessions=[7, 3])
        assert other.clicks == [found.clicks[7], found.clicks[3]]


def test_who_does_not_answer_and_what_does_not_fit_is_told(team, place, tmp_path, monkeypatch):
    world, _ = team
    monkeypatch.setattr("agents.loop.visit._TRIES", 1)
    with pytest.raises(RunError, match=r"http://127\.0\.0\.1:9 does not answer"):
        visited("http://127.0.0.1:9", world, 2)
    with running([place], tmp_path / "other.sqlite") as url:
        with pytest.raises(RunError, match="404: there is no policy 'nobody'"):
            visited(url, world, 2, policy="nobody")
        small = world.config.pipeline.model_copy(update={"slate_size": 3})
        config = world.config.model_copy(update={"pipeline": small})
        with pytest.raises(DataError, match="they expect 3"):
            visited(url, dataclasses.replace(world, config=config), 2)


def test_a_team_learns_from_its_visitors_and_is_swapped(team, place, tmp_path, capsys):
    """Visit, read the log, learn by command; then the loop: gate, canary, verdict.

    Visitors come one after another, so that all estimates are the same in every run.
    """
    world, policy = team
    quick = [
        "--set", "passes=1", "--set", "critic_passes=1", "--set", "fewest_sessions=10",
        "--set", "gate=-0.9", "--set", "canary_sessions=4", "--set", "canary_most=4",
        "--set", "algorithm.epochs=1",
        "--set", "held_out=0.5", "--set", "canary_share=0.5", "--set", "limits=1",
    ]  # fmt: skip
    database, log = tmp_path / "loop.sqlite", tmp_path / "log.safetensors"
    with running([place], database, explore=True) as url:
        visited(url, world, 1)
        about = ["--idle", "0", "--longest", str(world.config.max_requests)]
        assert main(["events", url, str(log), *about]) == 0
        read = ExposureLog.load(log)
        simulated = play_log(
            Simulator(world, SESSIONS, autoreset=False), policy, torch.arange(SESSIONS), SEED
        )
        # The service names sessions as it likes; what happened in them is what was simulated.
        assert sorted(read.clicks_a_session().tolist()) == sorted(
            simulated.clicks_a_session().tolist()
        )
        for agent, log_p in simulated.log_probabilities.items():
            torch.testing.assert_close(
                read.log_probabilities[agent].sum(1).sort().values, log_p.sum(1).sort().values
            )
        new = place.parent / "learned"
        command = ["train", "--from-log", str(log), "--init-from", str(place), "--run-dir"]
        assert main([*command, str(new), *quick]) == 0
        assert "passes the gate" in capsys.readouterr().err
        learned = load_bundle(new)
        assert learned.version != load_bundle(place).version
        assert isinstance(learned.policy, TrainedPolicy)
        users = tmp_path / "users.yaml"
        users.write_text(json.dumps({"environment": small_environment()}))
        on_users = ["--users", str(users), "--set", "env_steps=1"]
        fitted = place.parent / "fitted"
        assert main([*command, str(fitted), *quick, *on_users]) == 0
        capsys.readouterr()
        assert len({load_bundle(one).version for one in (place, new, fitted)}) == 3
        assert main(["train", str(users), "--users", str(users)]) == 2
        assert "give --from-log EVENTS too" in capsys.readouterr().err
        quiet = [
            "privacy.steps=2", "critic_passes=0", "algorithm.normalise_advantages=none",
            "algorithm.normalise_values=false",
        ]  # fmt: skip
        private = [word for setting in quiet for word in ("--set", setting)]
        veiled = place.parent / "veiled"
        assert main([*command, str(veiled), *private]) == 0
        assert load_bundle(veiled).privacy.startswith("learned from a log: ε = ")
        statement = json.loads(Path(f"{veiled}.json").read_text())["privacy"]
        assert 7.9 < statement["epsilon"] <= 8.0
        assert main([*command, str(place.parent / "no"), *private, "--users", str(users)]) == 2
        assert "leave privacy or --users out" in capsys.readouterr().err
        assert main(["loop", url, str(place), *private]) == 2
        assert "without noise" in capsys.readouterr().err
        assert main(["value", str(log), str(new)]) == 0
        assert "DR, gain a request" in capsys.readouterr().out

        rounds = ["loop", url, str(place), "--idle", "0", "--every", "0", "--rounds", "1", *quick]
        assert main(rounds) == 0
        told = capsys.readouterr().err
        assert "team-1: passes the gate" in told
        assert "clicks of 24 sessions are what later ones are held against" in told

        def shares():
            async def ask():
                async with Service(url) as service:
                    return (await service.call("GET", "/policies"))["policies"]

            return {one["name"]: one["share"] for one in asyncio.run(ask()) if one["share"]}

        assert shares() == {"team": 0.5, "team-1": 0.5}
        assert main(rounds) == 0
        assert "team-1: " in (told := capsys.readouterr().err) and "promote" not in told
        assert set(visited(url, world, 1, sessions=range(30, 70)).policy) == {"team", "team-1"}
        assert main(rounds) == 0
        said = capsys.readouterr().err
        assert "(40 sessions): gap" in said
        assert "promote" in said or "roll back" in said
        assert shares() == {"team-1" if "promote" in said else "team": 1.0}
        visited(url, world, 1, sessions=range(80, 104))
        assert main([*rounds, *on_users]) == 0
        assert "team-2: passes the gate" in capsys.readouterr().err
        assert shares()["team-2"] == 0.5
    assert main(["events", str(database), str(log), "--replace", "--policy", "none"]) == 2
    assert "no session" in capsys.readouterr().err
    progress = json.loads(Path(f"{place}.loop.json").read_text())
    history, [window, _] = progress["history"], progress["drift"]
    assert window["sessions"] == 40 and window["gap"]["low"] <= window["gap"]["high"]
    assert [row["candidate"] for row in history] == ["team-1", "team-1", "team-2"]
    served = float(simulated.clicks_a_session().mean())
    assert history[0]["clicks_a_session"]["value"] == pytest.approx(served)
    assert history[1]["verdict"] in ("promote", "roll back")


def test_sessions_before_a_drift_teach_no_more_and_critics_go_on(
    team, place, tmp_path, monkeypatch
):
    """Round by round, who is learned from and with which critics; the third window drifts."""
    mine = tmp_path / place.name
    shutil.copytree(place, mine)
    keep_critics(mine, {"critic": {"weight": torch.tensor([3.0])}})
    learned_from = []

    def consider(log, served, config, critics, *others):
        learned_from.append((len(log.key), critics["critic"]["weight"].tolist()))
        raise DataError("nobody learns here")

    monkeypatch.setattr("agents.loop.schedule.consider", consider)
    monkeypatch.setattr(Calibration, "drift", property(lambda window: window.sessions == 7))
    progress, config = tmp_path / "loop.json", LoopConfig(fewest_sessions=4)
    with running([mine], tmp_path / "loop.sqlite", explore=True) as url:
        for sessions in (range(10), range(10, 16), range(16, 23), range(23, 28)):
            visited(url, team[0], 4, sessions=sessions)
            schedule = Schedule(url, mine, config, progress, 0.0, None)  # as in a new process
            assert "nobody learns here" in asyncio.run(schedule.round())
    assert learned_from == [(n, [3.0]) for n in (10, 16, 7, 12)]
