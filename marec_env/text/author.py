"""Texts from facts: by a model where there is one, kept, counted, and never without a text.

What a model writes is kept in a file of JSON lines; its first line says by which model and settings
(weights, temperature, seed), the others hold a prompt's hash, its text and its tokens. The
file is written whole after each batch. It is what ``kind: replay`` reads.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from marec_env.errors import ConfigError, DataError, visible
from marec_env.io import write_text
from marec_env.text.config import (
    OpenAIText,
    ReplayText,
    TemplateText,
    TextConfig,
    TextModelConfig,
    WrittenText,
)
from marec_env.text.models import Message, Reply, Schema, TextModel, open_model

if TYPE_CHECKING:  # a served team tells reasons without encoders
    from marec_env.embeddings.config import EmbeddingConfig

_BATCH = 64  # prompts between two writings of the file
_LETTERS_A_TOKEN = 3.5  # for the estimate before a run


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model is told, and the text that stands where none writes."""

    system: str
    user: str
    template: str
    """Made from the same facts, deterministically; of scores, as JSON."""
    schema: Schema | None = None
    """The JSON form of a reply."""
    options: tuple[str, ...] = ()
    """Where a choice among these is to be scored instead of a text written."""

    @property
    def key(self) -> str:
        """SHA-256 of what the model is told."""
        form = self.schema and json.dumps(dict(self.schema), sort_keys=True)
        told = (self.system, self.user, form or "", *self.options)
        return hashlib.sha256("\0".join(told).encode()).hexdigest()


@dataclass(slots=True)
class TextReport:
    """What the texts of a run took; where no model was asked, all but ``texts`` are zero."""

    model: str = "template"
    texts: int = 0
    """Asked for."""
    scores: int = 0
    """Asked for: choices among options."""
    cached: int = 0
    """Read from the file."""
    calls: int = 0
    """Of the model, repeated ones included."""
    retried: int = 0
    templates: int = 0
    """Texts and scores for which the template stands since the model failed."""
    problems: dict[str, int] = field(default_factory=dict)
    """Calls that failed, by why."""
    tokens_read: int = 0
    tokens_written: int = 0
    seconds: float = 0.0
    """Of the model."""
    cost: float = 0.0
    file: str = ""
    """Where the texts are kept."""

    def __str__(self) -> str:
        """Return one line."""
        scores = f" and {self.scores:,} scores" if self.scores else ""
        parts = [f"{self.texts:,} texts{scores} by {self.model}"]
        if self.model != "template":
            parts += [
                f"{self.cached:,} from {self.file or 'no file'}",
                f"{self.calls:,} calls ({self.retried:,} repeated)",
                f"{self.tokens_read:,} tokens read and {self.tokens_written:,} written in "
                f"{self.seconds:.1f} s",
                f"the template's for {self.templates:,}",
            ]
        parts += [f"{count:,} x {problem}" for problem, count in sorted(self.problems.items())]
        parts += [f"cost {self.cost:.4f}"] if self.cost else []
        return "; ".join(parts)

    def record(self) -> dict[str, Any]:
        """Return it for a manifest: what is the same when the run is made again."""
        return {
            name: value
            for name, value in asdict(self).items()
            if name in ("model", "texts", "scores", "templates", "file")
        }


