"""The service on several machines: Ray Serve places the replicas, a front stands before them.

    pip install 'marec[serve,postgres]' 'ray[serve]'
    python examples/ray_serve.py bundles/films postgresql://marec@HOST/DATABASE 4

Ray Serve sends a request to whichever copy of a deployment is free; here a session has one owner,
which its name tells. So every replica is a deployment of its own, with one copy and a schema of its
own, and the front asks the owner by its name. Every machine has the bundle by the same path.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

import httpx
from ray import serve
from ray.exceptions import RayError
from starlette.applications import Starlette

from agents.service.app import make_app
from agents.service.config import Replica, ServiceConfig
from agents.service.databases import place_of
from agents.service.front import Front, front_app
from agents.service.link import Answer, loading
from agents.service.worker import RefusedError

PATIENCE = 30.0  # seconds that a request waits for an owner that starts anew


@serve.deployment(num_replicas=1, max_ongoing_requests=1024)
class Owner:
    """One of the replicas. The database lets nobody else write to its schema."""

    async def __init__(self, bundle: str, database: str, replica: Replica) -> None:
        with loading():
            app = make_app([Path(bundle)], place_of(database), ServiceConfig(), replica)
        self.life = app.router.lifespan_context(app)
        await self.life.__aenter__()
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app),
            base_url="http://owner",
            headers={"content-type": "application/json"},
        )
        self.policies = b""

    async def ask(self, method: str, target: str, content: bytes, policies: bytes) -> Answer:
        """Return the service's answer, of the policies that it was told to serve last."""
        if policies not in (b"", self.policies):
            await self.client.put("/policies", content=policies)
            self.policies = policies
        found = await self.client.request(method, target, content=content)
        return Answer(found.status_code, dict(found.headers), found.content)


class Link:
    """An owner as the front asks it."""

    def __init__(self, replica: Replica) -> None:
        self.replica, self.policies = replica, b""
        self.owner: Any = serve.get_deployment_handle(f"owner-{replica.number}", "marec")

    async def ask(self, method: str, target: str, content: bytes = b"") -> Answer:
        """Return its answer; refuse where it ended meanwhile, or is away for long."""
        asked = self.owner.ask.remote(method, target, content, self.policies)
        try:
            answer: Answer = await asyncio.wait_for(asked, PATIENCE)
        except (RayError, TimeoutError) as error:
            raise RefusedError("unavailable", f"{self.replica} starts anew; try again") from error
        if (method, target, answer.status) == ("PUT", "/policies", 200):
            self.policies = content
        return answer


def application(bundle: str, database: str, count: int) -> Any:
    """Return what ``serve.run`` runs under the name 'marec'."""
    replicas = [Replica(number, count) for number in range(count)]
    named = [(Owner.options(name=f"owner-{one.number}"), one) for one in replicas]
    owners = [owner.bind(bundle, database, one) for owner, one in named]

    def front() -> Starlette:
        return front_app(Front([Link(one) for one in replicas]), ServiceConfig())

    return serve.deployment(serve.ingress(front)(), name="front").bind(*owners)


if __name__ == "__main__":
    serve.run(application(*sys.argv[1:3], int(sys.argv[3])), name="marec", blocking=True)
