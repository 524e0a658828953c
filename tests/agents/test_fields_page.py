"""docs/fields.md says what is: shapes and kinds of tensors, and the names of all numbers."""

import re
from functools import cache, partial

import pytest
import torch
from torch import Tensor

from agents.baselines import build_baseline
from agents.learners.config import MAPPOConfig, SamplingConfig
from agents.learners.trainer import Trainer
from docs.make_fields import page, shape_of
from marec_env import make_vec
from marec_env.evaluation.quantities import OF_EPISODES, OF_EVALUATIONS, OF_RUNS, OF_STEPS
from marec_env.evaluation.rollout import rollout
from marec_env.pipeline.observations import FIELDS, SESSION_STATISTICS
from marec_env.simulator import Simulator
from tests.worlds import small_environment

SESSIONS = 4


@cache
def played():
    """Return sessions after some requests, in a world whose sizes are all different."""
    env = make_vec(
        small_environment(catalog={"num_topics": 11}, max_requests=3), num_sessions=SESSIONS
    )
    steps = [env.step(env.default_actions()) for _ in range(4)]
    return env, steps[2]  # at which those who had stayed ended


def sizes():
    env, _ = played()
    memory, known, config = env.pipeline.memory, env.world.knowledge, env.config
    return {
        "B": SESSIONS, "N": known.num_items, "K": config.pipeline.slate_size,
        "C": config.pipeline.candidates, "T": known.num_topics, "L": config.population.history,
        "H": len(config.pipeline.half_lives), "dt": known.text.shape[1], "dc": known.cf.shape[1],
        "channels": len(config.pipeline.recall.channels), "blocks": len(config.pipeline.blocks),
        "G": len(env.world.population.group_names), "S": memory.limits.shape[1],
        "Tmax": config.max_requests, "P": config.measure.probe_items,
        "R": memory.recent.shape[1], "s": env.state_space.shape[0],
    }  # fmt: skip


def rows(title):
    """Return name, type and meaning of each row of a section of the page."""
    body = page().split(f"\n## {title}\n")[1].split("\n## ")[0]
    cells = [line.strip("| ").split(" | ") for line in body.splitlines() if line.startswith("| `")]
    return [(row[0].strip("`"), row[1], row[-1]) for row in cells]


def check(name, told, tensor):
    found = re.fullmatch(r"(\w*),? ?`\[(.*)\]`", told)
    assert found, f"{name}: {told}"
    kinds = {"float32": torch.float32, "int64": torch.int64, "bool": torch.bool}
    assert tensor.dtype == kinds[found[1] or "float32"], name
    shape = [eval(part, {}, sizes()) if part != "M" else None for part in found[2].split(", ")]
    given = [None if m is None else size for m, size in zip(shape, tensor.shape, strict=True)]
    assert given == shape, f"{name}: {list(tensor.shape)}, said to be {told}"


def test_sizes_differ_so_that_a_wrong_letter_shows():
    small = ("G", "S", "R", "P", "Tmax", "H")
    found = [size for name, size in sizes().items() if name not in small]
    assert len({*found}) == len(found)


def test_observation_fields_have_the_width_that_is_said():
    fields = played()[0].pipeline.fields()
    told = rows("Observation fields")
    assert [name for name, _, _ in told] == [*FIELDS]
    for name, shape, _ in told:
        check(name, shape, fields[name])
    assert [name for name, _, _ in rows("Columns of the field `session`")] == [*SESSION_STATISTICS]
    assert fields["session"].shape[1] == len(SESSION_STATISTICS)


@pytest.mark.parametrize(
    ("title", "of"),
    [
        ("Request", lambda env, step: env.last.request),
        ("Session memory", lambda env, step: env.pipeline.memory),
        ("Knowledge", lambda env, step: env.world.knowledge),
        ("Outcome", lambda env, step: env.last),
        ("Truth", lambda env, step: env.last.truth),
        ("Feedback", lambda env, step: env.last.feedback),
        ("Users", lambda env, step: env.users),
        ("VecStep", lambda env, step: step),
    ],
)
def test_tensors_have_the_shape_that_is_said(title, of):
    of = of(*played())
    tensors = [(name, told, getattr(of, name)) for name, told, _ in rows(title)]
    checked = [check(*row) for row in tensors if isinstance(row[2], Tensor)]
    assert checked, title


def test_every_row_says_what_it_is():
    for line in page().splitlines():
        if line.startswith("| `"):
            assert len(line.strip("| ").split(" | ")[-1]) > 1, line


def family(name):
    return f"{name.partition('/')[0]}/" if "/" in name else name


def test_numbers_of_steps_and_episodes_are_told():
    _, step = played()
    assert {family(name) for name in step.metrics} <= {*OF_STEPS}
    assert step.episodes
    for name in step.episodes:
        assert name in OF_EPISODES or family(name.removesuffix("_per_request")) in OF_STEPS


def test_numbers_of_evaluations_are_told():
    env, _ = played()
    found = rollout(env.world, build_baseline("static", env), 2, seed=1).per_session
    told = {*OF_STEPS, *OF_EPISODES, *OF_EVALUATIONS}
    assert {family(name) for name in found} <= told
    assert {*OF_EVALUATIONS} - {*found} == {"returns"}  # of episodes of several sessions only


def test_numbers_of_runs_are_told():
    world, sampling = played()[0].world, SamplingConfig(num_sessions=4, rollout_length=6)
    trainer = Trainer(MAPPOConfig(), sampling, seed=0, env_factory=partial(Simulator, world))
    found = {family(name) for name in trainer.iterate()}
    assert found <= {*OF_RUNS, *OF_STEPS}
    rare = {"evaluation/", "happo_factor/", "skipped_updates/"}
    assert {*OF_RUNS} - found == rare


def test_shapes_are_told_from_words():
    told = "Float32 ``[B, T]``, decayed topic shares."
    assert shape_of(told) == ("float32 ``[B, T]``", "decayed topic shares.")
    assert shape_of("``[B, 9]``: statistics") == ("``[B, 9]``", "statistics")
    assert shape_of("Per agent, bool ``[B]``.") == ("", "Per agent, bool ``[B]``.")
