"""Why an item is shown, told to the user: facts, a sentence made of them, a model's rephrasing.

Facts come from what the pipeline did: the recall channel that brought the item, the block that
added most to its score, and the item that the user liked to which it is nearest in the space the
channel goes by. A model may put the sentence in other words; what it writes is kept only if it
names the item, and no title beside those of the facts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from marec_env.pipeline.memory import SessionMemory
from marec_env.pipeline.reasons import FILLED, block_parts, channel_names
from marec_env.pipeline.request import Request
from marec_env.text.author import Author, Prompt
from marec_env.text.prompts import DESCRIPTION, Language, described

__all__ = ["ItemFacts", "item_facts", "liked_items", "reasons"]

_SPACE = {  # that a channel or block goes by
    "cf": "cf", "affinity": "cf", "item_to_item": "cf", "diverse": "cf",
    "text": "text", "user_text": "text", "notes": "text",
}  # fmt: skip
_NEAR = 0.1  # cosine from which a liked item is named
_QUOTED = re.compile(r"“([^”]+)”|\"([^\"]+)\"|《([^》]+)》|「([^」]+)」")
_SHORTEST = 4  # letters of another item's title that is looked for without quotes

_WORDS: dict[str, dict[str, str]] = {
    "en": {
        "item": "“{title}”: {why}.",
        "cf": "people who liked “{liked}”, as you did, like it too",
        "text": "it is much like “{liked}”, which you liked",
        "affinity": "it is of a kind you like, as is “{liked}”",
        "diverse": "something else that suits you, near “{liked}”",
        "popular": "many people like it",
        "fresh": "it is new here",
        "exposure": "you have not been shown its kind of late",
        "new": "a first suggestion, to learn what you like",
        "other": "it fits what is known of you",
        "task": "Say in one friendly sentence, to the user, why the item is suggested. Keep every "
        "title as it is, in quotation marks, name no other title and add no facts. Answer as "
        'JSON: {{"description": ...}}',
    },
    "zh": {
        "item": "《{title}》:{why}。",
        "cf": "和您一样喜欢《{liked}》的人也喜欢它",
        "text": "它与您喜欢的《{liked}》很相似",
        "affinity": "它和《{liked}》一样,是您喜欢的类型",
        "diverse": "换个口味,但仍适合您,接近《{liked}》",
        "popular": "很多人都喜欢它",
        "fresh": "它是新上架的",
        "exposure": "您最近没有看到这一类",
        "new": "先推荐一个,好了解您的喜好",
        "other": "它符合我们对您的了解",
        "task": "用一句友好的话告诉用户为什么推荐这个物品。保留每个书名号中的标题,不要提到其他标题,"
        '不要添加事实。以 JSON 回答:{{"description": ...}}',
    },
}
_KIND = {  # which sentence a channel or block is told by
    "cf": "cf", "item_to_item": "cf", "text": "text", "user_text": "text", "notes": "text",
    "affinity": "affinity", "diverse": "diverse", "popular": "popular", "popularity": "popular",
    FILLED: "popular",
    "fresh": "fresh", "freshness": "fresh", "exposure": "exposure",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ItemFacts:
    """Why an item is on a slate."""

    title: str
    channel: str
    """The recall channel that brought it; empty where nobody says."""
    block: str
    """The block that added most to its score; empty where none is known to have."""
    liked: str
    """The title of the nearest item that the user liked; empty where there is none near."""
    known_user: bool
    """Whether the user is known to like anything."""


def liked_items(memory: SessionMemory, row: int = 0) -> Tensor:
    """Return what a session's user is known to like, int64 ``[L]``, newest first: of the history,
    then of the session.
    """
    history = memory.history[row]
    before = history[memory.history_liked[row] & (history >= 0)]
    clicked = memory.session_items[row].flatten()[memory.session_clicks[row].flatten() > 0]
    return torch.cat([before, clicked]).flip(0)


def item_facts(
    request: Request, liked: Tensor, titles: Sequence[str], row: int = 0
) -> tuple[ItemFacts, ...]:
    """Return why each item of a session's slate is on it.

    Args:
        request: answered: its slate is drawn.
        liked: int64 ``[L]``, of :func:`liked_items` before the answer.
        titles: of all items.
        row: the session.
    """
    names, parts = channel_names(request.config), block_parts(request)
    added = parts[0][row] if parts is not None and bool(parts[1][row]) else None
    brought, slots = request.candidate_channel, request.slate_slot
    facts = []
    for place, item in enumerate(request.need("slate")[row].tolist()):
        slot = None if slots is None else int(slots[row, place])
        known = slot is not None and brought is not None
        channel = names[int(brought[row, slot])] if known and brought is not None else ""
        block = ""
        if added is not None and slot is not None and float(added[slot].max()) > 0:
            block = tuple(request.config.blocks)[int(added[slot].argmax())]
        space = _SPACE.get(channel) or _SPACE.get(block)
        nearest = "" if space is None else _nearest(request, space, item, liked, titles)
        facts.append(ItemFacts(titles[item], channel, block, nearest, len(liked) > 0))
    return tuple(facts)


def _nearest(request: Request, space: str, item: int, liked: Tensor, titles: Sequence[str]) -> str:
    vectors: Tensor = getattr(request.knowledge, space)
    if not len(liked):
        return ""
    closeness = vectors[liked] @ vectors[item]
    best = int(closeness.argmax())
    return titles[int(liked[best])] if float(closeness[best]) >= _NEAR else ""


def reasons(
    facts: Sequence[ItemFacts],
    language: Language = "en",
    author: Author | None = None,
    titles: Iterable[str] = (),
) -> list[str]:
    """Return a sentence for each item, to its user.

    Args:
        facts: of :func:`item_facts`.
        language: of the sentences.
        author: whose model may rephrase them; what it may not say is replaced by the template.
        titles: of the whole catalog: a rephrasing that names one beside the facts' is refused.
    """
    words = _WORDS[language]
    prompts = [
        Prompt(words["task"].format(), sentence, sentence)
        for sentence in (_sentence(fact, words) for fact in facts)
    ]
    if author is None:
        return [prompt.template for prompt in prompts]
    allowed = {p.key: (fact.title, fact.liked) for p, fact in zip(prompts, facts, strict=True)}
    known = tuple(title for title in titles if len(title) >= _SHORTEST)

    def checked(prompt: Prompt, reply: str) -> str | None:
        said = described(prompt, reply)
        return said if said is not None and _true(said, *allowed[prompt.key], known) else None

    return author.write(prompts, DESCRIPTION, checked)


def _sentence(fact: ItemFacts, words: dict[str, str]) -> str:
    kind = _KIND.get(fact.channel) or _KIND.get(fact.block) or "other"
    if "{liked}" in words[kind] and not fact.liked:
        told_by = _KIND.get(fact.block, "")
        kind = told_by if told_by and "{liked}" not in words[told_by] else "other"
    if kind == "other" and not fact.known_user:
        kind = "new"
    why = words[kind].format(liked=fact.liked)
    return words["item"].format(title=fact.title, why=why)


def _true(said: str, title: str, liked: str, known: Sequence[str]) -> bool:
    """Whether a sentence names its item, and no other title than those of its facts."""
    allowed = {title, liked}
    quoted = {next(filter(None, found)) for found in _QUOTED.findall(said)}
    if title not in said or not quoted <= allowed:
        return False
    rest = said
    for one in sorted(allowed - {""}, key=len, reverse=True):
        rest = rest.replace(one, " ")
    return not any(
        re.search(rf"(?<!\w){re.escape(one)}(?!\w)", rest) for one in known if one in rest
    )
