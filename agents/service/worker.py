"""Requests that arrive together are answered as one batch, in one transaction, by one thread.

While a batch is at work others wait, and make up the next one: under load batches grow, and a
request alone waits for nobody. Answers are given after the commit.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from marec_env.errors import MarecError, RunError

if TYPE_CHECKING:
    from agents.service.desk import Desk

_LOG = logging.getLogger(__name__)

STATUS = {
    "malformed": 400,
    "unauthorised": 401,
    "unknown_session": 404,
    "unknown_request": 404,
    "unknown_item": 404,
    "unknown_policy": 404,
    "not_found": 404,
    "not_allowed": 405,
    "exhausted": 409,
    "too_large": 413,
    "invalid": 422,
    "too_many_requests": 429,
    "failed": 500,
    "overloaded": 503,
    "unavailable": 503,
}
"""HTTP status of each code."""


class RefusedError(MarecError):
    """What a client can mend, with its code."""

    def __init__(self, code: str, message: str) -> None:
        """``code``: of :data:`STATUS`."""
        super().__init__(message)
        self.code = code


@dataclass(slots=True, eq=False)
class Job:
    """One request to the desk."""

    kind: str
    session: str | None
    """That it is about; ``None``: about several."""
    values: dict[str, Any]
    future: Future[Any] = field(default_factory=Future)
    result: Any = None
    error: Exception | None = None
    group: _Group | None = None
    """With which it is answered; ``None``: by itself."""

    def finish(self) -> None:
        """Give the answer, or the group's when it is complete."""
        group = self.group
        if group is not None:
            group.left -= 1
            if group.left or not self.future.set_running_or_notify_cancel():
                return
            self.future.set_result([(job.result, job.error) for job in group.jobs])
        elif self.future.set_running_or_notify_cancel():
            if self.error is not None:
                self.future.set_exception(self.error)
            else:
                self.future.set_result(self.result)


@dataclass(slots=True)
class _Group:
    jobs: list[Job]
    left: int
    """That have no answer yet."""


class Worker:
    """A queue of jobs and the thread that answers them."""

    def __init__(self, desk: Desk, batch: int, waiting: int, seen: Callable[[int], None]) -> None:
        """Args:
        desk: answers.
        batch: jobs answered at once, at most.
        waiting: jobs that may wait.
        seen: is told the size of each batch.
        """
        self._desk, self._batch, self._waiting, self._seen = desk, batch, waiting, seen
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="marec-worker", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Answer what waits, then end."""
        self._queue.put(None)
        self._thread.join()

    @property
    def waiting(self) -> int:
        """Jobs that wait."""
        return self._queue.qsize()

    def submit(self, kind: str, session: str | None = None, **values: Any) -> Future[Any]:
        """Return the future of a job's answer.

        Raises:
            RefusedError: too many wait.
        """
        return self._put([Job(kind, session, values)])

    def submit_all(self, kind: str, sessions: Sequence[str], **values: Any) -> Future[Any]:
        """Return the future of the answers to a job for each session: a list of pairs of result
        and error, one of them ``None``.

        Raises:
            RefusedError: too many wait.
        """
        future, jobs = Future[Any](), list[Job]()
        group = _Group(jobs, len(sessions))
        jobs += [Job(kind, session, values, future, group=group) for session in sessions]
        return self._put(jobs)

    def _put(self, jobs: Sequence[Job]) -> Future[Any]:
        if self._queue.qsize() + len(jobs) > self._waiting:
            raise RefusedError(
                "overloaded", f"{self._waiting} requests wait already; try again later"
            )
        for job in jobs:
            self._queue.put(job)
        return jobs[0].future

    def _run(self) -> None:
        last = False
        while not last:
            jobs = [self._queue.get()]
            while len(jobs) < self._batch and jobs[-1] is not None and not self._queue.empty():
                jobs.append(self._queue.get())
            last = jobs[-1] is None
            known = [job for job in jobs if job is not None and not job.future.cancelled()]
            if known:
                self._answer(known)

    def _answer(self, jobs: list[Job]) -> None:
        self._seen(len(jobs))
        desk = self._desk
        try:
            desk.begin()
            self._work(jobs)
            desk.commit()
        except Exception as error:
            desk.undo()
            told: Exception = error
            if isinstance(error, (desk.store.error, RunError)):
                _LOG.warning("the database cannot be written: %s", error)  # may name its host
                told = RefusedError(
                    "unavailable", "the database cannot be written; the service's log says why"
                )
            for job in jobs:
                job.error = told
        for job in jobs:
            job.finish()

    def _work(self, jobs: Sequence[Job]) -> None:
        """Answer jobs in their order, but for those of different sessions that go together."""
        joined: list[Job] = []
        sessions: set[str | None] = set()
        for job in jobs:
            goes_along = self._desk.joins(job.kind)
            same = job.session is not None and job.session in sessions
            if same or (job.session is None and not goes_along):
                self._desk.together(joined)
                joined, sessions = [], set()
            if goes_along:
                joined.append(job)
                sessions.add(job.session)
                continue
            try:
                job.result = self._desk.alone(job)
            except MarecError as error:
                job.error = error
        self._desk.together(joined)
