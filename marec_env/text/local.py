"""A causal language model in a local folder, by transformers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import accumulate
from math import inf
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from marec_env.embeddings.assets import EncoderFiles
from marec_env.errors import AssetError
from marec_env.text.config import TransformersText
from marec_env.text.models import Message, Reply, Schema, normalised

_TOO_LONG = "longer than the model takes"


class LocalModel:
    """Completes batches of ``concurrency`` prompts, padded on the left."""

    def __init__(self, config: TransformersText) -> None:
        """Raises:
        AssetError: the folder holds no causal language model with its tokenizer.
        """
        from transformers import AutoModelForCausalLM, AutoTokenizer

        folder = Path(config.folder).expanduser()
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(
                str(folder), local_files_only=True, padding_side="left"
            )
            model: Any = AutoModelForCausalLM.from_pretrained(
                str(folder), local_files_only=True, use_safetensors=True
            )
        except (OSError, ValueError, ImportError) as error:
            raise AssetError(f"environment.text.model.folder: {folder}: {error}") from error
        self._model = model.eval()
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._config = config
        self._longest = getattr(self._model.config, "max_position_embeddings", None) or inf
        hashes = EncoderFiles(str(folder), folder, None).hashes()
        self.name = f"transformers {hashes['weights']} {hashes['interface']}"

    def _asked(self, prompts: Sequence[Message]) -> list[str]:
        """Return prompts in the model's own form of a conversation, if it has one."""
        if not self._tokenizer.chat_template:
            return [f"{system}\n\n{user}\n\n" for system, user in prompts]
        return [
            self._tokenizer.apply_chat_template(
                [{"role": "system", "content": system}, {"role": "user", "content": user}],
                tokenize=False,
                add_generation_prompt=True,
            )
            for system, user in prompts
        ]

    @torch.inference_mode()
    def complete(self, prompts: Sequence[Message], schema: Schema | None) -> list[Reply]:
        """See :class:`marec_env.text.models.TextModel`; a schema is not enforced."""
        asked, size = self._asked(prompts), self._config.concurrency
        batches = [asked[start : start + size] for start in range(0, len(asked), size)]
        return [reply for batch in batches for reply in self._completed(batch)]

    def _completed(self, asked: list[str]) -> list[Reply]:
        config, sampled = self._config, dict[str, Any](do_sample=False)
        if config.temperature > 0:
            sampled = {"do_sample": True, "temperature": config.temperature}
        batch = self._tokenizer(asked, padding=True, return_tensors="pt")
        if batch["input_ids"].shape[1] + config.max_tokens > self._longest:
            if len(asked) == 1:
                return [Reply("", problem=_TOO_LONG)]
            return [reply for one in asked for reply in self._completed([one])]
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            found = self._model.generate(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                max_new_tokens=config.max_tokens,
                pad_token_id=self._tokenizer.pad_token_id,
                **sampled,
            )
        new = found[:, batch["input_ids"].shape[1] :]
        texts = self._tokenizer.batch_decode(new, skip_special_tokens=True)
        read = batch["attention_mask"].sum(1).tolist()
        written = (new != self._tokenizer.pad_token_id).sum(1).tolist()
        return list(map(Reply, texts, read, written))

    @torch.inference_mode()
    def score(self, prompts: Sequence[Message], options: Sequence[Sequence[str]]) -> list[Reply]:
        """See :class:`marec_env.text.models.TextModel`: by the probability of an option's tokens
        after the prompt, whatever its length.
        """
        asked = self._asked(prompts)
        pairs = [
            (self._tokenizer(prompt)["input_ids"], self._tokenizer(
                option, add_special_tokens=False)["input_ids"])
            for prompt, choice in zip(asked, options, strict=True)
            for option in choice
        ]  # fmt: skip
        size = self._config.concurrency
        sums = [
            score
            for start in range(0, len(pairs), size)
            for score in self._log_probabilities(pairs[start : start + size])
        ]
        read, replies = [len(first) for first, _ in pairs], list[Reply]()
        for end, choice in zip(accumulate(map(len, options)), options, strict=True):
            these = slice(end - len(choice), end)
            if None in sums[these]:
                replies.append(Reply("", problem=_TOO_LONG))
                continue
            found = normalised([score for score in sums[these] if score is not None])
            replies.append(Reply(json.dumps(found), sum(read[these])))
        return replies

    def _log_probabilities(
        self, pairs: Sequence[tuple[list[int], list[int]]]
    ) -> list[float | None]:
        """Return the log-probability of each pair's second tokens after its first; ``None`` where
        they are more than the model takes.
        """
        longest = max(len(first) + len(then) for first, then in pairs)
        if longest > self._longest:
            if len(pairs) == 1:
                return [None]
            return [score for pair in pairs for score in self._log_probabilities([pair])]
        ids = torch.full((len(pairs), longest), self._tokenizer.pad_token_id)
        for row, (first, then) in enumerate(pairs):
            ids[row, : len(first) + len(then)] = torch.tensor(first + then)
        # Padding on the right, after all that is scored, is not seen by a causal model.
        scores: Tensor = self._model(input_ids=ids).logits[:, :-1].float().log_softmax(-1)
        found = scores.gather(2, ids[:, 1:].unsqueeze(2)).squeeze(2)
        return [
            float(found[row, len(first) - 1 : len(first) + len(then) - 1].sum())
            for row, (first, then) in enumerate(pairs)
        ]
