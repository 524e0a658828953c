import json

import pytest
import torch

from marec_env.embeddings import EmbeddingConfig, embed_images, embed_texts, fit_reduction
from marec_env.embeddings.config import ReductionConfig
from marec_env.errors import ConfigError, DataError

Image = pytest.importorskip("PIL.Image")

COLOURS = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (90, 90, 10)]


@pytest.fixture(scope="session")
def tiny_vit(tmp_path_factory):
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("vit")
    config = ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        image_size=32, patch_size=8, initializer_range=0.2,
    )  # fmt: skip
    ViTModel(config, add_pooling_layer=False).eval().save_pretrained(folder)
    processor = {
        "size": {"height": 32, "width": 32},
        "image_mean": [0.4] * 3,
        "image_std": [0.2] * 3,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


@pytest.fixture(scope="session")
def tiny_cnn(tmp_path_factory):
    from transformers import ResNetConfig, ResNetModel

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("resnet")
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    ResNetModel(config).eval().save_pretrained(folder)
    return folder


@pytest.fixture
def pictures(tmp_path):
    paths = []
    for number, colour in enumerate(COLOURS):
        path = tmp_path / f"{number}.png"
        picture = Image.new("RGB", (40, 50), colour)
        picture.paste((255, 255, 255), (0, 0, 5 + 5 * number, 20))
        picture.save(path)
        paths.append(str(path))
    return paths


def config_for(folder, tmp_path, **changes):
    return EmbeddingConfig(
        encoder=str(folder), modality="image", dtype="fp32", cache_folder=str(tmp_path / "cache"),
        **changes,
    )  # fmt: skip


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_equal_to_transformers(tiny_vit, pictures, tmp_path, pooling):
    from transformers import ViTModel

    ours = embed_images(config_for(tiny_vit, tmp_path, pooling=pooling), pictures, device="cpu")
    model = ViTModel.from_pretrained(tiny_vit, add_pooling_layer=False).eval()
    for path, vector in zip(pictures, ours, strict=True):
        with Image.open(path) as image:
            levels = torch.tensor(list(image.resize((32, 32), Image.Resampling.BICUBIC).tobytes()))
        pixels = (levels.view(32, 32, 3).permute(2, 0, 1) / 255.0 - 0.4) / 0.2
        with torch.inference_mode():
            states = model(pixel_values=pixels.unsqueeze(0)).last_hidden_state[0]
        pooled = states[0] if pooling == "cls" else states.mean(0)
        assert torch.allclose(vector, torch.nn.functional.normalize(pooled, dim=0), atol=1e-5)
    assert len(ours.unique(dim=0)) == len(COLOURS)


def test_a_convolutional_network_works_too(tiny_cnn, pictures, tmp_path):
    vectors = embed_images(config_for(tiny_cnn, tmp_path), pictures)
    assert vectors.shape == (4, 16) and torch.allclose(vectors.norm(dim=1), torch.ones(4))


def test_items_without_an_image_are_zeros_all_the_way(tiny_vit, pictures, tmp_path):
    paths = [pictures[0], None, pictures[1], "", pictures[2], pictures[3]]
    config = config_for(tiny_vit, tmp_path)
    vectors = embed_images(config, paths)
    assert vectors.any(dim=1).tolist() == [True, False, True, False, True, True]
    section = ReductionConfig(dimension=3)
    reduction = fit_reduction(section, vectors)
    without = fit_reduction(section, vectors[[0, 2, 4, 5]])
    assert torch.allclose(reduction.projection, without.projection)
    assert not reduction.apply(vectors)[[1, 3]].any()
    assert embed_images(config, [None]).shape == (1, 32)


def test_the_cache_goes_by_content(tiny_vit, pictures, tmp_path, monkeypatch):
    config = config_for(tiny_vit, tmp_path)
    first = embed_images(config, [*pictures, pictures[0]])
    assert torch.equal(first[0], first[-1])
    (tmp_path / "moved.png").write_bytes((tmp_path / "2.png").read_bytes())
    changed = embed_images(config, [pictures[0], str(tmp_path / "moved.png")])
    assert torch.allclose(changed[1], first[2], atol=1e-6)
    (tmp_path / "0.png").write_bytes((tmp_path / "1.png").read_bytes())
    assert torch.allclose(embed_images(config, pictures)[0], first[1], atol=1e-6)

    def refuse(*_):
        raise AssertionError("embedded again")

    monkeypatch.setattr("marec_env.embeddings.embed.ImageEncoder", refuse)
    again = embed_images(config, [pictures[1], None, str(tmp_path / "moved.png"), pictures[3]])
    assert torch.equal(again[0], first[1]) and not again[1].any()


def test_bad_files_name_themselves(tiny_vit, pictures, tmp_path):
    (tmp_path / "bad.png").write_text("not an image")
    config = config_for(tiny_vit, tmp_path)
    with pytest.raises(DataError, match=r"absent\.png' cannot be read: No such file"):
        embed_images(config, [str(tmp_path / "absent.png")])
    with pytest.raises(DataError, match=r"bad\.png' cannot be read: cannot identify image"):
        embed_images(config, [*pictures, str(tmp_path / "bad.png")])


def test_modalities_are_not_mixed_up(tiny_vit, tiny, tmp_path):
    with pytest.raises(ConfigError, match="modality is 'image', but texts"):
        embed_texts(config_for(tiny_vit, tmp_path), ["a film"])
    with pytest.raises(ConfigError, match="modality is 'text', but images"):
        embed_images(tiny, ["a.png"])
