"""What the numbers of a step, a run and an evaluation are called, and what they mean.

A name that ends in ``/`` stands for all that begin with it; what follows names a component, a
network, a term or an outcome. docs/fields.md is made of these; tests hold them against the keys
that a step, an iteration and an evaluation give.
"""

from __future__ import annotations

from marec_env.users.base import USER_OUTCOMES

OF_STEPS = {
    "team_reward": "F of the request",
    "clicks": "items of the slate clicked",
    "engagement": "what the request was worth to the platform, 0 to 1; by default clicks over K",
    "satisfaction": "how content the user is after the request, 0 to 1",
    "objective/": "objective f_i a request",
    "term/": "reward term a request, before its weight",
    **USER_OUTCOMES,
}
"""``VecStep.metrics`` and, of one session, the PettingZoo views' ``infos``."""

OF_EPISODES = {
    "length": "requests of the session",
    "return": "F added up over the session",
    "clicks": "items clicked in the session",
}
"""``VecStep.episodes``; users' outcomes are there as sums, any other metric of a step as
``NAME_per_request``, its mean."""

OF_RUNS = {
    "env_steps": "requests trained on so far",
    "agent_steps": "decisions trained on so far: requests times the components that acted",
    "iterations": "rollouts and updates so far",
    "episodes_ended": "sessions that ended in the iteration",
    "episode/": "mean over them of what VecStep.episodes has; missing where none ended",
    "evaluation/": "mean over the cohort of an outcome: of the team while it trains, and of a "
    "baseline where one is named behind it",
    "reward/": "mean reward of a component a request, as the learner got it",
    "policy_loss/": "policy loss",
    "value_loss/": "value loss",
    "explained_variance/": "explained variance of the returns",
    "entropy/": "entropy of the actions in nats",
    "kl/": "KL divergence to the policy before the update",
    "ratio/": "mean probability ratio of new to old policy; 1 on average",
    "clip_fraction/": "share of decisions whose ratio lies outside the clip range",
    "gradient_norm/": "norm of the gradient before it is clipped",
    "happo_factor/": "mean product of the ratios of the actors updated before (HAPPO)",
    "skipped_updates/": "mini-batches left out, for their gradient was not finite",
    "time/": "wall-clock seconds of sampling and update, elapsed seconds, env steps a second",
}
"""A line of ``metrics.jsonl``, beside the means of ``OF_STEPS``; curves of dashboards."""

OF_EVALUATIONS = {
    "stayed": "1 where the session lasted to the limit of requests, 0 where the user left",
    "satisfaction_end": "satisfaction after the last request",
    "returns": "sessions of the episode after the first, where there may be several",
    "precision": "share of the slate that is relevant",
    "recall": "share of the relevant items that is in the slate",
    "f1": "harmonic mean of precision and recall",
    "ndcg": "discounted gain over that of the best possible slate",
    "mrr": "1 over the place of the first relevant item, 0 without one",
    "hit_rate": "share of slates with a relevant item",
    "serendipity": "share of the slate that is relevant and not among the most popular",
    "diversity": "mean cosine distance of the slate's texts, pair by pair",
    "novelty": "mean self-information of the items in bits",
    "miscalibration": "Kullback-Leibler divergence of the slate's topics from the history's, nats",
}
"""Outcomes of a session in ``evaluation.json``, beside those of ``OF_EPISODES`` and the means of
``OF_STEPS``: ranking and list metrics are means over the session's requests."""
