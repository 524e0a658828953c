"""A bundle holds all that recommending needs, loads fast, and says what is wrong with it."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save

from agents import Recommender
from agents.service.bundle import Bundle, load_bundle, save_bundle
from agents.service.slates import Recommendation
from marec_env.errors import ConfigError, RunError
from marec_env.io import sha256_of
from marec_env.pipeline import index
from marec_env.privacy.config import PrivacyConfig
from marec_env.world import build_world
from tests.agents.service.conftest import history_of, small_team

ROOT = Path(__file__).parents[3]


def test_recommends_what_the_team_recommends(bundle: Bundle, folder: Path) -> None:
    world, policy = small_team()
    here, there = Recommender(Bundle.of(world, policy)), Recommender.load(folder)
    for seed in range(5):
        history = history_of(bundle, seed, items=3 * seed)
        assert here.recommend(history, 5, seed=seed) == there.recommend(history, 5, seed=seed)
    assert repr(there).startswith("Recommender of 300 items of synthetic/streaming: profile")


def test_says_what_is_guaranteed_of_it(tmp_path: Path) -> None:
    world, _ = small_team()
    config = world.config
    data = config.data.model_copy(update={"privacy": PrivacyConfig(epsilon=3.0)})
    private = build_world(config.model_copy(update={"data": data}))
    save_bundle(Bundle.of(private, None), tmp_path / "private")
    assert private.release is not None
    assert load_bundle(tmp_path / "private").privacy == private.release.line
    save_bundle(Bundle.of(world, None), tmp_path / "open")
    assert load_bundle(tmp_path / "open").privacy == ""


def test_needs_neither_log_nor_encoder_nor_ray(folder: Path) -> None:
    code = (
        "import sys; from agents import Recommender;"
        f" r = Recommender.load({str(folder)!r}); print(r.recommend([], 1)[0].item);"
        " print([m for m in ('ray', 'transformers', 'wandb', 'implicit', 'agents.runs.trained',"
        " 'marec_env.world', 'marec_env.data.log', 'marec_env.embeddings') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, text=True
    )
    item, loaded = result.stdout.split("\n")[:2]
    assert loaded == "[]"
    assert item == Recommender.load(folder).recommend([], 1)[0].item


def test_holds_nothing_of_a_user(folder: Path) -> None:
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    actors = {f"actors/{agent}.safetensors" for agent in small_team()[1].team.agents}
    assert files == {
        "bundle.json", "pipeline.json", "items.json", "knowledge.safetensors", "policy.json",
    } | actors  # fmt: skip
    users = small_team()[0].log.num_users
    for tensor in load_file(folder / "knowledge.safetensors").values():
        assert tensor.shape[0] == 300 and users not in tensor.shape


def test_the_version_is_that_of_the_content(folder: Path, bundle: Bundle, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    assert load_bundle(tmp_path / "copy").version == bundle.version
    world, _ = small_team()
    save_bundle(Bundle.of(world, small_team(seed=1)[1]), tmp_path / "other")
    assert load_bundle(tmp_path / "other").version != bundle.version


def test_a_hand_set_team_plays_its_defaults(tmp_path: Path) -> None:
    world, _ = small_team()
    save_bundle(Bundle.of(world, None), tmp_path / "static")
    found = Recommender.load(tmp_path / "static").recommend([], 5)
    assert len(found) == 5 and found != Recommender(Bundle.of(*small_team())).recommend([], 5)


def test_all_that_is_known_of_the_items_is_kept(tmp_path: Path) -> None:
    first = Bundle.of(*small_team())
    more = {
        "user_texts": torch.rand(3, 8),
        "user_every": 7,
        "attributes": {"risk": torch.ones(300)},
    }
    knowledge = dataclasses.replace(first.knowledge, **more)
    save_bundle(dataclasses.replace(first, knowledge=knowledge), tmp_path / "more")
    found = load_bundle(tmp_path / "more").knowledge
    for item in dataclasses.fields(knowledge):
        here, there = getattr(knowledge, item.name), getattr(found, item.name)
        same = torch.equal(here, there) if isinstance(here, torch.Tensor) else True
        assert same and type(here) is type(there), item.name
    assert (found.user_every, found.version) == (7, knowledge.version)
    assert torch.equal(found.attributes["risk"], torch.ones(300))


def indexed() -> Bundle:
    """The plain team, whose catalog is searched by an index that nobody has divided yet."""
    pytest.importorskip("faiss")
    plain = Bundle.of(*small_team())
    recall = plain.pipeline.recall.model_copy(update={"index": "faiss", "index_above": 100})
    pipeline = plain.pipeline.model_copy(update={"recall": recall})
    return dataclasses.replace(
        plain, pipeline=pipeline, knowledge=dataclasses.replace(plain.knowledge)
    )


def rewritten(folder: Path, name: str, content: bytes | None) -> None:
    """Put a file in the place of a bundle's, or take it away, as its list of files has it."""
    head = json.loads((folder / "bundle.json").read_text())
    if content is None:
        (folder / name).unlink()
        del head["files"][name]
    else:
        (folder / name).write_bytes(content)
        head["files"][name] = sha256_of(folder / name)
    (folder / "bundle.json").write_text(json.dumps(head))


