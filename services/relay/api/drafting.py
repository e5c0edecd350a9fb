"""Converts a request's destination and options into messages: one, or one for each endpoint of a URL group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.relay.message import Body, Draft
from services.relay.protocol.address import Destination, GroupName, Url, destination
from services.relay.protocol.invalid import InvalidRequestError
from services.relay.protocol.publishing import draft, merged
from services.relay.protocol.views import EndpointView
from services.relay.store.topics import Topics

Expansion = Sequence[tuple[EndpointView, Mapping[str, str]]]


@dataclass(frozen=True)
class Asked:
    """`address` is as received. `options` are by lower-case name. With a `queue` the messages wait for a slot in it."""

    address: str
    options: Mapping[str, str]
    body: Body
    caller_ip: str
    protocol: int = 2
    queue: str | None = None


@dataclass(frozen=True)
class Drafted:
    """`group`: whether the request named a URL group. Its answer is then an array."""

    drafts: Sequence[Draft]
    group: bool


class Drafter:
    """Caches the groups and options it has read, so it is created for each request.

    The messages of a batch usually have the same options. Parsing them for each message took nearly half of the relay's
    time for a batch.
    """

    def __init__(self, topics: Topics, now_seconds: float) -> None:
        self._topics = topics
        self._now_seconds = now_seconds
        self._expansions: dict[str, Expansion] = {}
        self._read: dict[object, Draft] = {}

    async def draft(self, asked: Asked) -> Drafted:
        """Raises `InvalidRequestError`."""
        if asked.queue is not None:
            for name in ("Upstash-Delay", "Upstash-Not-Before"):
                if asked.options.get(name.lower(), "").strip():
                    raise InvalidRequestError(f"{name} is not supported on enqueue: a queue is first in, first out")
        if asked.options.get("upstash-cron", "").strip():
            raise InvalidRequestError("Upstash-Cron is for POST /v2/schedules/{destination}")
        found = await self.resolve(destination(asked.address))
        if isinstance(found, Url):
            return Drafted([self._draft(found.text, asked.options, asked)], group=False)
        drafts = [
            self._draft(endpoint.url, merged(headers, asked.options), asked, topic=found.text, endpoint=endpoint.name)
            for endpoint, headers in await self._expand(found.text)
        ]
        return Drafted(drafts, group=True)

    async def resolve(self, named: Destination) -> Destination:
        """Resolve to a URL, or to a group that exists. A name that is no group's may be a host. Raises
        `InvalidRequestError`.
        """
        if isinstance(named, GroupName) and not await self._expand(named.text):
            host = named.as_host()
            if host is None:
                raise InvalidRequestError(
                    f"no URL group {named.text!r} with an endpoint; a URL begins with http:// or https://"
                )
            return host
        return named

    async def _expand(self, name: str) -> Expansion:
        if name not in self._expansions:
            self._expansions[name] = await self._topics.expand(name)
        return self._expansions[name]

    def _draft(
        self,
        url: str,
        options: Mapping[str, str],
        asked: Asked,
        *,
        topic: str | None = None,
        endpoint: str | None = None,
    ) -> Draft:
        key = (*options.items(), asked.protocol, asked.caller_ip, asked.queue, topic, endpoint)
        same = self._read.get(key)
        if same is not None:
            return same.sent_to(url, asked.body)
        drafted = draft(
            url,
            options,
            asked.body,
            now_seconds=self._now_seconds,
            protocol=asked.protocol,
            caller_ip=asked.caller_ip,
            queue=asked.queue,
            topic=topic,
            endpoint=endpoint,
        )
        # A deduplication id may depend on the address and the body, so such a draft is not cached.
        if drafted.deduplication_id is None:
            self._read[key] = drafted
        return drafted
