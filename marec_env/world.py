"""What simulators share: log, catalog, hidden population, the recommender's knowledge."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import lru_cache, partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from marec_env.catalog.build import build_catalog
from marec_env.catalog.catalog import Catalog
from marec_env.catalog.histories import Histories
from marec_env.catalog.population import Population
from marec_env.config import usable_device
from marec_env.data.links import item_links, linked_neighbours, links_fingerprint
from marec_env.data.log import InteractionLog, load_log
from marec_env.data.pictures import picture_files
from marec_env.data.population import build_population
from marec_env.data.readers import files_fingerprint
from marec_env.data.recommender_log import LearnedSpace, directions, learn, select_log
from marec_env.embeddings import (
    EmbeddingConfig,
    Reduction,
    ReductionConfig,
    embed_corpus,
    embed_texts,
    fit_reduction,
)
from marec_env.embeddings.config import FineTuneConfig
from marec_env.embeddings.pictures import ItemPictures, item_pictures
from marec_env.environment_config import EnvironmentConfig
from marec_env.errors import ConfigError, DataError
from marec_env.memory import require_memory
from marec_env.pipeline.config import PipelineConfig, RecallConfig, TextMessages
from marec_env.pipeline.knowledge import NEIGHBOURS, Knowledge
from marec_env.pipeline.sentences import sentences
from marec_env.pipeline.shards import HOSTS, divided
from marec_env.pipeline.team import components_of
from marec_env.privacy.mechanisms import noise_key
from marec_env.privacy.release import Release, release_log, with_line
from marec_env.text.catalog_texts import CatalogTexts, write_catalog_texts

__all__ = ["World", "build_world", "moved"]

_Record = TypeVar("_Record", Catalog, Population)


@dataclass(frozen=True, slots=True)
class World:
    """Built once from configuration; read-only."""

    config: EnvironmentConfig
    log: InteractionLog
    visible_log: InteractionLog
    """The share of the log that the recommender may learn from."""
    catalog: Catalog
    population: Population
    learned: LearnedSpace
    """What the recommender learned from the visible log."""
    knowledge: Knowledge
    """Catalog and learned space as the pipeline uses them."""
    texts: CatalogTexts
    """What was written of items and users."""
    embeddings: EmbeddingConfig
    """As configured, but for the encoder, which is the fine-tuned one where there is one."""
    pictures: ItemPictures | None = None
    """What the items' pictures look like, if they are read."""
    release: Release | None = None
    """Where the visible log, catalog, learned space and knowledge come from instead of the log, if
    ``data.privacy`` says so."""

    @property
    def user_limits(self) -> Tensor:
        """Float32 ``[U, S]``: each user's suitability limits, infinite where there is none.

        A limit is what a user has declared, so it is known of new users too.
        """
        names = self.config.pipeline.audit.suitability.values()
        none = torch.full((self.population.num_users,), torch.inf)
        columns = [self.log.user_attributes.get(name, none).to(torch.float32) for name in names]
        for name, column in zip(names, columns, strict=True):
            if self.release is not None and bool(column.isnan().all()):
                raise ConfigError(
                    f"pipeline.audit.suitability: users drawn from a private release have no "
                    f"'{name}'; set data.privacy.users=log, or take it out of the rules"
                )
            if bool(column.isnan().any()):
                raise ConfigError(
                    f"pipeline.audit.suitability: '{name}' is unknown of "
                    f"{int(column.isnan().sum())} of {len(column)} users; complete users.csv"
                )
        return torch.stack(columns, dim=1) if columns else none.new_zeros(len(none), 0)


def moved(record: _Record, device: torch.device | str) -> _Record:
    """Return a record of the world (catalog, population, log) with all its tensors on a device."""
    values = {item.name: getattr(record, item.name) for item in fields(record)}
    found: dict[str, Any] = {
        name: value.to(torch.device(device))
        for name, value in values.items()
        if isinstance(value, Tensor | Histories)
    }
    for name, value in values.items():
        if isinstance(value, dict):  # attributes by name
            found[name] = {key: column.to(device) for key, column in value.items()}
    return replace(record, **found)


