"""The page's section on one request of a run's evaluation: its way through the funnel."""

from __future__ import annotations

from agents.comparison.runs import TRAINED
from agents.comparison.summary import Summary
from marec_env.evaluation.sample import SampledRequest
from marec_env.reporting.charts import Rung, ladder_figure
from marec_env.reporting.drawing import NEUTRAL, Figure, color_of, shown
from marec_env.reporting.table import TextTable


def _sample(summary: Summary) -> SampledRequest | None:
    """Return the request that one run alone has kept."""
    runs = [run for group in summary.grouping.groups for run in group.runs]
    return runs[0].evaluated.policies[TRAINED].sample if len(runs) == 1 else None


def request_lead(summary: Summary) -> list[str]:
    """Return whose request it is."""
    sample = _sample(summary)
    if sample is None:
        return []
    who = "a new user, known from this session alone" if sample.new_user else "a known user"
    return [
        f"Session {sample.session} of the evaluation (seed {summary.cohort}), request "
        f"{sample.request} counted from 0: {who}. It is the last of the session's first five that "
        "got a click, if any did. Relevant: among the items that the user truly likes best. "
        f"F of this request: {shown(sample.reward)}."
    ]


def request_figures(summary: Summary) -> list[Figure]:
    """Draw catalog, candidates by channel, features, slate and clicks."""
    sample = _sample(summary)
    if sample is None:
        return []
    colors = {name: color_of(place) for place, name in enumerate(sample.channels)}
    unseen, (count, wanted) = f"{sample.unseen:,} unseen items", sample.candidates
    most = max((brought for brought, _ in sample.channels.values()), default=1) or 1
    rungs = [
        Rung("Catalog", note=f"{unseen}, {sample.relevant} relevant"),
        Rung("Recall: candidates", note=f"{count}, {wanted} relevant"),
        *(
            Rung(name, brought / most, f"{brought}, {relevant} relevant", colors[name])
            for name, (brought, relevant) in sample.channels.items()
        ),
    ]
    if sample.blocks:
        computed = f"{sum(sample.blocks.values())} of {len(sample.blocks)} computed"
        rungs.append(Rung("Features", note=computed))
        on = ", ".join(name for name, there in sample.blocks.items() if there)
        off = ", ".join(name for name, there in sample.blocks.items() if not there)
        rungs += [Rung(on, color=color_of(2))] if on else []
        rungs += [Rung(off, note="left out", color=NEUTRAL)] if off else []
    relevant = sum(item.relevant for item in sample.slate)
    rungs.append(Rung("Ranking: slate", note=f"{len(sample.slate)}, {relevant} relevant"))
    for place, item in enumerate(sample.slate, start=1):
        marks = ["relevant"] * item.relevant + ["CLICKED"] * item.clicked
        color = colors.get(item.channel, NEUTRAL)
        rungs.append(Rung(f"{place}. {item.title}", note=" ".join(marks), color=color))
    rungs.append(Rung("Clicks", note=f"{sample.clicks} of {len(sample.slate)}"))
    caption = "One request from the catalog to the clicks; colours tell the recall channel."
    return [ladder_figure(rungs, caption)]


def request_tables(summary: Summary) -> list[TextTable]:
    """Return what each component decided and earned, and how each item came into the slate."""
    sample = _sample(summary)
    if sample is None:
        return []
    decided = [
        [
            agent,
            "; ".join(f"{name} {value:.3g}" for name, value in found.items()),
            "-" if (earned := sample.objectives.get(agent)) is None else shown(earned),
        ]
        for agent, found in sample.decisions.items()
    ]
    items = [
        [
            f"{place}. {item.title}",
            item.channel or "-",
            "-" if item.score is None else f"{item.score:+.2f}",
            " ".join(f"{value:+.2f} {name}" for name, value in item.parts.items() if value) or "-",
            ", ".join(["relevant"] * item.relevant + ["clicked"] * item.clicked) or "-",
        ]
        for place, item in enumerate(sample.slate, start=1)
    ]
    header = ["item", "brought by", "score", "of which", "to the user"]
    return [
        TextTable(
            "What each component decided", ["component", "decisions", "f_i"], decided, prose=True
        ),
        TextTable("How each item came into the slate", header, items, prose=True),
    ]