class Author:
    """Writes texts by a configured model; ``report`` says what that took so far."""

    def __init__(
        self,
        config: TextModelConfig,
        folder: Path,
        say: Callable[[str], None] = lambda line: print(visible(line), file=sys.stderr),
        model: Callable[[WrittenText], TextModel] = open_model,
    ) -> None:
        """Args:
        config: who writes.
        folder: where what is written is kept.
        say: receives a line before a model is asked, and one after.
        model: opens the model; it is called when a text is missing only.
        """
        self._config, self._folder, self._say, self._open = config, folder, say, model
        self._model: TextModel | None = None
        self.report = TextReport()

    @classmethod
    def of(cls, config: TextConfig, embeddings: EmbeddingConfig) -> Author:
        """Return the author of a configuration; by default texts lie in the embeddings' cache."""
        folder = Path(config.folder) if config.folder else embeddings.cache_root() / "texts"
        return cls(config.model, folder.expanduser())

    def write(
        self,
        prompts: Sequence[Prompt],
        read: Callable[[Prompt, str], str | None] = lambda prompt, reply: reply.strip() or None,
    ) -> list[str]:
        """Return a text for each prompt, in order.

        Args:
            prompts: all of one schema, without options; equal ones are written once.
            read: from prompt and reply to the text, ``None`` for what is not usable.

        Raises:
            ConfigError: it would take more calls than ``max_calls``.
            DataError: a replay lacks a text.
        """
        self.report.texts += len(prompts)
        return self._texts(prompts, read)

    def score(self, prompts: Sequence[Prompt]) -> Tensor:
        """Return the log-probability of each option of each prompt, float32 ``[P, options]``.

        Args:
            prompts: all with as many options; equal ones are scored once.

        Raises:
            ConfigError, DataError: as :meth:`write`.
        """
        self.report.scores += len(prompts)
        return torch.tensor([json.loads(text) for text in self._texts(prompts, _scores)])

    def _texts(
        self, prompts: Sequence[Prompt], read: Callable[[Prompt, str], str | None]
    ) -> list[str]:
        config = self._config
        if isinstance(config, TemplateText):
            return [prompt.template for prompt in prompts]
        wanted = {prompt.key: prompt for prompt in prompts}
        if isinstance(config, ReplayText):
            kept = self._replayed(Path(config.file).expanduser(), wanted)
        else:
            kept = self._written(config, wanted, read)
        texts = {key: kept.get(key) or prompt.template for key, prompt in wanted.items()}
        return [texts[prompt.key] for prompt in prompts]

    def _replayed(self, path: Path, wanted: Mapping[str, Prompt]) -> dict[str, str | None]:
        _, kept = _read(path)
        missing = [prompt for key, prompt in wanted.items() if key not in kept]
        if missing:
            raise DataError(
                f"{path} lacks {len(missing)} of {len(wanted)} texts (the first is of "
                f"{missing[0].user[:60]!r}): it was written for other data or settings; use the "
                "file of the run that is to be repeated"
            )
        self.report.model, self.report.file = "replay", str(path)
        self.report.cached += len(wanted)
        self.report.templates += sum(not kept[key] for key in wanted)
        return kept

    def _written(
        self,
        config: WrittenText,
        wanted: Mapping[str, Prompt],
        read: Callable[[Prompt, str], str | None],
    ) -> dict[str, str | None]:
        report = self.report
        model = self._model = self._model or self._open(config)
        report.model = model.name
        facts = {
            "model": model.name,
            "temperature": config.temperature,
            "seed": config.seed,
            "max_tokens": config.max_tokens,
        }
        name = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
        path = self._folder / f"{name}.jsonl"
        report.file = str(path)
        kept = _read(path)[1] if path.exists() else {}
        todo = [
            prompt
            for key, prompt in wanted.items()
            if not kept.get(key) and not (key in kept and _says_the_same(config))
        ]
        report.cached += len(wanted) - len(todo)
        if not todo:
            report.templates += sum(not kept[key] for key in wanted)
            return kept
        self._plan(config, todo)
        started = time.perf_counter()
        for start in range(0, len(todo), _BATCH):
            batch = todo[start : start + _BATCH]
            texts = self._attempts(config, model, batch, read)
            kept |= dict(zip([one.key for one in batch], texts, strict=True))
            lines = [{"key": key, "text": text} for key, text in kept.items()]
            write_text(
                path, "\n".join(json.dumps(line, ensure_ascii=False) for line in (facts, *lines))
            )
        report.seconds += time.perf_counter() - started
        report.templates += sum(not kept.get(key) for key in wanted)
        self._say(f"texts: {report}")
        return kept

    def _plan(self, config: WrittenText, todo: Sequence[Prompt]) -> None:
        """Say what is to come, and refuse what would be too much."""
        told = sum(len("".join((one.system, one.user, *one.options))) for one in todo)
        tokens = int(told / _LETTERS_A_TOKEN)
        most = sum(1 if one.options else config.max_tokens for one in todo)
        line = (
            f"texts: {len(todo):,} calls of {self.report.model}, about {tokens:,} tokens to read "
        )
        line += f"and at most {most:,} to write"
        if cost := _cost(config, tokens, most):
            line += f"; they cost at most about {cost:.4f}"
        left = config.max_calls - self.report.calls
        if len(todo) > left:
            raise ConfigError(
                f"{line}; environment.text.model.max_calls allows {left:,} more: raise it, or use "
                "kind: template"
            )
        self._say(line)

    def _attempts(
        self,
        config: WrittenText,
        model: TextModel,
        batch: Sequence[Prompt],
        read: Callable[[Prompt, str], str | None],
    ) -> list[str | None]:
        report = self.report
        found: list[str | None] = [None] * len(batch)
        wait = config.backoff if isinstance(config, OpenAIText) else 0.0
        for attempt in range(1 if _says_the_same(config) else config.attempts):
            left = [place for place, text in enumerate(found) if text is None]
            left = left[: config.max_calls - report.calls]
            if not left:
                break
            if attempt and wait:
                time.sleep(wait * 2 ** (attempt - 1))
            again = [batch[place] for place in left]
            asked: list[Message] = [(one.system, one.user) for one in again]
            replies = (
                model.score(asked, [one.options for one in again])
                if again[0].options
                else model.complete(asked, again[0].schema)
            )
            report.calls += len(left)
            report.retried += len(left) * bool(attempt)
            for place, reply in zip(left, replies, strict=True):
                found[place] = self._usable(batch[place], reply, read)
        return found

    def _usable(
        self, prompt: Prompt, reply: Reply, read: Callable[[Prompt, str], str | None]
    ) -> str | None:
        report = self.report
        report.tokens_read += reply.read
        report.tokens_written += reply.written
        report.cost += _cost(self._config, reply.read, reply.written)
        text = read(prompt, reply.text) if reply.text.strip() else None
        if text is None:
            problem = reply.problem or ("malformed" if reply.text.strip() else "empty")
            report.problems[problem] = report.problems.get(problem, 0) + 1
        return text


