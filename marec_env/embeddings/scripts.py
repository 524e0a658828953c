"""Whether an encoder reads the script of its texts."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from marec_env.embeddings.assets import EncoderFiles
from marec_env.embeddings.tokens import load_tokenizer

_SAMPLE = 1000  # texts looked at, evenly spread
_NOTICEABLE = 0.05  # share of the texts from which a script counts
_MOSTLY = 0.8  # share of letters without a piece of their own from which it is not read
_KNOWN_PIECES = 2000  # of a vocabulary: a model trained on Chinese by characters has some thousands
_TAUGHT = "LATIN"
_NAMES = {"CJK": "Chinese", "HIRAGANA": "Japanese", "KATAKANA": "Japanese"}


@lru_cache(maxsize=1 << 16)
def _script(letter: str) -> str:
    """Return the script of a letter as Unicode names it (``CJK``, ``CYRILLIC``), else nothing."""
    return unicodedata.name(letter, "").split(" ")[0].split("-")[0] if letter.isalpha() else ""


def unread_script(files: EncoderFiles, texts: Sequence[str]) -> str:
    """Return a line of warning if many texts are in a script that the encoder does not read.

    It is not read where the tokenizer leaves most of its letters unknown or in pieces of one
    letter, and has few pieces of it. English alone costs no look at the tokenizer.
    """
    sample = texts[:: max(1, len(texts) // _SAMPLE)]
    of_script: dict[str, list[str]] = {}
    for text in sample:
        if not text.isascii():
            counts = Counter(script for letter in text if (script := _script(letter)))
            chief = max(counts, key=lambda name: counts[name], default=_TAUGHT)
            of_script.setdefault(chief, []).append(text)
    of_script.pop(_TAUGHT, None)
    script, found = max(of_script.items(), key=lambda pair: len(pair[1]), default=("", []))
    if not found or len(found) < _NOTICEABLE * len(sample):
        return ""
    tokenizer = load_tokenizer(files.folder)
    vocabulary = tokenizer.get_vocab()
    pieces = sum(any(_script(letter) == script for letter in piece) for piece in vocabulary)
    if pieces >= _KNOWN_PIECES or _share_unread(tokenizer, script, found) < _MOSTLY:
        return ""
    return (
        f"{len(found) / len(sample):.0%} of the texts are in {_NAMES.get(script, script.title())} "
        f"script, which encoder '{files.name}' does not read (most of it is unknown to its "
        "tokenizer, or single letters): set environment.embeddings.encoder to multilingual, or to "
        "a model of the language"
    )


def _share_unread(tokenizer: Any, script: str, texts: Sequence[str]) -> float:
    """Return the share of a script's letters that are in no known piece of two letters or more."""
    model = json.loads(tokenizer.to_str())["model"]
    unknown = tokenizer.token_to_id(model.get("unk_token") or "")
    unknown = model.get("unk_id") if unknown is None else unknown
    letters = read = 0
    for text, encoded in zip(texts, tokenizer.encode_batch(list(texts)), strict=True):
        letters += sum(_script(letter) == script for letter in text)
        for piece, (start, end) in zip(encoded.ids, encoded.offsets, strict=True):
            held = sum(_script(letter) == script for letter in text[start:end])
            read += held if held > 1 and piece != unknown else 0
    return 1.0 - read / letters