@lru_cache(maxsize=8)
def _build(
    serialised: str,
    fingerprint: str | None,
    key: bytes,
    recall: RecallConfig | None,
    host: str,
    played: str | None,
) -> World:
    """Build a world; ``fingerprint``, that of the source's files, and the key of the release's
    noise and of links tell contents apart; ``recall``, with the session of their host, says how
    the vectors lie in shards, if they do; ``played`` is the environment whose clicks the encoder is
    fitted to, if it is.
    """
    config = EnvironmentConfig.model_validate_json(serialised)
    device = torch.device(config.device or "cpu")
    log = load_log(config.data)
    if fingerprint is not None and log.fingerprint != fingerprint:
        raise DataError(f"{config.data.source}: the files changed while they were read; try again")
    _check_memory(config, log)
    seen, release = log, None  # seen: what the recommender's side reads
    if config.data.privacy is not None:
        release = release_log(log, config.data.privacy)
        seen = release.draw_log(log)
        log = seen if config.data.privacy.users == "release" else with_line(log, release)
    visible = select_log(seen, config.knowledge)
    pictures = item_pictures(config.embeddings, config.data, seen, NEIGHBOURS, device)
    if pictures is not None and pictures.line is not None:
        log = replace(log, warnings=(*log.warnings, pictures.line))
    # Topics, by which users like and tire, are the published encoder's whatever the recommender's.
    embeddings = config.embeddings.model_copy(update={"finetune": None})
    text, reduction = _reduced(embeddings, seen, device)
    catalog = build_catalog(seen, text, config.catalog)
    if config.embeddings.finetune is not None:
        from marec_env.embeddings.finetune import fine_tuned

        make_pairs = partial(_pairs, config.embeddings.finetune, visible, played)
        embeddings = fine_tuned(config.embeddings, seen.texts, make_pairs, device)
        text, reduction = _reduced(embeddings, seen, device)
        catalog = replace(catalog, text=text)
    population = build_population(
        config.population, log, catalog.topics, catalog.num_topics, catalog.providers, catalog.age
    )
    if release is None:
        learned = learn(visible, config.knowledge)
        if learned.federated is not None:
            log = replace(log, warnings=(*log.warnings, learned.federated.line))
    else:
        met = torch.bincount(log.user, minlength=log.num_users) > 0
        learned = release.learned(config.knowledge, met)
        catalog = replace(catalog, popularity=learned.popularity)
    cf = directions(learned.factors.item.to(torch.float32))
    texts = write_catalog_texts(config.text, embeddings, seen, catalog, reduction, device)
    version = f"{seen.fingerprint[:12]}-{config.knowledge.seed}"
    knowledge = replace(
        Knowledge.of(catalog, cf, learned.neighbours[:, :NEIGHBOURS], version),
        notes=texts.note_vectors,
        user_texts=texts.user_vectors,
        note_neighbours=texts.note_neighbours,
        user_items=texts.user_items,
        reranked=texts.reranked,
        linked=linked_neighbours(item_links(config.data, seen), seen.num_items, NEIGHBOURS)
        if config.catalog.links
        else None,
        pictures=None if pictures is None else pictures.vectors,
        picture_neighbours=None if pictures is None else pictures.neighbours,
        user_every=max(1, config.text.user_every),
    )
    catalog = moved(catalog, device)
    if recall is not None:
        approximate = recall.approximate(log.num_items)
        knowledge = divided(knowledge, recall.shards, approximate, HOSTS.get("ray"))
        catalog = replace(catalog, text=knowledge.text)
        factors = replace(learned.factors, item=learned.factors.item.to("meta"))
        learned = replace(learned, factors=factors)
    return World(
        config=config,
        log=log,
        visible_log=visible,
        catalog=catalog,
        population=moved(population, device),
        learned=learned,
        knowledge=knowledge if recall is not None else knowledge.to(device),
        texts=texts,
        embeddings=embeddings,
        pictures=pictures,
        release=release,
    )


def _pairs(section: FineTuneConfig, visible: InteractionLog, played: str | None) -> Tensor:
    """Return what the encoder is fitted to, int64 ``[P, 2]`` or ``[P, 3]``."""
    from marec_env.embeddings.pairs import pairs_of

    if played is None:
        return pairs_of(visible, section.objective)
    from marec_env.played import played_clicks

    return played_clicks(
        EnvironmentConfig.model_validate_json(played), section.sessions, section.seed
    )


def _reduced(
    embeddings: EmbeddingConfig, log: InteractionLog, device: torch.device
) -> tuple[Tensor, Reduction]:
    """Return the items' vectors after reduction, float32 ``[N, dt]``, and the reduction."""
    full = embed_corpus(embeddings, log.texts, device)  # as large as all else of a large catalog
    reduction = fit_reduction(embeddings, full)
    return reduction.apply(full), reduction


def _embedded_sentences(pipeline: PipelineConfig, dim: int, world: World) -> Tensor:
    """Return all that a pipeline's components may say in words, float32 ``[S, dim]``: embedded and
    reduced to the ``dim`` directions of largest variance, unit length, padded with 0 where the
    encoder has fewer.
    """
    said = [text for component in components_of(pipeline) for text in sentences(component)]
    full = embed_texts(world.embeddings, said, world.knowledge.device)
    section = ReductionConfig(dimension=min(dim, full.shape[1]))
    found = fit_reduction(section, full).apply(full).to(world.knowledge.device)
    return torch.nn.functional.pad(found, (0, dim - found.shape[1]))