def _says_the_same(config: WrittenText) -> bool:
    """Whether a model, asked again, would: a local one that does not sample."""
    return not isinstance(config, OpenAIText) and config.temperature == 0


def _scores(prompt: Prompt, reply: str) -> str | None:
    """Return scores in a reply; ``None`` where they are not one finite number an option."""
    try:
        found = [float(score) for score in json.loads(reply)]
    except (ValueError, TypeError):
        return None
    good = len(found) == len(prompt.options) and all(map(isfinite, found))
    return json.dumps(found) if good else None


def _cost(config: TextModelConfig, read: int, written: int) -> float:
    if not isinstance(config, OpenAIText):
        return 0.0
    return (read * config.price_in + written * config.price_out) / 1e6


def _read(path: Path) -> tuple[dict[str, Any], dict[str, str | None]]:
    """Return what a file of texts says of its model, and its texts by prompt.

    Raises:
        DataError: it is no such file.
    """
    try:
        first, *lines = (json.loads(line) for line in path.read_text("utf-8").splitlines())
        texts = {line["key"]: line["text"] for line in lines}
        good = isinstance(first, dict) and all(
            text is None or isinstance(text, str) for text in texts.values()
        )
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(f"{path} is no file of texts as a run leaves it: {error}") from error
    if not good:
        raise DataError(f"{path} is no file of texts as a run leaves it")
    return first, texts
