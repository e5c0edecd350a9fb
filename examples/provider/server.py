"""The stand-in over HTTP, on one event loop, for ten thousand held calls."""

from __future__ import annotations

import asyncio
import base64
import random
import re
import time
import uuid
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote

import orjson
from aiohttp import web

from examples.provider.instruction import BadInstructionError, Instruction, Latency, call_id, instruction
from examples.provider.picture import draw

CALLS_MAX = 100_000
_SIZE = re.compile(r"(\d{2,4})x(\d{2,4})")


@dataclass
class Count:
    """What happened to the calls of one id."""

    received: int = 0
    answered: int = 0
    cut: int = 0
    started_at: list[float] = field(default_factory=list)


class Provider:
    def __init__(self, latency: Latency, *, failure_rate: float, seed: int, public_url: str) -> None:
        self._latency = latency
        self._failure_rate = failure_rate
        self._chance = random.Random(seed)
        self._public_url = public_url
        self._counts: OrderedDict[str, Count] = OrderedDict()

    def application(self) -> web.Application:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/v1/images/generations", self._images)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/responses", self._responses)
        app.router.add_get("/images/{number}/{size}/{prompt}", self._picture)
        app.router.add_get("/calls", self._calls)
        app.router.add_get("/calls/{id}", self._call)
        app.router.add_delete("/calls", self._forget)
        app.router.add_get("/healthz", self._health)
        return app

    async def _images(self, request: web.Request) -> web.StreamResponse:
        content, told = await self._begin(request)
        if isinstance(told, web.StreamResponse):
            return told
        prompt = content.get("prompt")
        if not isinstance(prompt, str) or not prompt:
            return self._done(told, _error(400, "you must provide a prompt", "missing_required_parameter"))
        count = content.get("n") or 1
        if not isinstance(count, int):
            return self._done(told, _error(400, "n must be a whole number", "invalid_type"))
        size = _SIZE.fullmatch(str(content.get("size", "1024x1024")))
        width, height = (min(2048, int(size[1])), min(2048, int(size[2]))) if size else (1024, 1024)
        encoded = content.get("response_format") == "b64_json" or "gpt-image" in str(content.get("model", ""))
        images: list[dict[str, str]] = []
        for number in range(max(1, min(10, count))):
            if encoded:
                drawn = await asyncio.to_thread(draw, prompt, number, (width, height))
                images.append({"b64_json": base64.b64encode(drawn + b"\0" * told.extra_bytes).decode()})
            else:
                address = f"{self._public_url}/images/{number}/{width}x{height}/{quote(prompt[:500], safe='')}.png"
                images.append({"url": address, "revised_prompt": prompt})
        return self._done(told, _json({"created": int(time.time()), "data": images}))

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        content, told = await self._begin(request)
        if isinstance(told, web.StreamResponse):
            return told
        messages = content.get("messages")
        if not isinstance(messages, list) or not messages or not isinstance(messages[-1], dict):
            return self._done(told, _error(400, "messages is missing", "missing_required_parameter"))
        asked = str(messages[-1].get("content", ""))
        text = f"You said: {asked}" + "." * told.extra_bytes
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        usage = {"prompt_tokens": len(asked) // 4 + 1, "completion_tokens": len(asked) // 4 + 3}
        answer = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": content.get("model", "stand-in"),
            "choices": [choice],
            "usage": usage | {"total_tokens": sum(usage.values())},
        }
        return self._done(told, _json(answer))

    async def _responses(self, request: web.Request) -> web.StreamResponse:
        content, told = await self._begin(request)
        if isinstance(told, web.StreamResponse):
            return told
        part = {"type": "output_text", "text": f"You said: {content.get('input', '')}", "annotations": []}
        answer = {
            "id": f"resp_{uuid.uuid4().hex}",
            "object": "response",
            "created_at": int(time.time()),
            "status": "completed",
            "model": content.get("model", "stand-in"),
            "output": [{"type": "message", "role": "assistant", "content": [part]}],
        }
        return self._done(told, _json(answer))

    async def _begin(self, request: web.Request) -> tuple[dict[str, Any], Instruction | web.StreamResponse]:
        """Count, wait, and fail where that was asked for; a response instead of an instruction is the answer."""
        if not request.headers.get("Authorization", "").startswith("Bearer "):
            return {}, _error(401, "You didn't provide an API key.", "invalid_api_key")
        try:
            content = orjson.loads(await request.read())
        except orjson.JSONDecodeError:
            return {}, _error(400, "We could not parse the JSON body of your request.", "invalid_json")
        if not isinstance(content, dict):
            return {}, _error(400, "The body must be an object.", "invalid_json")
        name = call_id(content, request.headers.get("X-Request-Id") or uuid.uuid4().hex)
        count = self._count(name)
        fails = self._chance.random() < self._failure_rate
        try:
            told = instruction(
                content,
                default_id=name,
                calls_before=count.received,
                drawn_seconds=self._latency.draw(self._chance),
                drawn_fault=self._chance.choice(["429", "500", "503"]) if fails else None,
            )
        except BadInstructionError as error:
            return content, _error(400, str(error), "invalid_instruction")
        count.received += 1
        count.started_at.append(time.time())
        try:
            await asyncio.sleep(3600 if told.fault == "hang" else told.latency_seconds)
        except asyncio.CancelledError:
            count.cut += 1
            raise
        if told.fault is None:
            return content, told
        if told.fault == "cut":
            count.cut += 1
            if request.transport is not None:
                request.transport.abort()
            return content, web.Response()
        return content, self._done(told, _faulty(told.fault))

    def _done(self, told: Instruction, response: web.Response) -> web.Response:
        self._count(told.call_id).answered += 1
        return response

    def _count(self, name: str) -> Count:
        count = self._counts.setdefault(name, Count())
        while len(self._counts) > CALLS_MAX:
            self._counts.popitem(last=False)
        return count

    async def _picture(self, request: web.Request) -> web.Response:
        size = _SIZE.fullmatch(request.match_info["size"])
        if size is None or not request.match_info["number"].isdigit():
            return _error(404, "no such image", "not_found")
        prompt = unquote(request.match_info["prompt"]).removesuffix(".png")
        pixels = min(2048, int(size[1])), min(2048, int(size[2]))
        drawn = await asyncio.to_thread(draw, prompt, int(request.match_info["number"]), pixels)
        return web.Response(body=drawn, content_type="image/png")

    async def _calls(self, _request: web.Request) -> web.Response:
        total = {name: sum(getattr(c, name) for c in self._counts.values()) for name in ("received", "answered", "cut")}
        return _json(total | {"ids": len(self._counts)})

    async def _call(self, request: web.Request) -> web.Response:
        return _json(vars(self._counts.get(request.match_info["id"], Count())))

    async def _forget(self, _request: web.Request) -> web.Response:
        self._counts.clear()
        return web.Response(status=204)

    async def _health(self, _request: web.Request) -> web.Response:
        return _json({"status": "ok"})


def _faulty(fault: str) -> web.Response:
    match fault:
        case "429":
            return _error(429, "Rate limit reached.", "rate_limit_exceeded", {"Retry-After": "1"})
        case "429-reset":
            return _error(429, "Rate limit reached.", "rate_limit_exceeded", {"x-ratelimit-reset-requests": "800ms"})
        case "200-error":
            return _error(200, "The model is overloaded.", "overloaded")
        case "quota":
            return _error(429, "You exceeded your current quota.", "insufficient_quota")
        case "400":
            return _error(400, "Your request was rejected by the safety system.", "content_policy_violation")
        case "401":
            return _error(401, "Incorrect API key provided.", "invalid_api_key")
        case "html":
            return web.Response(status=502, text="<html><h1>502 Bad Gateway</h1></html>", content_type="text/html")
        case _:
            return _error(int(fault), "The server had an error.", "server_error")


def _json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(status=status, headers=headers, body=orjson.dumps(content), content_type="application/json")


def _error(status: int, message: str, code: str, headers: dict[str, str] | None = None) -> web.Response:
    kind = "insufficient_quota" if code == "insufficient_quota" else "invalid_request_error"
    return _json({"error": {"message": message, "type": kind, "param": None, "code": code}}, status, headers)
