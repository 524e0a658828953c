"""A trained team in a folder of its own: all that recommending needs, and nothing about users.

``bundle.json`` (format, settings, hashes), ``pipeline.json`` (its configuration), ``items.json``
(identifiers, titles, topics), ``knowledge.safetensors`` (vectors, factors, neighbours, popularity),
``indexes.safetensors`` (of a large catalog: how its indexes divide the items, which takes long to
find) and the policy's files (:mod:`agents.learners.policy`). No pickle, no log, no encoder.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor
from typing_extensions import TypedDict

from agents.learners.policy import TrainedPolicy, load_policy, save_policy
from marec_env import __version__
from marec_env.config import usable_device
from marec_env.config.loader import load
from marec_env.errors import ConfigError, DataError, RunError
from marec_env.evaluation.policies import TeamPolicy
from marec_env.io import read_json, sha256_of, write_bytes, write_json
from marec_env.pipeline.config import PipelineConfig
from marec_env.pipeline.index import divisions_kept, restore_divisions
from marec_env.pipeline.knowledge import Knowledge

if TYPE_CHECKING:
    from marec_env.world import World

FORMAT = 1
"""Version of the layout; a change that old code cannot read raises it."""
_HEAD, _PIPELINE, _ITEMS, _KNOWLEDGE, _INDEXES = (
    "bundle.json", "pipeline.json", "items.json", "knowledge.safetensors", "indexes.safetensors",
)  # fmt: skip
_ATTRIBUTE = "attributes/"
_VERSION_DIGITS = 12
_CURE = "export the run anew (marec export RUN OUT)"


class _Settings(TypedDict):
    """What is not in the other files."""

    source: str
    trained: bool
    groups: list[str]
    history_length: int
    max_requests: int
    like_threshold: float
    ratings: tuple[float, float]
    knowledge: dict[str, int | str]
    """Of :class:`Knowledge`, what is no tensor."""
    privacy: str


class _Head(TypedDict):
    format: int
    made_by: str
    settings: _Settings
    files: dict[str, str]


class _Items(TypedDict):
    ids: list[str]
    titles: list[str]
    topics: list[str]


@dataclass(frozen=True)
class Bundle:
    """A team and what it knows of ``N`` items."""

    name: str
    version: str
    """Of policy, items and configuration: 12 digits; empty before there is a folder."""
    source: str
    """The log that it learned from, by the name it had in the configuration."""
    pipeline: PipelineConfig
    knowledge: Knowledge
    policy: TeamPolicy | None
    """``None``: every component plays its hand-set default."""
    ids: tuple[str, ...]
    titles: tuple[str, ...]
    topics: tuple[str, ...]
    """Names, by number."""
    groups: tuple[str, ...]
    """Of users, by number."""
    history_length: int
    """L, items of the past a session may begin with."""
    max_requests: int
    """Of an episode in training."""
    like_threshold: float
    """Ratings from here on are likes."""
    ratings: tuple[float, float]
    """Least and largest of the log."""
    privacy: str
    """What is guaranteed to those whom it was learned from; empty where nothing is."""

    @classmethod
    def of(cls, world: World, policy: TeamPolicy | None, name: str = "team") -> Bundle:
        """Return the team ``policy`` of a world's pipeline."""
        world.knowledge.whole("text", "a bundle")
        ratings = world.visible_log.rating
        return cls(
            name=name,
            version="",
            source=world.config.data.source,
            pipeline=world.config.pipeline,
            knowledge=world.knowledge,
            policy=policy,
            ids=world.catalog.ids,
            titles=world.catalog.titles,
            topics=world.catalog.topic_names,
            groups=world.population.group_names,
            history_length=world.population.history.length,
            max_requests=world.config.max_requests,
            like_threshold=float(world.visible_log.like_threshold),
            ratings=(float(ratings.min()), float(ratings.max())),
            privacy="" if world.release is None else world.release.line,
        )

    @property
    def networks(self) -> TrainedPolicy:
        """The trained team.

        Raises:
            ConfigError: it is none.
        """
        if not isinstance(self.policy, TrainedPolicy):
            raise ConfigError(f"bundle '{self.name}' has no networks that could learn")
        return self.policy

    @cached_property
    def searched(self) -> list[tuple[int, str]]:
        """Place and title, in one case, of each item, most popular first."""
        places = self.knowledge.by_popularity.tolist()
        return [(place, self.titles[place].casefold()) for place in places]

    @cached_property
    def topic_of(self) -> list[str]:
        """The name of each item's topic, by place."""
        return [self.topics[topic] for topic in self.knowledge.topics.tolist()]

    @cached_property
    def places(self) -> dict[str, int]:
        """Where each item stands, by identifier."""
        return {item: place for place, item in enumerate(self.ids)}

    def __repr__(self) -> str:
        """Say what it recommends, and by whom it is decided."""
        team, kept = ", ".join(self.pipeline.components), self.pipeline.candidates
        items = f"{len(self.ids):,} items of {self.source}"
        return f"{items}: {team}; {kept} candidates a request"


