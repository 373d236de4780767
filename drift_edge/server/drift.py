"""Routes of Drift's own: profiles, choices, and what pushed which words."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import islice
from typing import Annotated

from fastapi import APIRouter, Query, Request

from drift_edge.events import CancelToken
from drift_edge.explanation import Explanation
from drift_edge.learner import choice_context
from drift_edge.preferences import PreferencePair
from drift_edge.profile import Change, Profile
from drift_edge.server.errors import RequestError
from drift_edge.server.requests import AnswerName, Judgement, ProfilePatch
from drift_edge.server.service import Service
from drift_edge.server.streams import until_gone
from drift_edge.server.wire import Json, choice_part, lesson_part, moved, profile_part

ProfileName = Annotated[str | None, Query(alias="profile", min_length=1, max_length=64)]
Limit = Annotated[int, Query(ge=1, le=1_000)]


def routes(service: Service) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix="/v1/drift")

    def told(profile: Profile, name: str | None) -> Json:
        return profile_part(profile, name or service.defaults.profile or "")

    @router.get("/profiles")
    async def profiles() -> Json:
        return {"current": service.defaults.profile, "profiles": await asyncio.to_thread(Profile.names)}

    @router.get("/profile")
    async def read(name: ProfileName = None) -> Json:
        return told(await service.profile(name), name)

    @router.patch("/profile")
    async def change(body: ProfilePatch, name: ProfileName = None) -> Json:
        name = body.profile or name
        profile = await service.profile(name)
        await asyncio.to_thread(_apply, profile, body)
        return told(profile, name)

    @router.post("/choices")
    async def learn(request: Request, body: Judgement, name: ProfileName = None) -> Json:
        name = body.profile or name
        profile = await service.profile(name)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        messages = choice_context([message.plain() for message in body.messages])
        pair = PreferencePair(messages, body.chosen, body.rejected, source=body.source, time=now, tie=body.tie)
        try:
            lesson = await until_gone(request, service.learn(pair, profile))
        except RequestError as full:
            if full.code != "queue_full" or not profile.settings.journal:
                raise
            return {"id": pair.id, "known": False, "learned": False, "why": str(full), "before": {}, "after": {}} | {
                "profile": told(profile, name)
            }
        return {**lesson_part(lesson, pair), "profile": told(profile, name)}

    @router.get("/choices")
    async def choices(name: ProfileName = None, limit: Limit = 20) -> Json:
        profile = await service.profile(name)
        found = await asyncio.to_thread(lambda: list(profile.choices()))
        return {"choices": [choice_part(choice) for choice in islice(reversed(found), limit)]}

    @router.delete("/choices/{choice}")
    async def forget(choice: str, name: ProfileName = None) -> Json:
        return await changed(name, lambda profile: profile.forget(choice))

    @router.post("/undo")
    async def undo(name: ProfileName = None) -> Json:
        return await changed(name, Profile.undo)

    async def changed(name: str | None, work: Callable[[Profile], Change]) -> Json:
        profile = await service.profile(name)
        change = await asyncio.to_thread(work, profile)
        return {**moved(change.before, change.after), "profile": told(profile, name)}

    @router.post("/explain")
    async def explain(request: Request, body: AnswerName) -> Json:
        messages, answer = service.recall(body.id, body.index)
        cancel = CancelToken()

        async def work() -> Explanation:
            async with service.turns.turn():
                engine = service.engine
                return await engine.run(engine.drift.explain, messages, answer, cancel, cancel=cancel)

        found = await until_gone(request, work())
        rows = zip(found.texts, found.gains.tolist(), found.pushes.tolist(), found.shares.tolist(), strict=True)
        return {
            "attributes": list(found.attributes),
            "tokens": [
                {"text": text, "gain": gain, "pushes": pushes, "shares": shares} for text, gain, pushes, shares in rows
            ],
        }

    return router


def _apply(profile: Profile, patch: ProfilePatch) -> None:
    for name, value in patch.weights.items():
        profile.set(name, value)
    if patch.pin:
        profile.pin(*patch.pin)
    if patch.unpin:
        profile.unpin(*patch.unpin)
    if patch.block:
        profile.block(*patch.block)
    if patch.allow:
        profile.allow(*patch.allow)
    if patch.settings and patch.settings.model_fields_set:
        profile.configure(**patch.settings.model_dump(exclude_unset=True))
