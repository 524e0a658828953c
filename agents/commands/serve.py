"""A trained team out of its run: ``marec export`` and ``marec serve``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from marec_env.errors import ConfigError

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
    replays: Annotated[
        int,
        typer.Option(
            min=0,
            max=20,
            help="Simulated sessions to watch on the service's page, written beside the bundle; "
            "their users' histories are of the log.",
        ),
    ] = 0,
) -> None:
    """Write a bundle: policy, items and what is known of them, without the log and its users."""
    from agents.service.bundle import export_run
    from agents.service.replays import write_replays

    bundle = export_run(run, out, best=best, hand_set=hand_set)
    if replays:
        write_replays(run, out, replays)
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
        str,
        typer.Option(
            metavar="FILE|URL",
            help="Of sessions and events: SQLite's, or postgresql://HOST/DATABASE.",
        ),
    ] = "service.sqlite",
    replicas: Annotated[
        int, typer.Option(min=1, max=64, help="Processes that share the sessions.")
    ] = 1,
    config: Annotated[
        Path | None, typer.Option(metavar="YAML", help="Settings of the service: docs/serving.md.")
    ] = None,
) -> None:
    """Answer requests over HTTP: sessions, recommendations, events."""
    try:
        import uvicorn
    except ImportError as error:
        raise ConfigError(
            "serving needs uvicorn, which is not installed: pip install 'marec[serve]'"
        ) from error
    from agents.service.config import ServiceConfig, check_reachable
    from agents.service.databases import place_of
    from agents.service.link import BACKLOG, loading
    from marec_env.config.loader import load

    settings = ServiceConfig() if config is None else load(config, ServiceConfig)
    check_reachable(host, bool(settings.keys))
    place = place_of(database)
    app: Any
    if replicas > 1:
        from agents.service.replicas import start_replicas

        app, names = start_replicas(bundles, place, settings, replicas)
    else:
        with loading():
            from agents.service.app import make_app

            app = make_app(bundles, place, settings)
        names = ", ".join(team["name"] for team in app.state.desk.teams.told())
    listener = uvicorn.Config(app, host=host, port=port, log_level="warning", access_log=False)
    socket = listener.bind_socket()
    socket.listen(BACKLOG)  # who reads the line below may connect
    print(f"serving {names} at http://{host}:{socket.getsockname()[1]}", flush=True)
    uvicorn.Server(listener).run(sockets=[socket])