def _check_memory(config: EnvironmentConfig, log: InteractionLog) -> None:
    """Refuse sizes that cannot fit; the estimate counts what grows with users and items."""
    users, items, topics = log.num_users, log.num_items, config.catalog.num_topics
    needed = {  # bytes at the peak: numbers of 8 bytes while fitted, of 4 when kept
        "population.history": 27 * users * config.population.history,
        "population.dim": 40 * (users + items) * config.population.dim,
        "catalog.num_topics": 24 * (users + items) * topics,
        "knowledge.dim": 40 * (users + items) * config.knowledge.dim,
        "knowledge.neighbours": 24 * items * config.knowledge.neighbours,
    }
    if config.data.privacy is not None:
        within = min(config.data.privacy.contribution.items, items)
        needed["data.privacy.contribution.items"] = 48 * within**2
        needed["users drawn from data.privacy"] = 32 * users * items
    largest = max(needed, key=lambda key: needed[key])
    require_memory(
        f"environment of {users:,} users and {items:,} items",
        sum(needed.values()),
        f"lower {largest}, which takes most, or the log's size",
    )


def _check_supply(config: EnvironmentConfig, num_items: int) -> None:
    """A session may not run out of unseen items."""
    pipeline = config.pipeline
    shown = pipeline.slate_size * (config.max_requests - 1)
    needed = config.population.history + shown + pipeline.candidates
    if needed > num_items:
        raise ConfigError(
            f"the catalog has {num_items} items, but a session may need {needed}: "
            f"population.history ({config.population.history}) + pipeline.slate_size x "
            f"(max_requests - 1) ({shown}) + pipeline.candidates ({pipeline.candidates}); "
            "lower one of them"
        )


def _played(config: EnvironmentConfig) -> str | None:
    """Return the environment whose clicks the encoder is to be fitted to: this one's users and
    sizes, under the default components; so a study of other components meets the same encoder.
    """
    embeddings, pipeline = config.embeddings, config.pipeline
    if embeddings.finetune is None or embeddings.finetune.objective != "from_reward":
        return None
    plain = EnvironmentConfig()
    sizes = {name: getattr(pipeline, name) for name in ("candidates", "slate_size")}
    index = RecallConfig(index=pipeline.recall.index, index_above=pipeline.recall.index_above)
    return config.model_copy(
        update={
            "device": "cpu",
            "embeddings": embeddings.model_copy(update={"finetune": None}),
            "pipeline": PipelineConfig(recall=index, **sizes),
            "rewards": plain.rewards,
            "state": plain.state,
            "text": plain.text,
        }
    ).model_dump_json()


def build_world(config: EnvironmentConfig) -> World:
    """Build what simulators of this configuration share.

    It is kept for further calls in this process, as long as the log's files hold the same.

    Raises:
        ConfigError, DataError, AssetError: as the parts do; also if the catalog is too small for
            the longest session.
    """
    device = config.device or "cpu"
    usable_device("environment.device", device)
    config = config.model_copy(update={"device": device})
    plain = EnvironmentConfig()
    shared = config.model_copy(
        update={
            "max_requests": plain.max_requests,
            "state": plain.state,
            "users": plain.users,
            "rewards": plain.rewards,
            "measure": plain.measure,
            "pipeline": plain.pipeline,
        }
    )
    key = noise_key(config.data.privacy.seed)[0] if config.data.privacy is not None else b""
    if config.catalog.links:
        key += links_fingerprint(config.data).encode()
    recall, host = config.pipeline.recall, ""
    if recall.shards > 1:
        if not device.startswith("cpu"):
            raise ConfigError(
                f"pipeline.recall.shards is {recall.shards}, and environment.device '{device}': "
                "item shards are on the CPU; set one of them to 1 or cpu"
            )
        host = HOSTS.get("ray").session()
    parts = RecallConfig(
        index=recall.index, index_above=recall.index_above, shards=recall.shards
    )  # of recall, what shards depend on
    asked = (
        shared.model_dump_json(),
        files_fingerprint(config.data),
        key,
        parts if recall.shards > 1 else None,
        host,
        _played(config),
    )
    built = _build(*asked)
    seen = built.pictures
    if seen is not None and seen.stamp != picture_files(config.data, built.log).stamp:
        _build.cache_clear()  # a picture is another since
        built = _build(*asked)
    world = replace(built, config=config)
    if isinstance(config.pipeline.messages, TextMessages):
        said = _embedded_sentences(config.pipeline, config.pipeline.messages.dim, built)
        world = replace(world, knowledge=replace(built.knowledge, sentences=said))
    _check_supply(config, world.knowledge.num_items)
    return world
