"""A Weights & Biases workspace that compares algorithms: curves with bands, outcomes as bars."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from marec_env.io import write_json

STEP = "env_steps"
"""The axis of every curve."""
NAME = "marec: algorithms compared"
_TRAINED = "compare/trained team"  # where a run's summary holds the final comparison
_CURVES = {
    "F of an episode": "episode/return",
    "Clicks a session": "episode/clicks",
    "Requests a session": "episode/length",
    "F a request": "team_reward",
}
_OUTCOMES = ("return", "clicks", "length", "satisfaction", "ndcg")
_STABILITY = ("entropy/", "kl/", "clip_fraction/", "explained_variance/")


def comparison_workspace(entity: str, project: str) -> Any:
    """Return the workspace of a W&B project, unsaved: runs grouped by algorithm, standard errors
    over seeds. ``ImportError`` without the extra ``workspaces``.
    """
    import wandb_workspaces.reports.v2 as reports
    import wandb_workspaces.workspaces as workspaces

    grouped = {
        "groupby": reports.Config("algo"),
        "groupby_aggfunc": "mean",
        "groupby_rangefunc": "stderr",
    }

    def curve(title: str, **what: Any) -> Any:
        return reports.LinePlot(title=title, x=STEP, **grouped, **what)

    def bar(outcome: str) -> Any:
        title, metric = f"{outcome}, final comparison", f"{_TRAINED}/{outcome}"
        return reports.BarPlot(title=title, metrics=[metric], **grouped)

    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=NAME,
        sections=[
            workspaces.Section(
                name="Learning curves",
                panels=[curve(title, y=[metric]) for title, metric in _CURVES.items()],
                is_open=True,
            ),
            workspaces.Section(
                name="Final comparison", panels=[bar(o) for o in _OUTCOMES], is_open=True
            ),
            workspaces.Section(
                name="Objectives and training",
                panels=[
                    curve("Objectives a request", metric_regex="^objective/"),
                    curve("Reward terms a request", metric_regex="^term/"),
                    *(curve(p.strip("/"), metric_regex=f"^{p}") for p in _STABILITY),
                ],
            ),
        ],
        settings=workspaces.WorkspaceSettings(x_axis=STEP),
        runset_settings=workspaces.RunsetSettings(
            groupby=[workspaces.Config("algo"), workspaces.Config("preset")]
        ),
    )


def ensure_workspace(entity: str, project: str, saved: Path, say: Callable[[str], None]) -> None:
    """Save the workspace once for each project; what fails is said and changes nothing else.

    ``saved`` is a JSON file that remembers where it was saved: ``{"entity/project": url}``.
    """
    try:
        known = json.loads(saved.read_text())
    except (OSError, ValueError):
        known = {}
    if f"{entity}/{project}" in known:
        return
    try:
        workspace = comparison_workspace(entity, project)
        workspace.save()
    except ImportError:
        say("W&B: pip install 'marec[workspaces]' also saves a workspace that compares algorithms")
        return
    except Exception as error:  # the dashboard refused; curves and tables are there all the same
        say(f"W&B: the workspace was not saved: {' '.join(str(error).split())}")
        return
    say(f"W&B: algorithms compared at {workspace.url}")
    write_json(saved, {**known, f"{entity}/{project}": workspace.url})
