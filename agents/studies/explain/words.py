"""Explanations in sentences."""

from __future__ import annotations

from agents.studies.explain.average import ComponentExplanation, TeamExplanation
from agents.studies.explain.request import DecisionReason, RequestExplanation, ShownItem

__all__ = ["average_sentences", "request_sentences"]

_NAMED = 2  # groups that a sentence names
_TITLES = 3  # items that a sentence names
_NOTABLE = 0.05  # of a decision's unit (half a Box's range, one level): smaller changes go unsaid


def average_sentences(average: TeamExplanation) -> list[str]:
    """Return one sentence a component, then what that is based on."""
    lines = [_component_sentence(c, average.slate_size) for c in average.components]
    lines.append(
        f"Based on {average.requests:,} requests of {average.sessions} sessions (seed "
        f"{average.seed}); a masked input shows the average of these requests instead."
    )
    return lines


def _component_sentence(component: ComponentExplanation, slate_size: int) -> str:
    ranked = component.ranked()
    named = [f"{group.name} ({group.share:.0%})" for group in ranked[:_NAMED]]
    first = ranked[0]
    clicks = first.worth["clicks"]
    gap = clicks.difference
    worth = f"{abs(gap.value):.1f} ± {(gap.high - gap.low) / 2:.1f} clicks a session"
    verdict = (
        f"knowing it is worth {worth}"
        if clicks.significant and gap.value > 0
        else f"knowing it costs {worth}"
        if clicks.significant
        else f"clicks a session change by {-gap.value:+.1f} ± {(gap.high - gap.low) / 2:.1f}, "
        "which is not told apart from nothing"
    )
    return (
        f"{component.agent} goes chiefly by {' and '.join(named)}. Without {first.name}, "
        f"{first.items_changed.value:.1f} of {slate_size} items of a slate would be others; "
        f"{verdict}."
    )


def request_sentences(found: RequestExplanation) -> list[str]:
    """Return who asked, why each item was shown, and what each component went by."""
    who = "a new user, known from this session alone" if found.new_user else "a known user"
    lines = [
        f"Session {found.session} (seed {found.seed}), request {found.request} of 0 … "
        f"{found.length - 1}: {who}."
    ]
    if found.liked:
        lines.append(f"Known to like of late: {', '.join(found.liked)}.")
    lines += [_item_sentence(place, item) for place, item in enumerate(found.slate, start=1)]
    for agent, reasons in found.decisions.items():
        lines.append(_decision_sentence(agent, reasons))
        strongest = found.masked[agent][0]
        if strongest.removed:
            lines.append(
                f"  Without {strongest.group} {len(strongest.removed)} of {len(found.slate)} items "
                f"would be others: {_some(strongest.added)} for {_some(strongest.removed)}."
            )
        else:
            lines.append("  Masking any one of its inputs leaves the slate's items as they are.")
    return lines


def _item_sentence(place: int, item: ShownItem) -> str:
    reasons = []
    if item.channel:
        reasons.append(f"from {item.channel}")
    if item.score is not None:
        parts = sorted(item.parts.items(), key=lambda part: -abs(part[1]))
        total = f"score {item.score:+.2f}"
        if parts:
            total += " = " + " ".join(f"{value:+.2f} {name}" for name, value in parts if value)
        reasons.append(total)
    clicked = " [clicked]" if item.clicked else ""
    return f"{place:>2}. {item.title}{clicked}: {'; '.join(reasons)}"


def _decision_sentence(agent: str, reasons: tuple[DecisionReason, ...]) -> str:
    strongest = max(reasons, key=lambda reason: abs(reason.value - reason.usual))
    change = strongest.value - strongest.usual
    if abs(change) < _NOTABLE:
        return f"{agent} decided much as on an average request."
    causes = sorted(strongest.attributions.items(), key=lambda cause: -abs(cause[1]))[:_NAMED]
    named = ", ".join(f"{name} {value:+.2f}" for name, value in causes)
    return (
        f"{agent} set {strongest.name} to {strongest.value:+.2f}, {abs(change):.2f} "
        f"{'above' if change > 0 else 'below'} what an average request gets ({named})."
    )


def _some(titles: tuple[str, ...]) -> str:
    rest = len(titles) - _TITLES
    return ", ".join(titles[:_TITLES]) + (f" and {rest} more" if rest > 0 else "")
