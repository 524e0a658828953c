"""What the service tells, in plain types for JSON."""

from __future__ import annotations

from typing import Any, get_args

from agents.service.bundle import Bundle
from agents.service.sessions import Session
from agents.service.slates import Record, Slate
from agents.service.store import Exposure
from marec_env.errors import visible
from marec_env.pipeline.reasons import channel_names
from marec_env.text.prompts import Language

_TOLD = 80  # characters of a client's text that a message repeats


def short(text: str) -> str:
    """Return a client's text so that a message can repeat it."""
    return visible(text if len(text) <= _TOLD else f"{text[:_TOLD]}…")


def item_told(bundle: Bundle, place: int) -> dict[str, Any]:
    """Return an item of the catalog."""
    topic = bundle.topic_of[place]
    return {"item": bundle.ids[place], "title": bundle.titles[place], "topic": topic}


def session_told(name: str, session: Session) -> dict[str, Any]:
    """Return a session: its past, slates, memory, and who decided what at last."""
    bundle = session.engine.bundle
    memory = session.engine.view(session)
    channels, blocks = bundle.pipeline.recall.channels, bundle.pipeline.blocks
    hits, use = memory["channel_hits"].tolist(), memory["block_use"].tolist()
    return {
        "session": name,
        "policy": bundle.name,
        "version": bundle.version,
        "requests": len(session.records),
        "history": [
            {**item_told(bundle, place), "liked": liked}
            for place, liked in zip(session.past.items, session.past.liked, strict=True)
        ],
        "slates": [
            {
                "request": f"{name}-{number}",
                "number": number,
                "items": _record_told(bundle, record),
            }
            for number, record in enumerate(session.records)
        ],
        "memory": {
            "interest": memory["interest"].tolist(),
            "exposure": memory["exposure"].tolist(),
            "fast_rate": float(memory["fast_rate"]),
            "slow_rate": float(memory["slow_rate"]),
            "last_rate": float(memory["last_rate"]),
            "since_click": float(memory["since_click"]),
            "channel_hits": dict(zip(channels, hits, strict=True)),
            "block_use": dict(zip(blocks, use, strict=True)),
        },
        "details": details_told(session.last) if session.last else None,
    }


def _record_told(bundle: Bundle, record: Record) -> list[dict[str, Any]]:
    names = channel_names(bundle.pipeline)
    channels = [-1] * len(record.slate) if record.channel is None else record.channel.tolist()
    return [
        {
            **item_told(bundle, place),
            "channel": names[channel] if channel >= 0 else None,
            "clicked": clicked > 0,
        }
        for place, channel, clicked in zip(
            record.slate.tolist(), channels, record.clicks.tolist(), strict=True
        )
    ]


def exposure_told(one: Exposure, decisions: bool) -> dict[str, Any]:
    """Return a slate as it is kept, with its clicks."""
    slate = one.slate
    told = {
        "sequence": one.sequence,
        "request": f"{one.session}-{slate.number}",
        "session": one.session,
        "user": one.user,
        "attributes": one.attributes,
        "number": slate.number,
        "time": slate.time,
        "policy": slate.policy,
        "version": slate.version,
        "slate": slate.items,
        "channels": slate.channels,
        "clicks": [int(item in one.clicked) for item in slate.items],
        "log_propensity": slate.log_propensity,
        "closed": one.closed,
    }
    return {**told, "decisions": slate.decisions} if decisions else told


def propensity_told(slate: Slate) -> dict[str, Any]:
    """Return how probable a slate and the decisions behind it were."""
    return {"slate": slate.log_propensity, "actions": slate.log_probabilities}


def details_told(slate: Slate) -> dict[str, Any]:
    """Return who decided what, what was said, how many items were left at each stage, and a
    sentence an item on why it is there, by language.
    """
    sentences = {language: slate.reasons(language) for language in get_args(Language)}
    return {**slate.details(), "reasons": sentences}


def slate_told(
    session: str, bundle: Bundle, slate: Slate, language: Language | None
) -> dict[str, Any]:
    """Return a slate that was just made; in a language also a sentence on each item's reason."""
    ids, titles, topics = bundle.ids, bundle.titles, bundle.topic_of
    items = [
        {
            "item": ids[place],
            "title": titles[place],
            "topic": topics[place],
            "score": score,
            "channel": channel,
            "nearest": None
            if near < 0
            else {"item": ids[near], "title": titles[near], "similarity": similarity},
            "blocks": blocks,
        }
        for place, channel, score, blocks, near, similarity in slate.facts
    ]
    if language is not None:
        for told, reason in zip(items, slate.reasons(language), strict=True):
            told["reason"] = reason
    return {
        "request": f"{session}-{slate.number}",
        "session": session,
        "number": slate.number,
        "policy": bundle.name,
        "version": bundle.version,
        "items": items,
        "log_propensity": propensity_told(slate),
    }
