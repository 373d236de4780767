"""Routes that answer: OpenAI's `/v1/chat/completions` and `/v1/models`, and Drift's two candidates."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from drift_edge.events import Event
from drift_edge.server.errors import RequestError
from drift_edge.server.requests import Completion, Question
from drift_edge.server.service import Call, Candidate, Service
from drift_edge.server.streams import EventStream, ahead, until_gone
from drift_edge.server.wire import Gathered, Json, Reply, usage


def routes(service: Service, started: int) -> APIRouter:
    """The routes.

    Args:
        service: answers.
        started: when the server was, in seconds since 1970.
    """
    router = APIRouter()

    def model() -> Json:
        return {"id": service.model, "object": "model", "created": started, "owned_by": "drift-edge"}

    @router.get("/v1/models")
    async def models() -> Json:
        return {"object": "list", "data": [model()]}

    @router.get("/v1/models/{name:path}")
    async def one_model(name: str) -> Json:
        if name != service.model:
            raise RequestError(404, f"there is no model {name!r:.80}", "model_not_found", param="model")
        return model()

    @router.post("/v1/chat/completions")
    async def complete(request: Request, body: Completion) -> Response:
        call = await service.call(body, logprobs=body.top_logprobs or 0 if body.logprobs else None)
        events, reply = service.events(call), Reply(service.model)
        if not body.stream:
            return JSONResponse(await until_gone(request, _complete(service, reply, call, events)))
        return await _streamed(request, _stream(service, reply, call, body, ahead(events)))

    @router.post("/v1/drift/candidates")
    async def candidates(request: Request, body: Question) -> Response:
        call = await service.call(body)
        two, reply = service.candidates(call), Reply(service.model)
        if not body.stream:
            return JSONResponse(await until_gone(request, _two(service, reply, call, two)))
        return await _streamed(request, _stream_two(service, reply, call, body, ahead(two)))

    return router


async def _streamed(request: Request, values: AsyncGenerator[object, None]) -> EventStream:
    """A stream whose first value is there: what goes wrong before is told by the status."""
    try:
        first = await until_gone(request, anext(values))
    except BaseException:
        await values.aclose()
        raise
    return EventStream(first, values)


async def _complete(service: Service, reply: Reply, call: Call, events: AsyncGenerator[Event, None]) -> Json:
    gathered = Gathered(logprobs=call.logprobs is not None)
    async with aclosing(events):
        async for event in events:
            gathered.take(event)
    service.remember(reply.id, call.messages, [gathered.answer])
    return reply.whole([gathered.choice()], usage([gathered.answer]), drift=gathered.drift(call.profile))


async def _stream(
    service: Service, reply: Reply, call: Call, body: Completion, events: AsyncGenerator[Event, None]
) -> AsyncGenerator[object, None]:
    gathered = Gathered(logprobs=call.logprobs is not None)
    begun = False
    async with aclosing(events):
        async for event in events:
            choice = gathered.take(event)
            if not begun:
                begun = True
                yield reply.chunk([gathered.delta({"role": "assistant", "content": ""})])
            if choice:
                yield reply.chunk([choice])
    service.remember(reply.id, call.messages, [gathered.answer])
    yield reply.chunk([gathered.end()], drift=gathered.drift(call.profile))
    if _usage_wanted(body):
        yield reply.chunk([], usage=usage([gathered.answer]))


async def _two(service: Service, reply: Reply, call: Call, two: AsyncGenerator[Candidate, None]) -> Json:
    gathered, own = [Gathered(0), Gathered(1)], [False, False]
    async with aclosing(two):
        async for made in two:
            own[made.index] = made.own
            if made.event is None:
                gathered[made.index] = Gathered(made.index)
            else:
                gathered[made.index].take(made.event)
    answers = [each.answer for each in gathered]
    service.remember(reply.id, call.messages, answers)
    choices = [
        {**each.choice(), "drift": each.drift(call.profile, own=is_own)}
        for each, is_own in zip(gathered, own, strict=True)
    ]
    return reply.whole(choices, usage(answers), same=_same(gathered))


async def _stream_two(
    service: Service, reply: Reply, call: Call, body: Question, two: AsyncGenerator[Candidate, None]
) -> AsyncGenerator[object, None]:
    gathered: list[Gathered] = []
    owns: list[bool] = []
    async with aclosing(two):
        async for made in two:
            if made.index == len(gathered):
                if gathered:
                    yield _end(reply, call, gathered[-1], owns[-1])
                gathered.append(Gathered(made.index))
                owns.append(made.own)
                yield reply.chunk([gathered[-1].delta({"role": "assistant", "content": ""})])
            if made.event is None:
                gathered[-1] = Gathered(made.index)
                yield reply.chunk([{**gathered[-1].delta({}), "restart": True}])
            elif choice := gathered[-1].take(made.event):
                yield reply.chunk([choice])
    yield _end(reply, call, gathered[-1], owns[-1])
    answers = [each.answer for each in gathered]
    service.remember(reply.id, call.messages, answers)
    more = {"usage": usage(answers)} if _usage_wanted(body) else {}
    yield reply.chunk([], same=_same(gathered), **more)


def _end(reply: Reply, call: Call, gathered: Gathered, own: bool) -> Json:
    return reply.chunk([{**gathered.end(), "drift": gathered.drift(call.profile, own=own)}])


def _same(gathered: list[Gathered]) -> bool:
    return gathered[0].answer.text.strip() == gathered[1].answer.text.strip()


def _usage_wanted(body: Question) -> bool:
    return body.stream_options is not None and body.stream_options.include_usage
