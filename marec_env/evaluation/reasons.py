"""Why an item is shown, told to the user: a sentence made of facts, a model's rephrasing.

Facts (:func:`marec_env.pipeline.reasons.slate_facts`): the recall channel that brought the item,
the block that added most to its score, and the liked item that it is most like. A model may put the
sentence in other words; what it writes is kept only if it names the item, and no title beside those
of the facts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from marec_env.pipeline.reasons import FILLED, ItemFacts
from marec_env.text.author import Author, Prompt
from marec_env.text.prompts import DESCRIPTION, Language, described

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
        "pictures": "its picture is like those of what you liked",
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
        "pictures": "它的图片与您喜欢的内容的图片相似",
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
    "affinity": "affinity", "diverse": "diverse",
    "pictures": "pictures", "popular": "popular", "popularity": "popular",
    FILLED: "popular",
    "fresh": "fresh", "freshness": "fresh", "exposure": "exposure",
}  # fmt: skip


def reasons(
    facts: Sequence[ItemFacts],
    titles: Sequence[str],
    language: Language = "en",
    author: Author | None = None,
) -> list[str]:
    """Return a sentence for each item, to its user.

    Args:
        facts: of one slate.
        titles: of the whole catalog: a rephrasing that names one beside the facts' is refused.
        language: of the sentences.
        author: whose model may rephrase them; what it may not say is replaced by the template.
    """
    words = _WORDS[language]
    named = [
        (titles[fact.item], titles[fact.liked] if fact.similarity >= _NEAR else "")
        for fact in facts
    ]
    told = [_sentence(fact, *names, words) for fact, names in zip(facts, named, strict=True)]
    if author is None:
        return told
    prompts = [Prompt(words["task"].format(), one, one, DESCRIPTION) for one in told]
    allowed = {prompt.key: names for prompt, names in zip(prompts, named, strict=True)}
    known = tuple(title for title in titles if len(title) >= _SHORTEST)

    def checked(prompt: Prompt, reply: str) -> str | None:
        said = described(prompt, reply)
        return said if said is not None and _true(said, *allowed[prompt.key], known) else None

    return author.write(prompts, checked)


def _sentence(fact: ItemFacts, title: str, liked: str, words: dict[str, str]) -> str:
    most = max(fact.parts, key=lambda name: fact.parts[name], default="")
    by_block = _KIND.get(most, "") if fact.parts.get(most, 0.0) > 0 else ""
    kind = _KIND.get(fact.channel or "") or by_block or "other"
    if "{liked}" in words[kind] and not liked:
        kind = by_block if by_block and "{liked}" not in words[by_block] else "other"
    if kind == "other" and fact.liked < 0:
        kind = "new"
    return words["item"].format(title=title, why=words[kind].format(liked=liked))


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
