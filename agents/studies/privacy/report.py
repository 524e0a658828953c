"""``privacy``: what is measured of a configuration or a run, and its tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from agents.studies.privacy.attributes import groups_of, infer, views
from agents.studies.privacy.audit import audit, largest_proof
from agents.studies.privacy.membership import knowledge_of, membership
from agents.studies.privacy.quality import proportion
from agents.studies.records import spread
from marec_env.data.log import InteractionLog, load_log
from marec_env.environment_config import EnvironmentConfig
from marec_env.evaluation.policies import TeamPolicy
from marec_env.evaluation.statistics import Estimate
from marec_env.privacy.release import Release
from marec_env.privacy.uniqueness import singled_out
from marec_env.reporting.table import TextTable
from marec_env.world import build_world

ATTRIBUTES = ("gender", "age")
EVENTS = (1, 2, 3, 4, 5, 8)
MONTH, WEEK = 30, 7  # days
_TRIALS = 1000  # of the audit, with the user and without


def of_log_users(environment: EnvironmentConfig) -> EnvironmentConfig:
    """Return an environment whose users are the log's own: they are who is attacked, and drawn ones
    have no attributes to infer.
    """
    privacy = environment.data.privacy
    if privacy is None or privacy.users == "log":
        return environment
    data = environment.data.model_copy(
        update={"privacy": privacy.model_copy(update={"users": "log"})}
    )
    return environment.model_copy(update={"data": data})


def uniqueness(log: InteractionLog, seed: int) -> dict[str, dict[str, Estimate]]:
    """Return the share of users singled out, by what is known of an event and of how many."""
    found: dict[str, dict[str, Estimate]] = {}
    for events in EVENTS:
        for name, days in (("items", None), ("items and month", MONTH), ("items and week", WEEK)):
            alone = singled_out(log, events, days=days, seed=seed)
            if len(alone):
                share = proportion(int(alone.sum()), len(alone))
                found.setdefault(name, {})[str(events)] = share
    return found


def attributes_of(environment: EnvironmentConfig) -> dict[str, tuple[Tensor, tuple[str, ...]]]:
    """Return by attribute each user's group, int64 ``[U]``, and the groups' names."""
    found = {}
    for name in ATTRIBUTES:
        grouped = load_log(environment.data.model_copy(update={"group_by": name}))
        found[name] = (grouped.group, grouped.group_names)
    return found


def measure(
    environment: EnvironmentConfig,
    policy: TeamPolicy | None,
    models: int,
    requests: int,
    seed: int,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Return uniqueness in the log, membership and attribute inference.

    Args:
        environment: what the recommender knows comes from its log, or a release of it.
        policy: who plays while attributes are inferred; hand-set actions if ``None``.
        models: of membership inference.
        requests: of each session that attributes are inferred from.
        seed: of all draws.
        tell: is told how far it is.
    """
    environment = of_log_users(environment)
    world = build_world(environment)
    log = load_log(environment.data)
    unique = uniqueness(log, seed)
    members = membership(
        log,
        lambda part: knowledge_of(part, environment.knowledge, environment.data.privacy),
        models,
        seed,
        tell,
    )
    attributes = attributes_of(environment)
    inferred: dict[str, dict[str, dict[str, Estimate]]] = {}
    if any(len(names) > 1 for _, names in attributes.values()):
        tell("attributes: sessions are played")
        met, seen = views(world, policy, requests, seed)
        for name, group in groups_of(attributes, met).items():
            inferred[name] = {source: infer(part, group, seed) for source, part in seen.items()}
    privacy, audited = environment.data.privacy, None
    if privacy is not None and privacy.epsilon is not None:
        tell(f"audit: {2 * _TRIALS} releases of a toy")
        audited = {
            "stated": privacy.epsilon,
            "proved": audit(privacy, _TRIALS),
            "at_most": largest_proof(_TRIALS),
        }
    return {
        "audit": audited,
        "privacy": None if world.release is None else world.release.statement,
        "notes": _notes(world.release, audited),
        "users": log.num_users,
        "models": models,
        "uniqueness": unique,
        "membership": members,
        "attributes": inferred,
    }


def _notes(release: Release | None, audited: Mapping[str, float] | None) -> list[str]:
    """Return the release's statement and what its audit found, a line each."""
    lines = [] if release is None else [release.line]
    if audited is not None:
        lines.append(
            f"audit: on a toy, whose attacker knows all other users, {2 * _TRIALS:,} releases with "
            f"a user and without prove an ε of {audited['proved']:.2f} at least (95 %; of "
            f"{audited['stated']:.4g} stated, and {audited['at_most']:.2f} that so many can prove)"
        )
    return lines


def uniqueness_table(unique: Mapping[str, Mapping[str, Estimate]]) -> TextTable:
    """Return what :func:`uniqueness` found as a table."""
    counts = list(dict.fromkeys(count for row in unique.values() for count in row))
    return TextTable(
        "Users whom so many known events single out of the log",
        ("known of each event", *counts),
        [
            (name, *(spread(row[count]) if count in row else "–" for count in counts))
            for name, row in unique.items()
        ],
    )


def tables_of(report: Mapping[str, Any]) -> list[TextTable]:
    """Return the report's tables."""
    tables = [
        uniqueness_table(report["uniqueness"]),
        TextTable(
            "Membership: was a user in the log? From what the recommender knows",
            ("attack", "AUC", "true positives at 1 % false"),
            [
                (name, spread(found["auc"]), spread(found["tpr"]))
                for name, found in report["membership"].items()
            ],
            notes=(
                f"{report['models']} models of random halves of {report['users']} users, each "
                "attacked with the others as shadows; mean ± half of the 95 % interval over them.",
                "Nothing learned: AUC .5, true positives .01.",
            ),
        ),
    ]
    rows = [
        (f"{name} from {source}", spread(one["auc"]), spread(one["accuracy"]), spread(one["base"]))
        for name, sources in report["attributes"].items()
        for source, one in sources.items()
    ]
    if rows:
        tables.append(
            TextTable(
                "Attributes of held-out users, by logistic regression",
                ("attribute", "AUC", "accuracy", "base rate"),
                rows,
                notes=("Base rate: of always naming the largest group.",),
            )
        )
    return tables
