"""Dashboards beside ``metrics.jsonl``: Weights & Biases, TensorBoard, trackio; driver only.

A tracker that fails says so once and falls silent; it never stops a run.
"""

from __future__ import annotations

import io
import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, Literal, cast, get_args

from agents.config import RunConfig, config_hash, preset_name
from agents.runs.metrics_log import Metrics
from agents.runs.workspace import STEP, ensure_workspace

WandbMode = Literal["online", "offline", "disabled"]
_LOGIN_TIMEOUT = 10  # seconds
WORKSPACES = ".wandb-workspaces.json"
"""Beside the run folders: the projects whose comparison workspace has been saved."""


def default_group(config: RunConfig) -> str:
    """Return what the seeds of one experiment share in a dashboard."""
    return f"{config.algorithm.kind}-{preset_name(config)}-{config_hash(config)[:8]}"


def _labels(config: RunConfig) -> dict[str, str | int]:
    """Return what runs are grouped and filtered by."""
    return {
        "algo": config.algorithm.kind,
        "preset": preset_name(config),
        "seed": config.seed,
        "group": config.tracking.group or default_group(config),
    }


Row = Sequence[str | float | None]
"""One line of a table."""


def resolve_wandb_mode(wanted: str, say: Callable[[str], None]) -> WandbMode:
    """Return the mode to start W&B in, and say why where it was left open: ``auto`` follows
    ``WANDB_MODE`` if set, goes online with an account, and offline without one or without network.
    """
    if wanted == "auto":
        asked = os.environ.get("WANDB_MODE", "auto")
        wanted = "offline" if asked == "dryrun" else asked
    if wanted in get_args(WandbMode):
        return cast(WandbMode, wanted)
    import wandb

    wandb.setup(wandb.Settings(silent=True))
    try:
        if wandb.login(prompt=False, timeout=_LOGIN_TIMEOUT):
            return "online"
        reason = "no account is logged in"
    except Exception as error:  # wandb raises many kinds without network; all mean offline
        reason = f"no connection ({type(error).__name__})"
    say(f"W&B: offline into the run's folder, {reason}; 'wandb login' for online")
    return "offline"


@contextmanager
def _staged_in(folder: Path) -> Iterator[None]:
    """Let W&B keep what it is to send later in the run's folder rather than in the home folder."""
    chosen = "WANDB_DATA_DIR" in os.environ
    os.environ.setdefault("WANDB_DATA_DIR", str(folder.absolute() / "wandb"))
    try:
        yield
    finally:
        if not chosen:
            del os.environ["WANDB_DATA_DIR"]


class _Wandb:
    """A W&B run; the same run goes on when a run is resumed."""

    def __init__(
        self, config: RunConfig, folder: Path, mode: Literal["online", "offline"],
        say: Callable[[str], None],
    ) -> None:  # fmt: skip
        import wandb

        logging.getLogger("wandb").setLevel(logging.ERROR)
        wandb.setup(wandb.Settings(silent=True))  # says nothing of its own; we do
        tracking = config.tracking
        self._run = wandb.init(
            mode=mode,
            dir=str(folder),
            id=folder.name,
            name=folder.name,
            resume="allow" if mode == "online" else None,
            project=tracking.project,
            entity=tracking.entity,
            group=str(_labels(config)["group"]),
            job_type="train",
            tags=list(tracking.tags),
            config={**config.model_dump(mode="json"), **_labels(config)},
            # Seeds that train side by side are runs of one process.
            settings=wandb.Settings(
                silent=True, console="off", x_disable_stats=True, reinit="create_new"
            ),
        )
        self._run.define_metric(STEP)
        self._run.define_metric("*", step_metric=STEP)
        self._folder = folder
        self._step: float = 0
        if mode == "online":
            if self._run.url:
                say(f"W&B: {self._run.url}")
            place = folder.parent / WORKSPACES
            ensure_workspace(self._run.entity, self._run.project, place, say)

    def log(self, metrics: Metrics) -> None:
        self._step = metrics[STEP] or self._step
        self._run.log({key: value for key, value in metrics.items() if value is not None})

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        import wandb

        found = wandb.Table(columns=list(columns), data=[list(row) for row in rows])
        with _staged_in(self._folder):
            self._run.log({name: found, STEP: self._step})

    def artifact(self, kind: str, paths: Sequence[Path]) -> None:
        import wandb

        found = wandb.Artifact(f"{self._folder.name}-{kind}", type=kind)
        for path in paths:
            files = sorted(path.rglob("*")) if path.is_dir() else [path]
            for file in files:
                if file.is_file():
                    # Not copied: the files stay where the run keeps them until they are sent.
                    name = str(file.relative_to(path.parent))
                    found.add_file(str(file), name=name, policy="immutable", skip_cache=True)
        with _staged_in(self._folder):
            self._run.log_artifact(found)

    def summary(self, values: Mapping[str, float]) -> None:
        self._run.summary.update({k: v for k, v in values.items() if math.isfinite(v)})

    def close(self) -> None:
        self._run.finish()


