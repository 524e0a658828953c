"""Pictures of one request's way through the funnel: channels, candidates, slate, feedback."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from marec_env.errors import visible
from marec_env.rewards.terms import Outcome
from marec_env.world import World

_WIDTH = 78  # characters of the text picture
_BAR = 20  # characters of the longest bar
_TITLE = 34


def _channel_counts(world: World, outcome: Outcome) -> list[tuple[str, int, int]]:
    """Return (channel, candidates, shown) of session 0; a slate from outside has no channels."""
    request = outcome.request
    if request.candidate_channel is None or request.slate_slot is None:
        return []
    names = [*world.config.pipeline.recall.channels, "fallback"]
    channel = request.candidate_channel[0]
    shown = channel[request.slate_slot[0]]
    return [
        (name, int((channel == place).sum()), int((shown == place).sum()))
        for place, name in enumerate(names)
    ]


def funnel_text(world: World, outcome: Outcome | None) -> str:
    """Return session 0's latest request as lines of text."""
    if outcome is None:
        return "no request yet"
    request = outcome.request
    lines = [f"request {int(request.step[0]) + 1}".ljust(_WIDTH, " ")]
    counts = _channel_counts(world, outcome)
    if counts:
        lines.append(f"{'channel':<14}{'candidates':>10}  {'':<{_BAR}} {'shown':>5}")
        total = max(1, max(count for _, count, _ in counts))
        for name, count, shown in counts:
            if count or shown:
                bar = "█" * round(_BAR * count / total)
                lines.append(f"{name:<14}{count:>10}  {bar:<{_BAR}} {shown:>5}")
    lines.append(f"{'':>2} {'slate':<{_TITLE}} {'topic':<24} {'p(click)':>8}  feedback")
    probability = outcome.truth.candidate_probability[0]
    slots = request.slate_slot[0] if request.slate_slot is not None else range(len(probability))
    for place, (item, slot) in enumerate(zip(outcome.slate[0].tolist(), slots, strict=True)):
        title = visible(world.catalog.titles[item])[:_TITLE]
        topic = visible(world.catalog.topic_names[int(world.catalog.topics[item])])[:24]
        behaviours = outcome.feedback.behaviours.items()
        said = [visible(name) for name, values in behaviours if float(values[0, place]) > 0]
        chance = float(probability[int(slot)])
        lines.append(
            f"{place + 1:>2} {title:<{_TITLE}} {topic:<24} {chance:>8.2f}  {' '.join(said) or '-'}"
        )
    mood = "leaves" if bool(outcome.feedback.left[0]) else "stays"
    content = float(outcome.feedback.satisfaction[0])
    lines.append(f"the user {mood}; satisfaction {content:.2f}")
    return "\n".join(lines)


def funnel_image(world: World, outcome: Outcome | None) -> NDArray[np.uint8]:
    """Return session 0's latest request as an RGB image, uint8 ``[height, width, 3]``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.6))
    if outcome is None:
        figure.suptitle("no request yet")
    else:
        counts = _channel_counts(world, outcome)
        names = [name for name, _, _ in counts]
        left.barh(names, [count for _, count, _ in counts], color="#9db8d9", label="candidates")
        left.barh(names, [shown for _, _, shown in counts], color="#1f4e8c", label="shown")
        left.invert_yaxis()
        left.set_xlabel("items")
        left.legend(frameon=False)
        request = outcome.request
        chance = outcome.truth.candidate_probability[0]
        if request.slate_slot is not None:
            chance = chance[request.slate_slot[0]]
        clicked = outcome.feedback.clicks[0] > 0
        titles = [
            f"{place + 1} {visible(world.catalog.titles[item])[:30]}".replace("$", r"\$")
            for place, item in enumerate(outcome.slate[0].tolist())
        ]
        colours = ["#d9822b" if bool(click) else "#c8c8c8" for click in clicked]
        right.barh(titles, chance.tolist(), color=colours)
        right.invert_yaxis()
        right.set_xlim(0, 1)
        right.set_xlabel("click probability if examined (orange: clicked)")
        mood = "leaves" if bool(outcome.feedback.left[0]) else "stays"
        figure.suptitle(f"request {int(request.step[0]) + 1}: the user {mood}")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
