"""The tasks of ``marec/suite-v0`` and what each of them claims."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

SUITE = "marec/suite-v0"


@dataclass(frozen=True, slots=True)
class Task:
    """A preset ``configs/suite/NAME.yaml`` with its claim."""

    claim: str
    """What is to be shown, in a sentence."""
    better: str
    """The algorithm that has the ability; see :data:`agents.suite.algorithms.ALGORITHMS`."""
    worse: str
    """The same without it."""
    least: float
    """The share of the worse one's clicks that the ability has to add."""
    tried: str
    """What was tried to find the preset, on seeds and sessions that are not reported."""
    shuffled: str = ""
    """The control: what the better one's components see of this field (``messages`` for what they
    hear) comes from other sessions, which has to take the gain away; empty for none."""


TASKS: Mapping[str, Task] = {
    "memory": Task(
        "A recurrent team beats the same team without memory.",
        better="mappo-recurrent", worse="mappo", least=0.05, shuffled="feedback",
        tried="A ranking by topic in place of the recall, on MovieLens (22.9 and 25.0 clicks) and "
        "on the generated world (5.0 and 5.5); batches of 10,240 requests, where 5,120 take a "
        "quarter of the budget.",
    ),
    "communication": Task(
        "Learned messages beat none where what one component knows another would need.",
        better="mappo-messages", worse="mappo", least=0.05, shuffled="messages",
        tried="A ranking by topic that listens, seven settings, two and four kinds of items (none "
        "told from silence: what it adds to a topic decides too little, 8.3 clicks if it sees all "
        "itself, 7.6 if nothing); this recall with messages of one number (6.6 and 6.5), and of "
        "four in batches of 10,240 requests, not 2,560 (7.0).",
    ),
    "motives": Task(
        "Components paid their own f_i lose clicks to components paid F.",
        better="ippo", worse="ippo-own", least=0.1,
        tried="A funnel of 10 and 20 candidates on MovieLens with slates of five, and of 6 here "
        "with boredom (own rewards lost 0 to 4 %); blocks that cost 0.1 (1 %).",
    ),
    "foresight": Task(
        "Looking ahead beats myopia where boredom builds up over requests.",
        better="mappo", worse="mappo-myopic", least=0.05,
        tried="Boredom of memory 0.95, of which one request shows too little to learn from (8.5 to "
        "8.8 clicks, 8.9 myopic, 11.6 random play); a ranking by topic with memory 0.9, two "
        "settings (3.5 and 3.8, 31.3 and 30.0); users who return as satisfied as they are (8.1 and "
        "8.2). With memory 0.75, that of the field `exposure`, all of six settings showed it.",
    ),
    "credit": Task(
        "Difference rewards teach independent learners what a noisy F does not.",
        better="ippo-difference", worse="ippo", least=0.05,
        tried="A recall by channels: 9.33 and 9.31 clicks after 100,000 requests of one item, 12.0 "
        "and 12.0 after 20,000 of eight items of sixteen. This recall by topics after 60,000: 8.4 "
        "and 8.1 (two seeds).",
    ),
    "adaptation": Task(
        "Learning on, as long again, when another crowd and catalog come beats the team frozen "
        "before.",
        better="mappo-continued", worse="mappo", least=0.05,
        tried="Teams with memory to which walking tastes and boredom come (5.7 frozen, 5.8 going "
        "on); both for teams that look ahead, which going on makes worse (4.8 and 3.5); the same "
        "crowd for a recall that sees what each user likes, with nothing to learn (12.1 and 12.1).",
    ),
    "generalisation": Task(
        "A team loses clicks on users and items that it was not trained on.",
        better="mappo-home", worse="mappo", least=0.02,
        tried="A ranking by topic that knows its users (15.2 elsewhere, 15.1 at home); teams with "
        "memory (7.3 and 10.0, by 4.6 standard errors); this recall, if it sees users' interest by "
        "topic in place of vectors, loses nothing (12.1 and 12.0).",
    ),
}  # fmt: skip
"""By the name of their preset."""

WITHOUT: Mapping[str, str] = {
    "coordination": (
        "No preset with a bad equilibrium was found. With a price on each unit of message in the "
        "task of communication independent learners paid F still talk, and better so: F 0.110 at "
        "a price of 0.08, 0.095 at 0.3, 0.098 at 0.6 after 300,000 requests (0.080 after 150,000), "
        "0.091 in silence; where noise drowns the message, they end silent (two tuning seeds each)."
        " A block that costs 0.05 of F a request and is worth 0.058 to a ranking that weighs it "
        "was found with ten of ten seeds (F 2.04 to 2.09 a session, 1.68 without it)."
    ),
}
"""Abilities that no task shows, and why."""
