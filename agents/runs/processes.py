"""Several runs at once, each in a process and a folder of its own, behind one display."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from agents.runs.progress import Progressing, SetDisplay, State
from agents.runs.train_loop import INTERRUPTED, on_signals
from marec_env.shipped import typed

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_ROOT = str(Path(__file__).resolve().parents[2])
_LOOK = 0.5  # seconds between looks at what the runs have written
_ENDS: dict[int, State] = {0: "done", INTERRUPTED: "stopped"}
_TOLD = ("warning: ", "W&B", "TensorBoard", "trackio")
"""How lines begin that a run's process says and the user is to see, once."""


@dataclass(eq=False)
class PlannedRun:
    """One of several runs, and how it ended."""

    config: str
    """YAML file or preset."""
    settings: tuple[str, ...]
    """``section.key=value`` each, the seed among them."""
    group: str
    """Of the dashboards."""
    place: Path
    """Its folder."""
    env_steps: int
    """To train on."""
    progress: Progressing = field(init=False)
    code: int | None = None
    """Exit code; ``None`` as long as it has not ended, or where it never began."""
    error: str = ""
    """What it said of why it failed."""

    def __post_init__(self) -> None:
        self.progress = Progressing(self.place, self.env_steps)

    @property
    def again(self) -> str:
        """The command that continues the run, or begins it where it left no folder."""
        if (self.place / "config.yaml").is_file():
            return f"{typed('train')} --resume {shlex.quote(str(self.place))}"
        settings = [part for one in self.settings for part in ("--set", one)]
        return f"{typed('train')} {shlex.join([self.config, *settings])}"


def train_processes(
    runs: Sequence[PlannedRun], jobs: int, shared: Path, environment: Mapping[str, str]
) -> bool:
    """Train runs, ``jobs`` of them at a time, each in a process with one thread; return whether
    they were stopped.

    A run that fails does not stop the others; Ctrl-C stops all, each with a checkpoint.

    Args:
        runs: how each ended is written into it.
        jobs: processes at once.
        shared: folder of what came of baselines, which the runs share.
        environment: variables of the processes.
    """
    running: list[subprocess.Popen[str]] = []
    starting, stopping = threading.Lock(), threading.Event()
    path = os.pathsep.join(filter(None, (_ROOT, environment.get("PYTHONPATH"))))
    variables = {**environment, **dict.fromkeys(_THREADS, "1"), "PYTHONPATH": path}

    def stop(number: int, frame: object) -> None:
        stopping.set()
        display.say("stopping all runs after their iteration; once more to stop without checkpoint")
        with starting:
            for process in running:
                process.send_signal(number)

    def train_one(run: PlannedRun) -> None:
        settings = [part for one in run.settings for part in ("--set", one)]
        places = ["--run-dir", str(run.place), "--shared", str(shared)]
        with starting:
            if stopping.is_set():
                return
            run.progress.state = "preparing"
            # A session of its own: Ctrl-C reaches it once, through us, not twice.
            process = subprocess.Popen(
                [sys.executable, "-m", "agents.cli", "train", run.config, "--group", run.group,
                 *places, *settings],
                env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                errors="replace", start_new_session=True,
            )  # fmt: skip
            running.append(process)
        assert process.stderr is not None
        last = ""
        for line in filter(None, map(str.rstrip, process.stderr)):
            last = line
            if line.startswith("error: "):
                run.error = run.error or line.removeprefix("error: ")
            elif line.startswith(_TOLD):
                display.say_once(line)
        code = process.wait()
        run.code = code if code >= 0 else 128 - code
        if run.code and not run.error:
            why = signal.Signals(-code).name if code < 0 else last
            run.error = f"ended with exit code {run.code} ({why})"
        run.progress.end(_ENDS.get(run.code, "failed"))

    display = SetDisplay([run.progress for run in runs])
    with on_signals(stop), ThreadPoolExecutor(jobs) as pool, display:
        waiting = [pool.submit(train_one, run) for run in runs]
        while wait(waiting, _LOOK).not_done:
            display.update()
        for one in waiting:
            one.result()
    return stopping.is_set()
