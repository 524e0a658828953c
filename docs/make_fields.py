"""What plug-ins are given and what a run says, as one page: ``make configs`` writes docs/fields.md.

All of it comes from docstrings of attributes, properties and what is registered, and from the
tables of ``marec_env/evaluation/quantities.py``.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping

from agents.baselines import BASELINES
from marec_env.evaluation import quantities
from marec_env.pipeline import COMPONENTS, Knowledge, Request
from marec_env.pipeline.memory import SessionMemory
from marec_env.pipeline.observations import FIELDS, SESSION_STATISTICS, STATE_FIELDS
from marec_env.pipeline.ranking import BLOCKS
from marec_env.pipeline.recall import CHANNELS
from marec_env.registry import Registry
from marec_env.rewards import TERMS, Outcome, Truth
from marec_env.rewards.team import POTENTIALS
from marec_env.users.base import Feedback, Users
from marec_env.users.registry import USER_MODELS
from marec_env.vector import VecStep

_FIRST = """\
What a component, channel, block, reward term, user model or algorithm of your own is given, and
what a step and a run say; made from the code by `make configs`. Code of your own of each kind:
`examples/own_*.py`. Where it is named: [configuration](reference.md).

`B` sessions (a row each; none depends on the batch it is in), `N` items, `K` places of a slate, `C`
candidates, `T` topics, `L` items of history, `H` time scales, `dt` and `dc` dimensions of text and
collaborative (CF) space, `channels`, `blocks`, `G` groups of users, `S` suitability limits.
"""
_FIELDS = f"""\
What components may observe, float32; `pipeline.data_access` takes fields away. A part of a
component's own state is a field by its name. Those of the latest request are 0 when an episode
begins. The central critic sees {", ".join(STATE_FIELDS)}; with `state: privileged` also the users'
hidden state."""
_REQUEST = """\
What components hand on in `act(request, action)`. A part is `None` until the component of its stage
has acted, or `request.need(part)` has made it by the hand-set default."""
_MEMORY = """\
`request.memory`, and what shaping potentials are given: what the recommender remembers of a
session. While a request is open, and for reward terms, it is as before the request."""
_STEP = """\
`VecStep.metrics`, float32 `[B]` each, and `infos` of the PettingZoo views; of the users' outcomes
those that the user model has."""
_EPISODE = """\
`VecStep.episodes`; the users' outcomes are there as sums over the session, any other number of a
step as `NAME_per_request`, its mean."""
_RUN = """\
A line of `metrics.jsonl` and the curves of dashboards. Numbers of a step are there too, as means
over the iteration's requests."""
_EVALUATION = f"""\
Of a session in `evaluation.json`, beside its numbers of an episode and its means of those of a
step. Ranking and list metrics are means over the session's requests. Baselines by name:
{", ".join(BASELINES)}."""

_PART = re.compile(r"    # (\w+)$")


def page() -> str:
    """Return the page as Markdown."""
    lines = ["# Fields, requests, outcomes", "", _FIRST]
    for title, words, table in _sections():
        lines += [f"## {title}", "", _cell(words), "", *table, ""]
    return "\n".join(lines[:-1]) + "\n"


def _sections() -> Iterator[tuple[str, str, list[str]]]:
    fields = {name: FIELDS.get(name).__doc__ or "" for name in FIELDS}
    yield "Observation fields", _FIELDS, _tensors(fields)
    yield "Columns of the field `session`", "In this order.", _table(SESSION_STATISTICS)
    yield "Components", "`pipeline.components`.", _components()
    yield "Request", _REQUEST, _attributes(Request)
    yield "Session memory", _MEMORY, _attributes(SessionMemory)
    yield "Knowledge", f"`request.knowledge`. {_words(Knowledge)}", _attributes(Knowledge)
    for title, registry, place, form in (
        ("Recall channels", CHANNELS, "pipeline.recall.channels", "(request, L) -> int64 [B, L]"),
        ("Feature blocks", BLOCKS, "pipeline.blocks", "(request, candidates) -> float32 [B, C]"),
        ("Reward terms", TERMS, "rewards.team", "(outcome) -> float32 [B]"),
        ("Shaping potentials", POTENTIALS, "rewards.shaping", "(memory) -> float32 [B]"),
    ):
        yield title, f"`{place}`: functions `{form}`.", _registered(registry)
    yield "Outcome", f"What reward terms are given. {_words(Outcome)}", _attributes(Outcome)
    yield "Truth", f"`outcome.truth`. {_words(Truth)}", _attributes(Truth)
    yield "Feedback", f"`outcome.feedback`. {_words(Feedback)}", _attributes(Feedback)
    yield "User models", "`users.model`.", _registered(USER_MODELS)
    yield "Users", "What a user model of your own, a subclass, begins with.", _attributes(Users)
    yield "VecStep", "What `make_vec(...).step(actions)` returns.", _attributes(VecStep)
    yield "Numbers of a step", _STEP, _table(quantities.OF_STEPS)
    yield "Numbers of an episode", _EPISODE, _table(quantities.OF_EPISODES)
    yield "Numbers of a run", _RUN, _table(quantities.OF_RUNS)
    yield "Numbers of an evaluation", _EVALUATION, _table(quantities.OF_EVALUATIONS)


