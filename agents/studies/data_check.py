"""What a log holds, and what marec will make of it: tables and a page."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import numpy as np
import torch
from torch import Tensor

from marec_env.data.config import DataConfig
from marec_env.data.log import InteractionLog
from marec_env.data.pictures import picture_files, read_picture
from marec_env.data.population import PopulationConfig, random_click_rate
from marec_env.data.propensity import has_propensities
from marec_env.data.times import session_lengths
from marec_env.environment_config import EnvironmentConfig
from marec_env.reporting import page
from marec_env.reporting.charts import Line, lines_figure
from marec_env.reporting.drawing import Figure
from marec_env.reporting.table import TextTable

_INDEX_ABOVE = 20_000  # items, as configs/large.yaml has it
_LETTERS = 2_000  # of texts looked at for scripts, evenly spread over the items
_TOP = (0.01, 0.1, 0.5)  # shares of items, or users, whose part of the log is told


def tables_of(log: InteractionLog, config: DataConfig) -> list[TextTable]:
    """Return the report's tables.

    Args:
        log: as loaded.
        config: by which it was.
    """
    return [
        TextTable("The log", ("what", "value"), _counts(log, config)),
        TextTable("Numbers", ("column", "least", "median", "largest", "unknown"), _numbers(log)),
        TextTable(
            "Concentration",
            ("largest", *(f"{share:.0%}" for share in _TOP), "median count", "largest count"),
            [
                (
                    name,
                    *(f"{_part(count, share):.0%} of the log" for share in _TOP),
                    *_middle(count),
                )
                for name, count in _activity(log).items()
            ],
        ),
        TextTable("What marec will do with it", ("what", "how"), _outlook(log, config), prose=True),
    ]


def render_page(log: InteractionLog, config: DataConfig) -> str:
    """Return the page; what stems from the data is escaped."""
    sections = [
        page.Section("Tables", tables_of(log, config)),
        page.Section("Curves", figures=[_curve(*item) for item in _activity(log).items()]),
        page.Section("Files", verbatim=[f"{name} {sha}" for name, sha in log.sources.items()]),
    ]
    return page.render_page(f"Data: {config.source}", (), log.warnings, sections)


def _counts(log: InteractionLog, config: DataConfig) -> list[tuple[str, str]]:
    pairs = torch.unique(log.user * log.num_items + log.item).numel()
    cells = log.num_users * log.num_items
    lengths = session_lengths(log.user, log.time).to(torch.float64)
    rows = [
        ("users, items, interactions", _three(log.num_users, log.num_items, log.num_interactions)),
        ("distinct pairs of user and item", f"{pairs:,} ({pairs / cells:.3%} of all)"),
        ("pairs met again", f"{log.num_interactions - pairs:,}"),
        ("items without interactions", f"{_absent(log.item, log.num_items):,}"),
        ("liked", f"{float(log.liked.double().mean()):.1%}, from {log.like_threshold:g} on"),
        ("times", _span(log.time)),
        ("sessions, cut at 30 minutes", f"{len(lengths):,}, {float(lengths.mean()):.1f} long"),
        ("scripts of the texts", _scripts(log.texts)),
        ("letters of a text, median", f"{np.median([len(text) for text in log.texts]):.0f}"),
        ("items with genres, with a year", _shares(log)),
        (f"groups ({len(log.group_names)})", ", ".join(log.group_names[:8])),
    ]
    if any(log.images):
        found = picture_files(config, log)
        unreadable = [path for path in found.files if path and read_picture(path) is None]
        rows.append(("pictures", found.told(unreadable) or "of all items"))
    if log.friends is not None:
        rows.append(("friendships", f"{len(log.friends):,}"))
    if (shown := log.impressions) is not None:
        click = shown.behaviours["click"]
        known = float((~shown.propensity.isnan()).double().mean())
        rows += [
            ("impressions, clicked", f"{len(click):,}, {float(click.double().mean()):.3%}"),
            ("places of a slate", f"{int(shown.position.max()) + 1}"),
            ("impressions with a propensity", f"{known:.0%}"),
        ]
    return rows


def _three(users: int, items: int, rows: int) -> str:
    return f"{users:,}, {items:,}, {rows:,}"


def _absent(places: Tensor, count: int) -> int:
    return int((torch.bincount(places, minlength=count) == 0).sum())


def _span(time: Tensor) -> str:
    low, high = int(time.min()), int(time.max())
    if low == high:
        return "all equal: no order"
    days = (high - low) / 86_400
    try:
        ends = [datetime.fromtimestamp(end, UTC).strftime("%Y-%m-%d") for end in (low, high)]
    except (ValueError, OverflowError, OSError):
        return f"{days:,.1f} days"
    return f"{ends[0]} to {ends[1]}, {days:,.1f} days"


def _scripts(texts: Sequence[str]) -> str:
    """Return the scripts of letters by their Unicode names: LATIN, CJK, CYRILLIC, ..."""
    count: Counter[str] = Counter()
    for text in texts[:: max(1, len(texts) // _LETTERS)]:
        letters = (letter for letter in text[:_LETTERS] if letter.isalpha())
        count.update(unicodedata.name(letter, "unknown").split()[0].lower() for letter in letters)
    total = sum(count.values())
    return ", ".join(f"{name} {number / total:.1%}" for name, number in count.most_common(4)) or "–"


def _shares(log: InteractionLog) -> str:
    genres = sum(map(bool, log.genres)) / log.num_items
    return f"{genres:.0%}, {float((log.year >= 0).double().mean()):.0%}"


def _numbers(log: InteractionLog) -> list[tuple[str, ...]]:
    tables: Mapping[str, Mapping[str, Tensor]] = {
        "interactions": {"rating": log.rating, **log.behaviours},
        "items": log.item_attributes,
        "users": log.user_attributes,
        "impressions": log.impressions.behaviours if log.impressions else {},
    }
    rows = []
    for file, columns in tables.items():
        for name, values in columns.items():
            known = values[~values.isnan()].double()
            ends = [known.min(), known.median(), known.max()] if known.numel() else [math.nan] * 3
            unknown = 1.0 - known.numel() / max(values.numel(), 1)
            rows.append((f"{file}: {name}", *(f"{float(end):g}" for end in ends), f"{unknown:.1%}"))
    return rows


def _activity(log: InteractionLog) -> dict[str, Tensor]:
    """Return interactions of each item and of each user, the most first."""
    sides = {"items": (log.item, log.num_items), "users": (log.user, log.num_users)}
    return {
        name: torch.bincount(place, minlength=count).sort(descending=True).values
        for name, (place, count) in sides.items()
    }


def _part(count: Tensor, share: float) -> float:
    first = max(1, round(share * len(count)))
    return float(count[:first].sum()) / float(count.sum())


def _middle(count: Tensor) -> tuple[str, str]:
    return f"{float(count.double().median()):g}", f"{int(count[0]):,}"


def _curve(name: str, count: Tensor) -> Figure:
    known = count[count > 0]
    one = name.removesuffix("s")
    return lines_figure(
        {name: Line(range(1, len(known) + 1), known.numpy())},
        (f"rank of the {one}", "interactions"),
        f"Interactions by {one}, the most first.",
        alt=f"From {int(known[0]):,} interactions to {int(known[-1]):,}: {len(known):,} {name}.",
        log="xy",
        marked=False,
    )


def _outlook(log: InteractionLog, config: DataConfig) -> list[tuple[str, str]]:
    plain = EnvironmentConfig()
    rate = random_click_rate(PopulationConfig(), log)
    source = "an assumption: the log has no impressions"
    if log.impressions is not None:
        weighed = has_propensities(log.impressions)
        source = "the log's, weighed by propensities" if weighed else "the log's first places"
    needed = plain.population.history + plain.pipeline.candidates
    needed += plain.pipeline.slate_size * (plain.max_requests - 1)
    history = int((torch.bincount(log.user) >= plain.population.history).sum())
    rows = [
        ("click rate of a random examined item", f"{rate:.4g}, {source}"),
        (
            "tastes",
            f"{plain.population.dim} factors a user and item from all interactions, "
            f"{plain.catalog.num_topics} topics from the texts",
        ),
        (
            "histories",
            f"{plain.population.history} items a user, which {history:,} of {log.num_users:,} "
            "users fill",
        ),
    ]
    if needed > log.num_items:
        rows.append(
            (
                "catalog too small",
                f"the default session may need {needed} items of {log.num_items}: lower "
                "population.history, max_requests or pipeline.candidates",
            )
        )
    if log.num_items > _INDEX_ABOVE:
        rows.append(("large catalog", "train on configs/large.yaml: channels by an index"))
    if plain.catalog.num_topics > log.num_items:
        rows.append(("too few items", f"set catalog.num_topics to {log.num_items} or less"))
    rows += [(f"warning {place}", line) for place, line in enumerate(log.warnings, 1)]
    rows.append(
        (
            "next",
            f"marec calibration default --set environment.data.source={config.source} "
            f"--set environment.data.like_threshold={config.like_threshold:g}",
        )
    )
    return rows
