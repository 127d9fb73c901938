"""Handlers for administrators."""

from __future__ import annotations

from typing import Final, get_args
from uuid import UUID

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from servicekit import context
from services.auth.domain import AccountState
from services.auth.errors import UserNotFound, ValidationFailed
from services.auth.http import present
from services.auth.http.bodies import body, number, path_id, query
from services.auth.http.openapi import LINKS
from services.auth.http.routing import client
from services.auth.service import AuthService
from services.auth.service.admin import DEFAULT_PAGE, MAX_PAGE, NewUser, UserChange

STATES: Final[tuple[AccountState, ...]] = get_args(AccountState)


class Admin:
    """One method a path."""

    def __init__(self, service: AuthService) -> None:
        self._admin = service.admin

    async def invite(self, request: Request) -> Response:
        given = await body(request)
        user = await self._admin.invite(
            context.principal(),
            given.text("email"),
            client(request),
            data=given.mapping("data"),
            redirect_to=query(request, "redirect_to"),
        )
        return JSONResponse(present.user(user))

    async def generate_link(self, request: Request) -> Response:
        given = await body(request)
        kind = given.text("type")
        if kind not in LINKS:
            raise ValidationFailed("type", f"must be one of {', '.join(LINKS)}")
        made = await self._admin.link(
            context.principal(),
            LINKS[kind],
            given.text("email"),
            client(request),
            password=given.text("password"),
            new_email=given.text("new_email"),
            data=given.mapping("data"),
            redirect_to=given.text("redirect_to") or query(request, "redirect_to"),
        )
        return JSONResponse(present.link(made, kind))

    async def users(self, request: Request) -> Response:
        """A page; `email` names one account exactly, `filter` a part of its address, `state` its state."""
        exact = query(request, "email")
        if exact:
            try:
                found, total = [await self._admin.by_email(exact)], 1
            except UserNotFound:
                found, total = [], 0
        else:
            found, total = await self._admin.page(
                number(request, "page"),
                number(request, "per_page"),
                query(request, "filter"),
                _state(request),
            )
        users = {"users": [present.user(user) for user in found], "aud": "authenticated"}
        return JSONResponse(users, headers={"x-total-count": str(total), **_links(request, total)})

    async def create(self, request: Request) -> Response:
        given = await body(request)
        wished = given.text("id")
        try:
            wished_id = UUID(wished) if wished else None
        except ValueError:
            raise ValidationFailed("id", "must be a UUID") from None
        new = NewUser(
            email=given.text("email"),
            password=given.optional_text("password"),
            password_hash=given.optional_text("password_hash"),
            confirmed=given.flag("email_confirm") or False,
            user_metadata=given.mapping("user_metadata"),
            app_metadata=given.mapping("app_metadata"),
            role=given.text("role"),
            id=wished_id,
            ban=given.text("ban_duration"),
        )
        return JSONResponse(present.user(await self._admin.create(context.principal(), new, client(request))))

    async def user(self, request: Request) -> Response:
        return JSONResponse(present.user(await self._admin.by_id(path_id(request, "user_id"))))

    async def modify(self, request: Request) -> Response:
        given = await body(request)
        change = UserChange(
            email=given.optional_text("email"),
            password=given.optional_text("password"),
            password_hash=given.optional_text("password_hash"),
            confirmed=given.flag("email_confirm"),
            user_metadata=given.mapping("user_metadata"),
            app_metadata=given.mapping("app_metadata"),
            role=given.optional_text("role"),
            ban=given.optional_text("ban_duration"),
            is_active=given.flag("is_active"),
            tier=given.optional_text("tier"),
        )
        user_id = path_id(request, "user_id")
        user = await self._admin.modify(context.principal(), user_id, change, client(request))
        return JSONResponse(present.user(user))

    async def remove(self, request: Request) -> Response:
        soft = (await body(request)).flag("should_soft_delete") or False
        if query(request, "should_soft_delete"):  # passed over, it would be a deletion for good
            raise ValidationFailed("should_soft_delete", "give it in the body")
        user_id = path_id(request, "user_id")
        await self._admin.remove(context.principal(), user_id, client(request), soft=soft)
        return JSONResponse({})

    async def factors(self, request: Request) -> Response:
        user = await self._admin.by_id(path_id(request, "user_id"))
        return JSONResponse([present.factor(factor) for factor in user.factors])

    async def remove_factor(self, request: Request) -> Response:
        factor_id = path_id(request, "factor_id")
        await self._admin.remove_factor(
            context.principal(), path_id(request, "user_id"), factor_id, client(request)
        )
        return JSONResponse({"id": str(factor_id)})


def _state(request: Request) -> AccountState | None:
    text = query(request, "state")
    found = next((state for state in STATES if state == text), None)
    if text and found is None:
        raise ValidationFailed("state", f"must be one of {', '.join(STATES)}")
    return found


def _links(request: Request, total: int) -> dict[str, str]:
    """RFC 8288, as clients read it: the next page and the last, relative to this path."""
    page = max(number(request, "page"), 1)
    size = min(number(request, "per_page") or DEFAULT_PAGE, MAX_PAGE)
    last = max(-(-total // size), 1)
    parts = [f'<{request.url.path}?page={last}&per_page={size}>; rel="last"']
    if page < last:
        parts.insert(0, f'<{request.url.path}?page={page + 1}&per_page={size}>; rel="next"')
    return {"link": ", ".join(parts)}