def test_how_an_index_divides_the_items_is_kept(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    histories = [history_of(bundle, seed) for seed in range(5)]

    def shown(team: Bundle) -> list[list[Recommendation]]:
        return [Recommender(team).recommend(one, 5, seed=3) for one in histories]

    wanted = shown(indexed())
    save_bundle(indexed(), tmp_path / "new")
    shutil.copytree(tmp_path / "new", tmp_path / "old")
    rewritten(tmp_path / "old", "indexes.safetensors", None)
    assert shown(load_bundle(tmp_path / "old")) == wanted  # divided anew
    monkeypatch.setattr(index, "_divide", None)
    assert shown(load_bundle(tmp_path / "new")) == wanted
    save_bundle(load_bundle(tmp_path / "new"), tmp_path / "again")
    assert load_bundle(tmp_path / "again").version == load_bundle(tmp_path / "new").version


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("text/lists", torch.full((300,), 69, dtype=torch.int32)),  # there are 0 ... 68
        ("text/lists", torch.full((300,), -1, dtype=torch.int32)),
        ("text/lists", torch.zeros(299, dtype=torch.int32)),
        ("text/lists", torch.zeros(300, dtype=torch.int64)),
        ("text/centres", torch.zeros(69, 3)),
        ("text/centres", None),
    ],
)
def test_a_division_of_other_items_is_refused(
    tmp_path: Path, part: str, value: torch.Tensor | None
) -> None:
    save_bundle(indexed(), tmp_path / "indexed")
    place = tmp_path / "indexed" / "indexes.safetensors"
    parts = load_file(place)
    assert len(parts["text/centres"]) == 69  # 4 times the root of 300
    parts |= {part: value}
    rewritten(
        tmp_path / "indexed", place.name, save({k: v for k, v in parts.items() if v is not None})
    )
    with pytest.raises(
        RunError, match=r"indexes\.safetensors cannot be read \(space 'text' is not"
    ):
        load_bundle(tmp_path / "indexed")


def changed(key: str, value: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        document = json.loads((folder / "bundle.json").read_text())
        document[key] = value
        (folder / "bundle.json").write_text(json.dumps(document))

    return change


def truncated(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-1])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (changed("format", 2), r"bundle\.json has format 2; .* reads 1 \.\.\. 1: update marec"),
        (changed("format", None), r"bundle\.json has format None"),
        (changed("settings", {}), r"bundle\.json: settings\.source: Field required; export"),
        (changed("files", {}), r"files: lacks items\.json"),
        (changed("files", {"../x": ""}), r"'\.\./x' lies outside the bundle"),
        (lambda folder: (folder / "bundle.json").write_text("{"), r"bundle\.json cannot be read"),
        (truncated("items.json"), r"items\.json is damaged: its SHA-256"),
        (truncated("knowledge.safetensors"), r"knowledge\.safetensors is damaged"),
        (truncated("actors/recall_0.safetensors"), r"recall_0\.safetensors is damaged"),
        (lambda folder: (folder / "policy.json").unlink(), r"policy\.json is missing; export"),
        (lambda folder: (folder / "bundle.json").unlink(), "is no bundle"),
    ],
)
def test_damage_is_named(
    folder: Path, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    damage(tmp_path / "copy")
    with pytest.raises(RunError, match=message):
        load_bundle(tmp_path / "copy")


def test_never_over_something_else(bundle: Bundle, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("kept")
    with pytest.raises(RunError, match=r"cannot write the bundle .*full: Directory not empty"):
        save_bundle(bundle, tmp_path / "full")
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
    (tmp_path / "empty").mkdir()
    save_bundle(bundle, tmp_path / "empty")
    assert load_bundle(tmp_path / "empty").version == bundle.version


def test_code_that_a_strangers_bundle_names_is_not_run(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    text = (tmp_path / "copy" / "pipeline.json").read_text()
    stranger = text.replace('"diverse"', '"os:getcwd"')
    rewritten(tmp_path / "copy", "pipeline.json", stranger.encode())
    with pytest.raises(ConfigError, match=r"names code to run, 'os:getcwd'.*--allow-plugins"):
        Recommender.load(tmp_path / "copy").recommend([], 1)
