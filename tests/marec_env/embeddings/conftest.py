"""Tiny randomly initialised models, saved as a user would save them, and the asset package."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from marec_env.embeddings import EmbeddingConfig
from marec_env.embeddings.assets import locate
from marec_env.errors import AssetError

WORDS = re.findall(
    r"\S+",
    "[PAD] [UNK] [CLS] [SEP] [MASK] the a film about love war and peace toy story 1995 comedy "
    "drama robot space child . , ! ? x y z | ##s ##ing ##er in of on young man woman",
)


@pytest.fixture(scope="session")
def minilm():
    """The folder of the asset package's model."""
    try:
        files = locate(EmbeddingConfig(encoder="minilm"))
    except AssetError as error:
        pytest.skip(str(error))
    return files.folder


def write_tokenizer(folder: Path, special: bool = True) -> None:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    vocabulary = {word: number for number, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    if special:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    tokenizer.save(str(folder / "tokenizer.json"))


def save_model(model, folder: Path, special: bool = True) -> Path:
    model.eval().save_pretrained(folder)
    write_tokenizer(folder, special)
    return folder


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory):
    """A BERT of two layers and 32 dimensions with weights large enough to matter."""
    return small_bert(tmp_path_factory.mktemp("bert"), scale=0.2)


@pytest.fixture(scope="session")
def trainable_bert(tmp_path_factory):
    """The same with weights small enough to learn from scratch."""
    return small_bert(tmp_path_factory.mktemp("trainable"), scale=0.05)


def small_bert(folder: Path, scale: float) -> Path:
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=scale,
    )
    model = BertModel(config)
    torch.nn.init.normal_(model.embeddings.word_embeddings.weight)  # words that stand apart
    return save_model(model, folder)


@pytest.fixture(scope="session")
def tiny_roberta(tmp_path_factory):
    from transformers import RobertaConfig, RobertaModel

    torch.manual_seed(1)
    config = RobertaConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=66,
        type_vocab_size=1,
        pad_token_id=0,
        initializer_range=0.2,
    )
    return save_model(RobertaModel(config), tmp_path_factory.mktemp("roberta"))


@pytest.fixture(scope="session")
def tiny_decoder(tmp_path_factory):
    from transformers import GPT2Config, GPT2Model

    torch.manual_seed(2)
    config = GPT2Config(
        vocab_size=len(WORDS), n_embd=32, n_layer=2, n_head=4, n_positions=64, initializer_range=0.2
    )
    return save_model(GPT2Model(config), tmp_path_factory.mktemp("gpt"), special=False)


@pytest.fixture(scope="session")
def tiny_distilbert(tmp_path_factory):
    from transformers import DistilBertConfig, DistilBertModel

    torch.manual_seed(3)
    config = DistilBertConfig(
        vocab_size=len(WORDS), dim=32, n_layers=2, n_heads=4, hidden_dim=64,
        max_position_embeddings=64, initializer_range=0.2,
    )  # fmt: skip
    return save_model(DistilBertModel(config), tmp_path_factory.mktemp("distilbert"))


@pytest.fixture
def tiny(tiny_bert, tmp_path):
    """Configuration of the tiny BERT in float32 with a cache of its own."""
    return EmbeddingConfig(
        encoder=str(tiny_bert), dtype="fp32", max_length=64, cache_folder=str(tmp_path / "cache")
    )


@pytest.fixture
def reference():
    """Vectors by transformers, one text at a time, without padding or batches."""

    def compute(folder: Path, texts, pooling="mean", max_length=64):
        from tokenizers import Tokenizer
        from transformers import AutoModel

        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_length)
        model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
        out = []
        for text in texts:
            ids = torch.tensor([tokenizer.encode(text).ids or [0]])
            with torch.inference_mode():
                state = model(input_ids=ids, attention_mask=torch.ones_like(ids))
            states = state.last_hidden_state[0]
            pooled = {"mean": states.mean(0), "cls": states[0], "last": states[-1]}[pooling]
            out.append(torch.nn.functional.normalize(pooled, dim=0))
        return torch.stack(out)

    return compute


@pytest.fixture
def write_config():
    def write(folder: Path, **values) -> None:
        (folder / "config.json").write_text(json.dumps(values))
        save_file({"x": torch.zeros(1)}, folder / "model.safetensors")

    return write
