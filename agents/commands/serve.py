"""A trained team out of its run: ``marec export`` and ``marec serve``."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import Annotated

import typer

from marec_env.errors import ConfigError

__all__ = ["export", "serve"]

_BACKLOG = 1024  # connections that wait to be taken
_SWITCH = 5e-4  # seconds; ten times as often as usual, or the network waits for the batch at work

# Heavy imports wait until a command is run, so that --help is quick.


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a run on the marec environment.")],
    out: Annotated[Path, typer.Argument(help="Folder of the bundle; new or empty.")],
    best: Annotated[
        bool, typer.Option("--best", help="The policy of the best evaluation, not the newest.")
    ] = False,
    hand_set: Annotated[
        bool,
        typer.Option("--hand-set", help="Every component plays its hand-set default instead."),
    ] = False,
) -> None:
    """Write a bundle: policy, items and what is known of them, without the log and its users."""
    from agents.service.bundle import export_run

    bundle = export_run(run, out, best=best, hand_set=hand_set)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"{out}: version {bundle.version}, {size / 1e6:.1f} MB; {bundle!r}")


def serve(
    bundles: Annotated[
        list[Path],
        typer.Argument(
            metavar="BUNDLE...",
            help="Folders of 'marec export'; the first gets all new sessions, the others by name.",
        ),
    ],
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0: any that is free.")] = 8080,
    database: Annotated[
        str, typer.Option(metavar="FILE", help="Of sessions and events (SQLite).")
    ] = "service.sqlite",
    config: Annotated[
        Path | None, typer.Option(metavar="YAML", help="Settings of the service: docs/serving.md.")
    ] = None,
) -> None:
    """Answer requests over HTTP: sessions, recommendations, events."""
    gc.disable()  # what is loaded below stays: looking through it again and again takes a tenth
    try:
        import uvicorn
    except ImportError as error:
        raise ConfigError(
            "serving needs uvicorn, which is not installed: pip install 'marec[serve]'"
        ) from error
    import torch

    from agents.service.app import make_app
    from agents.service.config import ServiceConfig, check_reachable, database_file
    from marec_env.config.loader import load

    sys.setswitchinterval(_SWITCH)
    torch.set_num_threads(1)  # batches are small: threads cost more than they bring
    settings = ServiceConfig() if config is None else load(config, ServiceConfig)
    check_reachable(host, bool(settings.keys))
    app = make_app(bundles, Path(database_file(database)), settings)
    listener = uvicorn.Config(app, host=host, port=port, log_level="warning", access_log=False)
    socket = listener.bind_socket()
    socket.listen(_BACKLOG)  # who reads the line below may connect
    gc.freeze()
    gc.enable()
    names = ", ".join(team["name"] for team in app.state.desk.teams.told())
    print(f"serving {names} at http://{host}:{socket.getsockname()[1]}", flush=True)
    uvicorn.Server(listener).run(sockets=[socket])
