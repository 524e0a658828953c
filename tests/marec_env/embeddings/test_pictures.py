"""Pictures of items: their vectors, who is recalled and scored by them, and what has none."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from agents.studies.data_check import tables_of
from marec_env.config.loader import load_mapping
from marec_env.data.config import DataConfig
from marec_env.data.log import load_log
from marec_env.embeddings import pictures
from marec_env.embeddings.vectors import nearest
from marec_env.environment_config import EnvironmentConfig
from marec_env.errors import AssetError, ConfigError, DataError
from marec_env.pipeline.ranking import BLOCKS
from marec_env.simulator import Simulator
from marec_env.world import World, build_world
from tests.worlds import first_channel_alone, small_environment

ITEMS, COLOURS = 120, 24
NONE, ABSENT, BROKEN = 5, 11, 17  # items whose cell is empty, whose file is not there, is none
WITHOUT = (NONE, ABSENT, BROKEN)


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP of one layer with random weights, as a user would save it."""
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    tower = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    vision = tower | {"image_size": 16, "patch_size": 8}
    text = tower | {"vocab_size": 20, "eos_token_id": 1}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24))
    model.save_pretrained(folder)
    size = {"height": 16, "width": 16}
    CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size=size).save_pretrained(folder)
    return folder


def write(path: Path, *rows: tuple[object, ...]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(rows)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A log whose items 24 apart have the same picture: halves of two colours of their own."""
    draw = torch.Generator().manual_seed(1)
    colours = torch.randint(256, (COLOURS, 6), generator=draw).tolist()
    for item in range(ITEMS):
        one = Image.new("RGB", (20, 14), tuple(colours[item % COLOURS][:3]))
        one.paste(tuple(colours[item % COLOURS][3:]), (0, 0, 10, 14))
        one.save(tmp_path / f"p{item}.png")
    (tmp_path / f"p{ABSENT}.png").unlink()
    (tmp_path / f"p{BROKEN}.png").write_bytes(b"\x89PNG and no more")
    images = ["" if item == NONE else f"p{item}.png" for item in range(ITEMS)]
    titles = [(f"i{n}", f"Item {n}", images[n]) for n in range(ITEMS)]
    write(tmp_path / "items.csv", ("item_id", "title", "image"), *titles)
    rows = [(f"u{u}", f"i{(u * 7 + n * 11) % ITEMS}", 5, n) for u in range(40) for n in range(20)]
    write(tmp_path / "interactions.csv", ("user_id", "item_id", "rating", "timestamp"), *rows)
    return tmp_path


def environment(folder: Path, encoder: Path | None, **embeddings: Any) -> EnvironmentConfig:
    section = small_environment(
        data={"source": str(folder)},
        pipeline={
            "candidates": 20,
            "slate_size": 5,
            "recall": {"channels": ("pictures", "popular")},
            "blocks": {"pictures": 0.01, "popularity": 0.01},
        },
    )
    section["embeddings"] |= {"cache_folder": str(folder / "cache"), **embeddings}
    if encoder is not None:
        section["embeddings"]["pictures"] = {"encoder": str(encoder), "batch_size": 7}
    return EnvironmentConfig.model_validate(section)


@pytest.fixture
def world(folder: Path, clip: Path) -> World:
    return build_world(environment(folder, clip))


def numbers_of(world: World) -> torch.Tensor:
    return torch.tensor([int(name[1:]) for name in world.log.item_ids])


def encoded(folder: Path, paths: list[Path]) -> torch.Tensor:
    section = pictures.PicturesConfig(encoder=str(folder), batch_size=2)
    named = {str(number): path for number, path in enumerate(paths)}
    files = pictures.in_folder(str(folder), None)
    device = torch.device("cpu")
    encoder = pictures.PictureEncoder(section, files, named, torch.float32, device)
    return encoder.encode([*named])


@pytest.mark.parametrize("pooler", [True, False])
def test_vectors_are_those_of_transformers(tmp_path: Path, clip: Path, pooler: bool) -> None:
    """CLIP's of the shared space, a vision transformer's pooler or, without one, first token."""
    from transformers import CLIPModel, ViTConfig, ViTImageProcessorPil, ViTModel

    torch.manual_seed(3)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = ViTConfig(image_size=16, patch_size=8, intermediate_size=8, **shape)
    vit = ViTModel(config, add_pooling_layer=pooler).eval()
    vit.save_pretrained(tmp_path)
    processor = ViTImageProcessorPil(size={"height": 16, "width": 16})
    processor.save_pretrained(tmp_path)
    modes = {"RGB": (200, 10, 90), "RGBA": (0, 90, 200, 255), "L": 77, "P": 3}
    paths = []
    for mode, colour in modes.items():
        paths.append(tmp_path / f"{mode}.png")
        image = Image.new(mode, (30, 18), colour)
        image.paste(0, (0, 0, 12, 9))
        image.save(paths[-1])
    opened = [Image.open(path).convert("RGB") for path in paths]
    with torch.inference_mode():
        found = vit(processor(opened, return_tensors="pt")["pixel_values"])
        expected = found.pooler_output if pooler else found.last_hidden_state[:, 0]
    normal = torch.nn.functional.normalize
    assert torch.allclose(encoded(tmp_path, paths), normal(expected, dim=1), atol=1e-5)
    from transformers import AutoImageProcessor

    pixels = AutoImageProcessor.from_pretrained(clip)(opened, return_tensors="pt")
    with torch.inference_mode():
        expected = CLIPModel.from_pretrained(clip).get_image_features(**pixels).pooler_output
    mine = encoded(clip, paths)
    assert mine.shape == (4, 24) and mine.std(0).max() > 0.01
    assert torch.allclose(mine, normal(expected, dim=1), atol=1e-5)


def test_unknown_vectors_are_nobodys_neighbours() -> None:
    items = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0], [-0.8, 0.6]])
    found = nearest(items, items, 3, torch.arange(4))
    assert found.tolist() == [[3, 1, -1], [3, 0, -1], [-1, -1, -1], [1, 0, -1]]


def test_what_looks_like_the_latest_like_is_recalled_first(world: World) -> None:
    number, neighbours = numbers_of(world), world.knowledge.picture_neighbours
    assert neighbours is not None
    same = number % COLOURS
    for item in range(ITEMS):
        if int(number[item]) in WITHOUT:
            assert (neighbours[item] == -1).all()
            continue
        twins = (same == same[item]) & ~torch.isin(number, torch.tensor(WITHOUT))
        first = neighbours[item, : int(twins.sum()) - 1]
        assert set(first.tolist()) == set(twins.nonzero()[:, 0].tolist()) - {item}
    assert not torch.isin(number[neighbours[neighbours >= 0]], torch.tensor(WITHOUT)).any()
    recent, request = first_channel_alone(world)
    brought = 0
    for row in range(len(recent)):
        liked = recent[row][recent[row] >= 0]
        near = set(neighbours[liked].flatten().tolist())
        items = request.candidates[row][request.candidate_channel[row] == 0]
        assert set(items.tolist()) <= near - {-1}
        brought += len(items)
    assert brought > 50
    assert (request.candidates >= 0).all()  # an item without a picture is no gap


def test_the_block_scores_by_the_liked_pictures_and_masks_the_others(world: World) -> None:
    vectors, number = world.knowledge.pictures, numbers_of(world)
    assert vectors is not None and vectors.shape == (ITEMS, 8)
    simulator = Simulator(world, 4)
    simulator.reset(seed=0)
    simulator.step(simulator.default_actions())
    request = simulator.last.request
    memory = request.memory
    memory.recent[:] = -1
    places = {int(n): place for place, n in enumerate(number.tolist())}
    memory.recent[1, :2] = torch.tensor([places[30], places[NONE]])
    candidates = torch.tensor([places[n] for n in (54, 31, NONE, BROKEN, 78)]).expand(4, -1)
    scores = BLOCKS.get("pictures")(request, candidates)
    likeness = vectors[places[30]] @ vectors[places[31]]
    expected = torch.tensor([1.0, likeness, (2 + likeness) / 3, (2 + likeness) / 3, 1.0])
    assert torch.allclose(scores[1], expected, atol=1e-5) and likeness < 0.9
    assert (scores[[0, 2, 3]] == 0).all()  # nothing is liked


def test_what_has_none_is_told_and_other_runs_are_as_before(
    folder: Path, clip: Path, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    line = (
        "3 of 120 items have no picture: 1 name none, 1 a file that is not there or closed to you, "
        f"1 one that cannot be read, first {folder}/p{BROKEN}.png"
    )
    [told] = [one for one in world.log.warnings if "picture" in one]
    assert told.startswith(line)
    log = load_log(DataConfig(source=str(folder)))
    assert dict(tables_of(log, DataConfig(source=str(folder)))[0].rows)["pictures"] == line
    plain = build_world(environment(folder, None))
    assert plain.pictures is None and plain.knowledge.pictures is None
    assert torch.equal(plain.population.user_factors, world.population.user_factors)
    assert torch.equal(plain.catalog.topics, world.catalog.topics)
    silent = Simulator(plain, 2)
    silent.reset(seed=0)
    with pytest.raises(ConfigError, match=r"reads pictures .*embeddings\.pictures: \{encoder:"):
        silent.step(silent.default_actions())


def test_pictures_are_public_where_the_log_is_private(
    folder: Path, clip: Path, world: World
) -> None:
    config = environment(folder, clip).model_dump()
    config["data"]["privacy"] = {"epsilon": 3.0, "users": "release"}
    drawn = build_world(EnvironmentConfig.model_validate(config))
    assert drawn.log.user_ids[0] == "drawn-0"
    assert torch.equal(drawn.knowledge.pictures, world.knowledge.pictures)


def test_vectors_come_from_the_cache_without_decoding_until_a_file_changes(
    folder: Path, clip: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert build_world(environment(folder, clip)).knowledge is world.knowledge
    decoded: list[Path] = []
    reader = pictures.read_picture
    monkeypatch.setattr(pictures, "read_picture", lambda p: (decoded.append(p), reader(p))[1])
    (folder / "p3.png").touch()  # its content is the same
    again = build_world(environment(folder, clip))
    assert again.knowledge is not world.knowledge and not decoded
    assert torch.equal(again.knowledge.pictures, world.knowledge.pictures)
    assert again.pictures.fingerprint == world.pictures.fingerprint
    (folder / "p30.png").rename(folder / "p3.png")
    changed = build_world(environment(folder, clip))
    assert len(decoded) == COLOURS + 1  # of equal files one; all of a part of the cache
    assert changed.pictures.fingerprint != world.pictures.fingerprint
    assert "31" not in changed.pictures.line and "4 of 120" in changed.pictures.line
    build_world(environment(folder, clip, cache=False))
    assert len(decoded) == 2 * (COLOURS + 1)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("https://shop.example/1.png", "not a link: download the pictures, found 'https://shop"),
        ("../1.png", r"without '\.\.', found '\.\./1\.png'"),
        ("/etc/1.png", "by its path from there"),
    ],
)
def test_a_picture_elsewhere_is_refused(folder: Path, name: str, said: str) -> None:
    rows = [(f"i{n}", f"Item {n}", name if n == 1 else "") for n in range(ITEMS)]
    write(folder / "items.csv", ("item_id", "title", "image"), *rows)
    match = rf"items\.csv: 1 bad row of 120: 'image' must.*{said}"
    with pytest.raises(DataError, match=match) as told:
        load_log(DataConfig(source=str(folder)))
    assert "line 3" in str(told.value) and "\n" not in str(told.value)


def test_a_way_out_of_the_folder_is_refused(folder: Path, clip: Path, tmp_path: Path) -> None:
    outside = tmp_path.parent / "outside.png"
    Image.new("RGB", (4, 4)).save(outside)
    (folder / "p2.png").unlink()
    (folder / "p2.png").symlink_to(outside)
    with pytest.raises(DataError, match=r"'p2\.png' leads out of"):
        build_world(environment(folder, clip))


def test_what_cannot_embed_pictures_is_told_in_a_line(
    folder: Path, clip: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    with pytest.raises(AssetError, match=r"cannot embed pictures with .* must be an image model"):
        build_world(environment(folder, tiny_bert))
    with pytest.raises(AssetError, match=r"'nowhere' is neither a folder that exists, nor a hub"):
        build_world(environment(folder, Path("nowhere")))
    from safetensors.torch import load_file, save_file

    part = tmp_path / "part"
    part.mkdir()
    for path in clip.glob("*.json"):
        (part / path.name).write_bytes(path.read_bytes())
    weights = load_file(clip / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, part / "model.safetensors", {"format": "pt"})
    with pytest.raises(AssetError, match=r"lacks 1 weights, first visual_projection\.weight"):
        build_world(environment(folder, part))
    for item in range(ITEMS):
        (folder / f"p{item}.png").unlink(missing_ok=True)
    with pytest.raises(DataError, match=r"120 of 120 items have no picture: 1 name none, 119 a"):
        build_world(environment(folder, clip))
    config = environment(folder, clip)
    source = config.data.model_copy(update={"source": "synthetic/streaming"})
    with pytest.raises(DataError, match=r"names no pictures; give items\.csv a column 'image'"):
        build_world(config.model_copy(update={"data": source}))
    with pytest.raises(ConfigError, match=r"modality is gone: .* pictures by embeddings\.pictures"):
        load_mapping({"embeddings": {"modality": "image"}}, EnvironmentConfig, "a file")


def test_a_picture_is_upright_and_of_a_known_kind_and_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from marec_env.data import pictures as files

    image, turned = Image.new("RGB", (20, 5)), Image.Exif()
    turned[0x0112] = 6  # orientation: lies on its side
    image.save(tmp_path / "p.png", exif=turned)
    assert files.read_picture(tmp_path / "p.png").size == (5, 20)
    image.save(tmp_path / "p.eps")  # opened by another program
    assert files.read_picture(tmp_path / "p.eps") is None
    monkeypatch.setattr(files, "_MOST_PIXELS", 99)
    assert files.read_picture(tmp_path / "p.png") is None
