"""What a recommender could know of users at best: a Bayes filter under the users' own model.

It knows the model with its parameters and everybody's tastes, but of each session only who the user
is, if there is a history, and what was shown and clicked. Hidden are then the taste of a new user,
the passing intent, and whether the user gets bored; exposure and patience follow from what was
shown and clicked. A hypothesis is a taste with an intent; weights over hypotheses and kinds of
users (not susceptible, susceptible) are updated at every answer,

    w(j, s) <- w(j, s) prod_k P(click_k | j, s),    then    w(j, s) <- (1 - q) w(j, s)
                                                            + q P(j | taste) sum_taste w(., s)

with q the probability that another intent comes (the forward algorithm: Rabiner, "A tutorial on
hidden Markov models", 1989). The tastes of new users are everybody's: users are drawn evenly, so
this is no approximation. All terms are those of the users' modules.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

from marec_env.catalog.population import Population
from marec_env.errors import ConfigError
from marec_env.users.composed import ComposedUsers
from marec_env.users.config import ContinuousBoredom, UsersConfig
from marec_env.users.modules import (
    Choice,
    Examination,
    ExposureBoredom,
    Intent,
    Relevance,
)
from marec_env.users.oracles import REQUESTS, Outlook

_KNOWN = {"patience", "exposure", "intent"}  # modules that the filter understands
_CELLS = 1 << 22  # numbers held at once
_CERTAIN = 1e-6  # least chance of a click, and of none, whose logit is taken


class Beliefs:
    """Weights over hypotheses about ``B`` users, which are shared (``J`` of them) or their own."""

    def __init__(
        self,
        config: UsersConfig,
        population: Population,
        tastes: Tensor,
        liked: Tensor,
        count: Tensor,
        prior: Tensor,
    ) -> None:
        """Args:
        config: the section ``users``.
        population: who the users may be.
        tastes: float32 ``[P, d]`` (shared) or ``[B, P, d]``, hypothetical ones.
        liked: int64 ``[..., P, L]``, items whose direction an intent may take.
        count: int64 ``[..., P]``, how many; 0: any item, of which evenly spread ones stand.
        prior: float32 ``[B, P]``, rows of sum 1.
        """
        boredom, susceptible, weight = config.boredom, 0.0, 0.0
        if isinstance(boredom, ContinuousBoredom):
            susceptible, weight = boredom.susceptible_share, boredom.weight
        self.levels = torch.tensor([0.0, weight])
        """Float32 ``[S]``: logits that each kind of user loses at full boredom."""
        self._switch = config.intent.switch_probability
        self._choice = Choice(config.choice)
        self._examination = Examination(config.examination, tastes.device)
        places = torch.arange(liked.shape[-1])
        spread = places * population.num_items // len(places)
        none = (count == 0).unsqueeze(-1)
        valid = (places < count.unsqueeze(-1)) | none
        share = valid / valid.sum(-1, keepdim=True)
        items = torch.where(none, spread, liked.clamp(min=0))
        owner = torch.arange(tastes.shape[-2]).unsqueeze(1).expand(-1, len(places))
        taste = tastes.unsqueeze(-2).expand(*items.shape, -1)
        if config.intent.weight > 0:
            taste = Intent(config, population, 1).mixed(taste, items)
        interest = pad(taste, (0, 1), value=1.0)
        if interest.dim() == 3:  # shared: what nobody can have is left out
            interest, share, self._owner = interest[valid], share[valid], owner[valid]
        else:
            interest, share = interest.flatten(1, 2), share.flatten(1, 2)
            self._owner = owner.flatten()
        self._share = share  # P(intent | taste), [*, J]
        # [*, N, J], so that a slate's rows lie together.
        relevance = Relevance(config.relevance, population)
        logits = relevance.logits(interest.flatten(0, -2)).view(*interest.shape[:-1], -1)
        self._logits = logits.transpose(-1, -2).contiguous()
        self._chance = self._choice.alone(self._logits)
        kinds = torch.tensor([1.0 - susceptible, susceptible])
        self._prior = (prior[:, self._owner] * share).unsqueeze(1) * kinds.unsqueeze(1)
        self.weights = self._prior
        """Float32 ``[B, S, J]``, of sum 1 over kinds and hypotheses."""

    def _chances(self, slate: Tensor, loss: Tensor, rows: slice) -> Tensor:
        """Return the chance of a click under every hypothesis, of some rows: ``[b, S, K, J]``."""
        slate, loss = slate[rows], loss[rows]
        if self._logits.dim() == 2:
            logits = self._logits[slate]
        else:
            logits = self._logits[rows][torch.arange(len(slate)).unsqueeze(1), slate]
        lost = loss[:, None, :, None] * self.levels[:, None, None]
        examined = self._examination.probability(slate.shape[1]).unsqueeze(1)
        return self._choice.probability(logits.unsqueeze(1) - lost, examined)

    def expected(self, slate: Tensor, loss: Tensor) -> Tensor:
        """Return the expected clicks at each position, float32 ``[B, K]``.

        Args:
            slate: int64 ``[B, K]``.
            loss: float32 ``[B, K]``, the boredom of the items' topics in [0, 1].
        """
        chances = self._chances(slate, loss, slice(len(slate)))
        return torch.einsum("bsj,bskj->bk", self.weights, chances)

    def observe(self, slate: Tensor, clicks: Tensor, loss: Tensor) -> None:
        """Learn from one answered request, boredom as it was before; then intents may change."""
        step = max(1, _CELLS // (self.weights[0].numel() * slate.shape[1]))
        parts = []
        for first in range(0, len(slate), step):
            rows = slice(first, first + step)
            chances = self._chances(slate, loss, rows)
            no = clicks[rows, None, :, None] == 0
            # 1 - p without a click, p with one.
            parts.append(chances.sub_(no.to(chances.dtype)).abs_().prod(2))
        weights = self.weights * torch.cat(parts)
        weights = weights / weights.sum((1, 2), keepdim=True).clamp(min=1e-30)
        mass = weights.new_zeros(*weights.shape[:2], int(self._owner[-1]) + 1)
        mass.index_add_(2, self._owner, weights)
        anew = mass[:, :, self._owner] * self._share.view(-1, 1, self._share.shape[-1])
        self.weights = weights.lerp(anew, self._switch)

    def marginal(self) -> tuple[Tensor, Tensor]:
        """Return the kinds' probabilities ``[B, S]``, and each kind's chance of a click on every
        examined item, were no topic boring, ``[B, S, N]``.
        """
        share = self.weights.sum(2)
        chance = self.weights @ self._chance.transpose(-1, -2)
        return share, chance / share.clamp(min=1e-30).unsqueeze(2)


def guessed_tastes(population: Population, draws: int, seed: int, folds: int = 10) -> Tensor:
    """Return tastes as they can be told from histories by who never met the user, float32
    ``[U, draws, d]``.

    Ridge regression of tastes on the mean factors of what was consumed and liked and on topic
    shares, each user's fitted on the other folds; the draws add residuals of users of other folds.
    """
    users = population.num_users
    history, likes = population.history.of(torch.arange(users))
    factors = torch.cat([population.item_factors, population.quality.unsqueeze(1)], dim=1)
    parts = []
    for kept in (history >= 0, likes & (history >= 0)):
        weight = kept / kept.sum(1, keepdim=True).clamp(min=1)
        parts += [torch.einsum("uh,uhd->ud", weight, factors[history.clamp(min=0)])]
        share = torch.zeros(users, population.num_topics)
        share.scatter_add_(1, population.topics[history.clamp(min=0)], weight)
        parts += [share, torch.log(share + 0.02), kept.sum(1, keepdim=True).log1p()]
    features = torch.cat([*parts, torch.ones(users, 1)], dim=1)
    generator = torch.Generator().manual_seed(seed)
    fold = torch.randperm(users, generator=generator) % folds
    found = torch.zeros_like(population.user_factors)
    for number in range(folds):
        mine = fold == number
        x, y = features[~mine].double(), population.user_factors[~mine].double()
        ridge = torch.eye(x.shape[1], dtype=torch.float64)
        solved = torch.linalg.solve(x.T @ x + ridge, x.T @ y)
        found[mine] = (features[mine].double() @ solved).float()
    residual = population.user_factors - found
    other = torch.randint(users, (users, draws), generator=generator)
    return normalize(found.unsqueeze(1) + residual[other], dim=2)


class Filter:
    """The filter of ``B`` sessions, those with and without a history."""

    def __init__(
        self,
        config: UsersConfig,
        population: Population,
        users: Tensor,
        known: Tensor,
        guesses: Tensor | None = None,
    ) -> None:
        """Args:
        config: the section ``users``.
        population: everybody, with their tastes.
        users: int64 ``[B]``, who they are; used where known (a history names its user), and to
            leave the user's own taste out of the guesses.
        known: bool ``[B]``, whether there is a history.
        guesses: float32 ``[U, P, d]``, tastes to go by instead of those of known users
            (:func:`guessed_tastes`); nobody's taste is known of the user himself then.

        Raises:
            ConfigError: the users do something that the filter does not know.
        """
        model = ComposedUsers(config, population, 1, population.topics.device)
        odd = sorted(set(model.modules) - _KNOWN)
        odd += [f"choice: {config.choice.kind}"] * (config.choice.kind != "independent")
        odd += [f"examination: {config.examination.kind}"] * (config.examination.kind == "cascade")
        if odd:
            raise ConfigError(
                f"users: informed play does not know {', '.join(odd)}; it knows intent, boredom by "
                "exposure, patience, independent choice and examination by position"
            )
        self._topics, sessions = population.topics, len(users)
        self._exposure = (
            ExposureBoredom(config, population, sessions)
            if isinstance(config.boredom, ContinuousBoredom)
            else None
        )
        self._examined = Examination(config.examination, population.topics.device)
        self._items, self._kinds = population.num_items, population.num_topics
        past = population.history.likes()
        count, width = past.count, max(past.length, 1)
        places = past.begin.unsqueeze(1) + torch.arange(width)
        liked = past.item[places.clamp(max=len(past.item) - 1)]  # what follows is anyone's
        if config.intent.source == "catalog":
            count = torch.zeros_like(count)
        self.groups: list[tuple[Tensor, Beliefs]] = []
        """Int64 rows with what is believed of them."""
        if len(rows := known.nonzero().squeeze(1)):
            who = users[rows]
            tastes = population.user_factors.unsqueeze(1) if guesses is None else guesses
            prior = torch.full((len(rows), tastes.shape[1]), 1.0 / tastes.shape[1])
            size = prior.shape[1]
            likes = liked[who].unsqueeze(1).expand(-1, size, -1), count[who, None].expand(-1, size)
            self.groups += [(rows, Beliefs(config, population, tastes[who], *likes, prior))]
        if len(rows := (~known).nonzero().squeeze(1)):
            prior = torch.ones(len(rows), population.num_users)
            if guesses is not None:
                prior.scatter_(1, users[rows].unsqueeze(1), 0.0)
            prior /= prior.sum(1, keepdim=True)
            tastes = population.user_factors
            self.groups += [(rows, Beliefs(config, population, tastes, liked, count, prior))]

    def _boredom(self, slate: Tensor) -> Tensor:
        level = self._exposure.level(self._topics[slate]) if self._exposure is not None else None
        return torch.zeros(slate.shape) if level is None else level

    def observe(self, slate: Tensor, clicks: Tensor) -> None:
        """Learn from one answered request: int64 and float32 ``[B, K]``."""
        bored = self._boredom(slate)
        for rows, beliefs in self.groups:
            beliefs.observe(slate[rows], clicks[rows], bored[rows])
        if self._exposure is not None:
            self._exposure.expose(self._topics[slate])

    def expected(self, slate: Tensor) -> Tensor:
        """Return the expected clicks at each position of slates, float32 ``[B, K]``."""
        found, bored = torch.zeros(slate.shape), self._boredom(slate)
        for rows, beliefs in self.groups:
            found[rows] = beliefs.expected(slate[rows], bored[rows])
        return found

    def outlook(self, slate_size: int) -> Outlook:
        """Return what is expected of the next slates.

        Boredom is taken off the logit of the mean chance, not off every hypothesis' logit, as
        :meth:`expected` does.
        """
        sessions = sum(len(rows) for rows, _ in self.groups)
        share, logits = torch.zeros(sessions, 2), torch.zeros(sessions, 2, self._items)
        for rows, beliefs in self.groups:
            share[rows], chance = beliefs.marginal()
            logits[rows] = torch.logit(chance, eps=_CERTAIN)
        levels = self.groups[0][1].levels
        losses = torch.zeros(sessions, self._kinds, slate_size + 1, len(REQUESTS))
        if self._exposure is not None:
            counts = torch.arange(slate_size + 1, dtype=torch.float32)
            losses = self._exposure.ahead(counts, slate_size, torch.tensor(REQUESTS))
        losses = losses.unsqueeze(1) * levels.view(-1, 1, 1, 1)
        examined = self._examined.probability(slate_size)
        return Outlook(share, logits, losses, self._topics, examined)