class _TensorBoard:
    """TensorBoard events in ``RUN/tensorboard``; its page HParams filters and groups runs."""

    def __init__(self, config: RunConfig, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(log_dir=str(folder / "tensorboard"))
        self._tell(_labels(config))

    def _tell(self, labels: Mapping[str, str | int]) -> None:
        from torch.utils.tensorboard import summary

        untyped: Any = summary
        shown = dict.fromkeys(("evaluation/clicks", "evaluation/return"))
        for part in untyped.hparams(dict(labels), shown):
            self._writer.file_writer.add_summary(part)  # add_hparams would make a run of its own

    def log(self, metrics: Metrics) -> None:
        step = int(metrics[STEP] or 0)
        for key, value in metrics.items():
            if key != STEP and value is not None:
                self._writer.add_scalar(key, value, step)

    def summary(self, values: Mapping[str, float]) -> None:
        for key, value in values.items():
            if math.isfinite(value):
                self._writer.add_scalar(key, value)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        lines = [columns, ["---"] * len(columns), *rows]
        text = "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)
        self._writer.add_text(name, text)

    def artifact(self, kind: str, paths: Sequence[Path]) -> None:
        """Files lie in the run's folder already."""

    def close(self) -> None:
        self._writer.close()


class _Trackio:
    """A run in trackio's local database; tables and files stay in the run's folder."""

    def __init__(self, config: RunConfig, folder: Path) -> None:
        import trackio

        labels = _labels(config)
        with redirect_stdout(io.StringIO()):  # it greets
            self._run = trackio.init(
                project=config.tracking.project,
                name=folder.name,
                group=str(labels["group"]),
                config={**config.model_dump(mode="json"), **labels},
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        # Ours to end: left there, it would be ended, and said to be, once more at exit.
        trackio.context_vars.current_run.set(None)
        self._step = 0

    def log(self, metrics: Metrics) -> None:
        self._step = int(metrics[STEP] or 0)
        found = {key: value for key, value in metrics.items() if value is not None}
        self._run.log(found, step=self._step)

    def summary(self, values: Mapping[str, float]) -> None:
        finite = {key: value for key, value in values.items() if math.isfinite(value)}
        self._run.log(finite, step=self._step)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """The final comparison is in the summary already."""

    def artifact(self, kind: str, paths: Sequence[Path]) -> None:
        """Files lie in the run's folder already."""

    def close(self) -> None:
        with redirect_stdout(io.StringIO()):
            self._run.finish()


def _cell(value: str | float | None) -> str:
    return "" if value is None else value if isinstance(value, str) else f"{value:.4g}"


class Trackers:
    """Several dashboards as one, which have the same methods; those that fail are dropped and named
    once.
    """

    def __init__(self, trackers: Mapping[str, Any], say: Callable[[str], None]) -> None:
        self._trackers = dict(trackers)
        self._say = say

    def _each(self, method: str, *arguments: object) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                getattr(tracker, method)(*arguments)
            except Exception as error:  # a dashboard must never stop a run
                self._say(f"{name} failed and is left out from here on: {error}")
                del self._trackers[name]

    def log(self, metrics: Metrics) -> None:
        """Take one iteration's numbers; ``env_steps`` is among them."""
        self._each("log", metrics)

    def summary(self, values: Mapping[str, float]) -> None:
        """Take final numbers of the run as a whole."""
        self._each("summary", values)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """Take a table: a text, then numbers, in each row; ``None`` where there is no number."""
        self._each("table", name, columns, rows)

    def artifact(self, kind: str, paths: Sequence[Path]) -> None:
        """Take files and folders that belong together; those that do not exist are left out."""
        self._each("artifact", kind, paths)

    def close(self) -> None:
        """Flush and end."""
        self._each("close")


def open_trackers(config: RunConfig, folder: Path, say: Callable[[str], None]) -> Trackers:
    """Start what the configuration asks for; what cannot start is named and left out.

    Nothing but trackio's database is written outside the run's ``folder``, whose name is the run's;
    ``say`` receives lines for the user.
    """
    trackers: dict[str, Any] = {}
    if config.tracking.wandb != "disabled":
        try:
            mode = resolve_wandb_mode(config.tracking.wandb, say)
            if mode != "disabled":
                trackers["W&B"] = _Wandb(config, folder, mode, say)
        except Exception as error:  # no wandb, no network, a wrong entity: the run goes on
            say(f"W&B is left out: {' '.join(str(error).split())}")
    for name, made in (("TensorBoard", _TensorBoard), ("trackio", _Trackio)):
        if not getattr(config.tracking, name.lower()):
            continue
        try:
            trackers[name] = made(config, folder)
        except ImportError:
            say(f"{name} is left out: install it with pip install 'marec[{name.lower()}]'")
        except Exception as error:  # a database that cannot be written, a wrong setting
            say(f"{name} is left out: {' '.join(str(error).split())}")
    return Trackers(trackers, say)