def _words(documented: object) -> str:
    """Return the first paragraph of a docstring, a sentence."""
    return " ".join((inspect.getdoc(documented) or "").split("\n\n")[0].split())


def _cell(text: str) -> str:
    """Return docstring text as a cell of Markdown."""
    text = re.sub(r":\w+:`~?[.]?([^`]*)`", r"`\1`", " ".join(text.split()))
    return text.replace("``", "`").replace("|", "\\|")


def _rows(header: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    head = list(header)
    body = [f"| {' | '.join(map(_cell, row))} |" for row in rows]
    return [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *body]


def _table(told: Mapping[str, str]) -> list[str]:
    rows = ((f"`{name}...`" if name.endswith("/") else f"`{name}`", told[name]) for name in told)
    return _rows(("name", "meaning"), rows)


def _registered(registry: Registry[object]) -> list[str]:
    return _table({name: _words(registry.get(name)) for name in registry})


def _components() -> list[str]:
    known = {name: COMPONENTS.get(name) for name in sorted(COMPONENTS)}
    kinds = dict(sorted(known.items(), key=lambda pair: -len(pair[1].before)))  # first ones first
    return _rows(
        ("name", "what it does", "fields", "own objective"),
        (
            (
                f"`{name}`",
                _words(kind),
                ", ".join(kind.fields),
                " + ".join(
                    term if weight == 1 else f"{weight:g} {term}"
                    for term, weight in kind.objective.items()
                )
                .replace("+ -1 ", "- ")
                .replace("+ -", "- "),
            )
            for name, kind in kinds.items()
        ),
    )


def shape_of(told: str) -> tuple[str, str]:
    """Split what is told of a tensor into its kind with its shape, and the rest.

    >>> shape_of("Float32 ``[B, T]``, decayed topic shares.")
    ('float32 ``[B, T]``', 'decayed topic shares.')
    """
    found = re.match(r"((?:Float32|Int64|Bool)?,? ?``\[[^`]*\]``(?: each)?)[,:;.]? ?", told)
    if found is None:
        return "", told
    return found[1][:1].lower() + found[1][1:], told[found.end() :]


def _tensors(told: Mapping[str, str]) -> list[str]:
    split = {name: shape_of(" ".join(words.split())) for name, words in told.items()}
    return _rows(
        ("name", "shape", "meaning"),
        ((f"`{name}`", shape, meaning) for name, (shape, meaning) in split.items()),
    )


def _attributes(kind: type) -> list[str]:
    """Return the public attributes and properties of a class with what is told below each.

    Where comments divide them (``# profile``), a column says in which part each stands.
    """
    source = textwrap.dedent(inspect.getsource(kind))
    [tree] = ast.parse(source).body
    assert isinstance(tree, ast.ClassDef)
    parts = [(n, m[1]) for n, line in enumerate(source.splitlines(), 1) if (m := _PART.match(line))]
    found: list[tuple[str, str, str, str]] = []
    for node, below in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name, form, words = node.target.id, ast.unparse(node.annotation), _told(below)
            part = next((part for line, part in reversed(parts) if line < node.lineno), "")
        elif isinstance(node, ast.FunctionDef) and _is_property(node):
            form, words = ast.unparse(node.returns or node), ast.get_docstring(node) or ""
            name, part = node.name, ""
        else:
            continue
        shape, meaning = shape_of(" ".join(words.partition("Raises:")[0].split()))
        if not name.startswith("_"):
            found.append((f"`{name}`", shape or f"`{form}`", part, meaning))
    header, kept = ("name", "type and shape", "stage", "meaning"), [0, 1, 2, 3]
    if not parts:
        kept.remove(2)
    return _rows([header[k] for k in kept], ([row[k] for k in kept] for row in found))


def _told(node: ast.stmt | None) -> str:
    """Return the docstring that a statement is, or none."""
    constant = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return str(node.value.value) if constant else ""  # type: ignore[union-attr]


def _is_property(node: ast.FunctionDef) -> bool:
    marks = {ast.unparse(mark) for mark in node.decorator_list}
    return bool(marks & {"property", "cached_property"})
