"""What models are asked to write of items and users, and what stands where none writes."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from math import log
from typing import Literal

import torch
from torch import Tensor

from marec_env.catalog.catalog import Catalog
from marec_env.data.interactions import InteractionLog
from marec_env.text.author import Prompt
from marec_env.text.models import LONGEST, Schema

Language = Literal["en", "zh"]

_KEY = "description"
DESCRIPTION: Schema = {
    "type": "object",
    "properties": {_KEY: {"type": "string"}},
    "required": [_KEY],
    "additionalProperties": False,
}
_EXAMPLES = 3  # titles that stand for a topic

_WORDS = {
    "en": {
        "item": "You describe items for a recommender. From the facts, write one short sentence on "
        "what the item is and who likes it. Add no facts. Answer as JSON: {\"description\": ...}",
        "user": "You describe users for a recommender. From the facts, write one short sentence on "
        "what the user wants next. Add no facts. Answer as JSON: {\"description\": ...}",
        "kinds": "{0}: {1}.",
        "liked": "For those who like {0}.",
        "number": "{0}: {1:g}",
        "and": ", ",
        "stop": ". ",
        "new": "A new user of whom nothing is known.",
        "one": "Likes {0}, such as {1}.",
        "two": "Likes {0}, such as {1}, and {2}, such as {3}.",
        "late": " Of late {0}.",
        "judge": "You judge items for a recommender. From the facts, does the user like the item?",
        "asked": "User: {0}\nItem: {1}\nDoes the user like it?",
        "answers": "yes|no",
        "persona": "You play a user. From what the user liked and did not like, pick the item that "
        "this user would click.",
        "persona_liked": "You liked: {0}",
        "persona_other": "You did not like: {0}",
        "pick": "Which of these do you click?",
        "none": "none of these",
        "list": " | ",
    },
    "zh": {
        "item": "你为推荐系统描述物品。根据事实,用一句短话说明它是什么、适合谁。不要添加事实。"
        "以 JSON 回答:{\"description\": ...}",
        "user": "你为推荐系统描述用户。根据事实,用一句短话说明用户接下来想要什么。不要添加事实。"
        "以 JSON 回答:{\"description\": ...}",
        "kinds": "《{0}》:{1}。",
        "liked": "适合喜欢{0}的人。",
        "number": "{0}:{1:g}",
        "and": "、",
        "stop": "。",
        "new": "新用户,尚无了解。",
        "one": "喜欢{0},例如{1}。",
        "two": "喜欢{0},例如{1};也喜欢{2},例如{3}。",
        "late": "最近看{0}。",
        "judge": "你为推荐系统评判物品。根据事实,用户会喜欢这个物品吗?",
        "asked": "用户:{0}\n物品:{1}\n用户会喜欢吗?",
        "answers": "会|不会",
        "persona": "你扮演一位用户。根据该用户喜欢和不喜欢的物品,选出该用户会点击的物品。",
        "persona_liked": "你喜欢:{0}",
        "persona_other": "你不喜欢:{0}",
        "pick": "你会点击哪一个?",
        "none": "都不点击",
        "list": "|",
    },
}  # fmt: skip


def described(prompt: Prompt, reply: str) -> str | None:
    """Return the description in a reply; ``None`` where there is none of sensible length."""
    start, end = reply.find("{"), reply.rfind("}")
    try:
        found = json.loads(reply[start : end + 1])[_KEY]
    except (ValueError, LookupError, TypeError):
        return None
    if not isinstance(found, str) or not found.strip() or len(found) > LONGEST:
        return None
    return " ".join(found.split())


def item_prompts(log: InteractionLog, catalog: Catalog, language: Language) -> list[Prompt]:
    """Return what is asked of each item: its text (title, genres, description), its topic, and its
    numbers.
    """
    words = _WORDS[language]
    prompts = []
    for place, (title, text) in enumerate(zip(log.titles, log.texts, strict=True)):
        rest = text.removeprefix(title).lstrip(". ") or title
        rest = rest.rstrip(".").replace(". ", words["stop"])
        facts = [words["kinds"].format(title, rest)]
        topic = catalog.topic_names[int(catalog.topics[place])]
        facts += [words["liked"].format(topic)] if topic not in rest else []
        numbers = [
            words["number"].format(name, float(column[place]))
            for name, column in log.item_attributes.items()
            if not bool(column[place].isnan())
        ]
        facts += [words["and"].join(numbers)] if numbers else []
        said = " ".join(facts) if language == "en" else "".join(facts)
        prompts.append(Prompt(words["item"], said, said, DESCRIPTION))
    return prompts


def user_prompts(catalog: Catalog, language: Language) -> list[Prompt]:
    """Return what is asked of every user that may be told apart, in the order of
    :meth:`marec_env.pipeline.memory.SessionMemory.user_kind`: a new one; then, for each unordered
    pair of topics (or one topic) that a user may favour, and each topic of the latest like.
    """
    words = _WORDS[language]
    names = catalog.topic_names
    examples = [words["and"].join(_examples(catalog, topic)) for topic in range(len(names))]
    said = [words["new"]]
    for first in range(len(names)):
        for second in range(first, len(names)):
            likes = (
                words["one"].format(names[first], examples[first])
                if first == second
                else words["two"].format(
                    names[first], examples[first], names[second], examples[second]
                )
            )
            said += [likes + words["late"].format(name) for name in names]
    return [Prompt(words["user"], one, one, DESCRIPTION) for one in said]


def like_prompts(
    catalog: Catalog, notes: Sequence[str], asked: Tensor, language: Language
) -> list[Prompt]:
    """Return what is asked of the users of each topic and some items: whether they like them.

    The template's answer is the share of the words of the topic's name that the item's facts have.

    Args:
        catalog: its topics stand for users who like nothing else.
        notes: facts of all items.
        asked: int64 ``[T, n]``, the items.
        language: of the prompts.

    Returns:
        ``T x n`` prompts with two options, liked first.
    """
    words, prompts = _WORDS[language], []
    for topic, items in enumerate(asked.tolist()):
        name = catalog.topic_names[topic]
        user = words["one"].format(name, words["and"].join(_examples(catalog, topic)))
        kinds = _words_of(name)
        for item in items:
            share = (1 + len(kinds & _words_of(notes[item]))) / (2 + len(kinds))
            said = words["asked"].format(user, notes[item])
            template = json.dumps([log(share), log(1 - share)])
            options = tuple(words["answers"].split("|"))
            prompts.append(Prompt(words["judge"], said, template, options=options))
    return prompts


def persona_words(language: Language) -> dict[str, str]:
    """Return the words of a model that plays a user: its ``task``, what it ``liked`` and what not
    (``other``), joined by ``and``, what is ``asked``, and the option ``none``.
    """
    keys = {
        "task": "persona", "liked": "persona_liked", "other": "persona_other", "and": "list",
        "asked": "pick", "none": "none",
    }  # fmt: skip
    return {name: _WORDS[language][key] for name, key in keys.items()}


def _words_of(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def _examples(catalog: Catalog, topic: int) -> Sequence[str]:
    """Return the titles of a topic's most popular items."""
    items = (catalog.topics == topic).nonzero().squeeze(1)
    order = torch.argsort(catalog.popularity[items], descending=True, stable=True)
    return [catalog.titles[item] for item in items[order[:_EXAMPLES]].tolist()]