def is_bundle(path: Path) -> bool:
    """Return whether a folder is a bundle's."""
    return (path / _HEAD).is_file()


def export_run(run: Path, folder: Path, *, best: bool = False, hand_set: bool = False) -> Bundle:
    """Write the bundle of a run's newest undamaged checkpoint.

    Args:
        run: folder of a finished or running run of ``environment.kind: marec``.
        folder: of the bundle; new or empty.
        best: take the checkpoint of the best evaluation instead.
        hand_set: write the team of the same pipeline whose components play their defaults.

    Raises:
        RunError: the run's log, weights or topics are not those of training; it has no undamaged
            checkpoint; or the folder holds something, or cannot be written.
        ConfigError, DataError, AssetError: the run cannot be read.
    """
    from agents.runs.trained import load_run
    from marec_env.world import build_world

    found = replace(load_run(run), best=best)
    policy = None if hand_set else found.policy
    if changed := found.changed_inputs():
        raise RunError(
            f"{run} was trained on other {', '.join(changed)} than are here; put it back"
        )
    world = build_world(found.environment.model_copy(update={"device": "cpu"}))
    save_bundle(Bundle.of(world, policy), folder)
    return load_bundle(folder)


def save_bundle(bundle: Bundle, folder: Path) -> None:
    """Write a bundle, whole or not at all.

    Raises:
        RunError: the policy is none of marec's own, or the folder holds something, or cannot be
            written.
    """
    if not isinstance(bundle.policy, TrainedPolicy | None):
        raise RunError("only policies of marec's own learners can be exported")
    folder.parent.mkdir(parents=True, exist_ok=True)
    hidden = folder.parent / f".new-bundle-{secrets.token_hex(6)}"
    hidden.mkdir()
    try:
        _fill(bundle, hidden)
        hidden.rename(folder)  # an empty folder there is replaced
    except OSError as error:
        raise RunError(f"cannot write the bundle {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def _fill(bundle: Bundle, folder: Path) -> None:
    write_json(folder / _PIPELINE, bundle.pipeline.model_dump(mode="json"))
    items = _Items(ids=[*bundle.ids], titles=[*bundle.titles], topics=[*bundle.topics])
    write_json(folder / _ITEMS, items)
    known = {
        item.name: getattr(bundle.knowledge, item.name) for item in fields(Knowledge) if item.init
    }
    tensors = {name: value for name, value in known.items() if isinstance(value, Tensor)}
    tensors |= {_ATTRIBUTE + name: value for name, value in bundle.knowledge.attributes.items()}
    plain = {name: value.cpu().contiguous().clone() for name, value in tensors.items()}
    write_bytes(folder / _KNOWLEDGE, save(plain))
    if bundle.pipeline.recall.approximate(bundle.knowledge.num_items):
        write_bytes(folder / _INDEXES, save(divisions_kept(bundle.knowledge)))
    if isinstance(bundle.policy, TrainedPolicy):
        save_policy(folder, bundle.policy.team, bundle.policy.actors)
    settings = _Settings(
        source=bundle.source,
        trained=bundle.policy is not None,
        groups=[*bundle.groups],
        history_length=bundle.history_length,
        max_requests=bundle.max_requests,
        like_threshold=bundle.like_threshold,
        ratings=bundle.ratings,
        knowledge={n: value for n, value in known.items() if isinstance(value, int | str)},
        privacy=bundle.privacy,
    )
    sums = {
        str(path.relative_to(folder)): sha256_of(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    head = _Head(format=FORMAT, made_by=f"marec {__version__}", settings=settings, files=sums)
    write_json(folder / _HEAD, head)
    for path in (*folder.rglob("*"), folder):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def load_bundle(folder: str | Path, device: str = "cpu") -> Bundle:
    """Return a bundle from its folder.

    Raises:
        RunError: it is no bundle, damaged (the file is named), or of a format that this version
            does not know.
        ConfigError: its pipeline cannot be read, or this machine lacks the device.
    """
    path = Path(folder)
    if not is_bundle(path):
        raise RunError(f"{path} is no bundle: it has no {_HEAD}; {_CURE}")
    head = _read_head(path / _HEAD)
    for name, known in head["files"].items():
        place = path / name
        if not place.resolve().is_relative_to(path.resolve()):
            raise RunError(f"{path / _HEAD}: '{name}' lies outside the bundle; {_CURE}")
        if not place.is_file():
            raise RunError(f"{place} is missing; {_CURE}")
        if sha256_of(place) != known:
            raise RunError(f"{place} is damaged: its SHA-256 is not that of {_HEAD}; {_CURE}")
    unlisted = {_PIPELINE, _ITEMS, _KNOWLEDGE} - head["files"].keys()
    if unlisted:
        raise RunError(f"{path / _HEAD}: files: lacks {sorted(unlisted)[0]}; {_CURE}")
    settings, items = head["settings"], read_json(path / _ITEMS, _Items)
    there = usable_device("device", device)
    knowledge = _knowledge(path / _KNOWLEDGE, settings).to(there)
    if _INDEXES in head["files"]:  # older bundles divide their items when first asked
        with _readable(path / _INDEXES):
            restore_divisions(knowledge, load_file(path / _INDEXES))
    if not len(items["ids"]) == len(items["titles"]) == knowledge.num_items:
        raise RunError(f"{path / _ITEMS} and {_KNOWLEDGE} differ in their items; {_CURE}")
    policy = load_policy(path) if settings["trained"] else None
    for actor in policy.actors.values() if policy else ():
        actor.to(there)
    canonical = json.dumps([settings, head["files"]], sort_keys=True).encode()
    return Bundle(
        name=path.resolve().name,
        version=hashlib.sha256(canonical).hexdigest()[:_VERSION_DIGITS],
        source=settings["source"],
        pipeline=load(path / _PIPELINE, PipelineConfig),
        knowledge=knowledge,
        policy=policy,
        ids=tuple(items["ids"]),
        titles=tuple(items["titles"]),
        topics=tuple(items["topics"]),
        groups=tuple(settings["groups"]),
        history_length=settings["history_length"],
        max_requests=settings["max_requests"],
        like_threshold=settings["like_threshold"],
        ratings=settings["ratings"],
        privacy=settings["privacy"],
    )


def _read_head(path: Path) -> _Head:
    document: dict[str, Any] = read_json(path, dict[str, Any], _CURE)
    found = document.get("format")
    if not isinstance(found, int) or not 1 <= found <= FORMAT:
        raise RunError(
            f"{path} has format {found!r}; this version of marec reads 1 ... {FORMAT}: update marec"
        )
    try:
        return TypeAdapter(_Head).validate_python(document)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise RunError(f"{path}: {place}: {first['msg']}; {_CURE}") from error


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Within, what is wrong with the tensors of a file is told with its name."""
    try:
        yield
    except (OSError, SafetensorError, TypeError, RuntimeError, DataError) as error:
        reason = " ".join(str(error).split())
        raise RunError(f"{path} cannot be read ({reason}); {_CURE}") from error


def _knowledge(path: Path, settings: _Settings) -> Knowledge:
    with _readable(path):
        tensors: dict[str, Any] = load_file(path)
        attributes = {
            name.removeprefix(_ATTRIBUTE): tensors.pop(name)
            for name in [*tensors]
            if name.startswith(_ATTRIBUTE)
        }
        parts: dict[str, Any] = {**tensors, **settings["knowledge"]}
        return Knowledge(**parts, attributes=attributes)
