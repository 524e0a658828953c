"""Drift of tastes, seen in what a service logs: are clicks as probable as they were?

A model of the click probability is fitted on one window of sessions; later windows are held against
it. It reads what the components saw and did, so that other users, or a team that decides otherwise,
are no drift in themselves (as far as a model linear in these numbers and their squares can tell):
drift is that the same request no longer brings the same clicks.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel

from agents.loop.exposure import ExposureLog
from agents.loop.valuation import features
from marec_env.errors import DataError
from marec_env.evaluation.request_log import RequestLog, fitted, ridge
from marec_env.evaluation.statistics import Estimate, difference, mean_estimate


@dataclass(frozen=True, slots=True)
class Calibration:
    """Predicted beside observed click probabilities of shown items, over a window of sessions."""

    sessions: int
    requests: int
    predicted: float
    observed: float
    gap: Estimate
    """Observed less predicted, less the same of the window that the model was fitted on (95 %,
    sessions are the unit)."""

    @property
    def drift(self) -> bool:
        """Whether the gap's interval leaves out 0: by chance so in one window of twenty."""
        return self.gap.significant

    def __str__(self) -> str:
        said = "as before"
        if self.drift:
            said = (
                f"drift: clicks are {'less' if self.gap.value < 0 else 'more'} probable than before"
            )
        return (
            f"click probability predicted {self.predicted:.4f}, observed {self.observed:.4f} "
            f"({self.sessions} sessions): gap {self.gap.value:+.4f} "
            f"[{self.gap.low:+.4f}, {self.gap.high:+.4f}], {said}"
        )

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return {**asdict(self), "gap": self.gap.as_json(), "drift": self.drift}


class ClickModel(BaseModel):
    """A ridge regression of the share of a slate that is clicked, as one window of sessions had it.

    It is the direct method's model (:func:`marec_env.evaluation.request_log.fitted`), of which only
    means over many requests are believed here.
    """

    weights: list[float]
    constant: float
    residual: tuple[float, float, int]
    """Mean of observed less predicted by models of other sessions of the window, its standard error
    and the number of sessions."""

    @classmethod
    def of(cls, log: ExposureLog) -> ClickModel:
        """Return the model of a window of sessions."""
        one = _requests(log)
        weights, constant = ridge(one.features, one.reward)
        found = mean_estimate(one.reward - fitted(one)[0], one.session)
        residual = found.value, found.standard_error, found.count
        return cls(weights=weights.tolist(), constant=constant, residual=residual)

    def calibration(self, log: ExposureLog) -> Calibration:
        """Return how probable clicks were in another window, beside what the model says.

        Raises:
            DataError: components saw or did other things than in the model's window.
        """
        one = _requests(log)
        if one.features.shape[2] != len(self.weights):
            raise DataError(
                f"click probabilities were predicted from {len(self.weights)} numbers of a "
                f"request, and these sessions have {one.features.shape[2]}: another team serves; "
                "begin another file of the loop (--state)"
            )
        predicted = one.features @ np.array(self.weights) + self.constant
        mean, error, count = self.residual
        gap = difference(
            mean_estimate(one.reward - predicted, one.session),
            Estimate(mean, standard_error=error, count=count),
        )
        return Calibration(
            sessions=len(log.key),
            requests=len(one.reward),
            predicted=float(predicted.mean()) + mean,
            observed=float(one.reward.mean()),
            gap=gap,
        )


def _requests(log: ExposureLog) -> RequestLog:
    """Return a log's requests, with the share of the slate that was clicked as the reward."""
    live = log.live
    session = torch.arange(len(log.key)).unsqueeze(1).expand_as(live)[live].numpy()
    read = torch.cat([features(log.observations[a], log.actions[a])[live] for a in log.agents], -1)
    made = read.double().numpy()[:, None]
    reward = log.clicks.mean(dim=2)[live].double().numpy()[:, None]
    one = np.ones_like(reward)
    return RequestLog(session, reward, one, made, made[:, None], one[:, 0])
