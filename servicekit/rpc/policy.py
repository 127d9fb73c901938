"""The access policy of a method, read from its contract and applied to a principal.

A `Guard` is all that the contract asks of the caller of one method: kind of credential, scopes, assurance,
and how fresh the sign-in must be, as the method or the used fields of its request say. All services and both
faces enforce it here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final, NamedTuple

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor

from servicekit.errors import PermissionDenied
from servicekit.principal import Principal, require_assurance, require_fresh, require_scopes
from signgate.common.v1 import policy_pb2 as pb

OPEN: Final = frozenset({pb.ACCESS_PUBLIC, pb.ACCESS_INTERNAL})
"""Kinds of access that check no caller's credential; internal ones check a service's (`rpc.callers`)."""
USERS: Final = frozenset({pb.ACCESS_CALLER, pb.ACCESS_USER})
"""Kinds of access that take a user's access token: their methods say how much of the sign-in they ask for."""


class PolicyMissingError(Exception):
    """A method has no access policy, or an incomplete one: the server must not start."""


def policies(service: str) -> dict[str, pb.Policy]:
    """The policy of each method of a service, by method name. Raises as `guards` does."""
    return {name: guard.policy for name, guard in guards(service).items()}


def guards(service: str) -> dict[str, Guard]:
    """The guard of each method of a service, by method name, from its descriptor.

    Raises `PolicyMissingError` when one has no policy, when an internal one names no callers, or another one
    some, when one that takes users' tokens does not say the assurance, or another one does, and when `proofs`
    or `fresh` make no sense: forgetting a policy must never open a method.
    """
    methods = descriptor_pool.Default().FindServiceByName(service).methods
    return {method.name: Guard(method) for method in methods}


class Guard:
    """What one method asks of its caller. `reads_request`: whether that depends on the request."""

    def __init__(self, method: MethodDescriptor) -> None:
        self.name = method.full_name
        self.policy = policy = method.GetOptions().Extensions[pb.policy]
        self._fields = tuple(_fresh_fields(method.input_type, (), ()))
        self._proofs = tuple(policy.proofs)
        self.reads_request = bool(self._fields or self._proofs)
        if problem := self._problem(method):
            raise PolicyMissingError(f"{method.full_name}{problem}")

    def enforce(self, principal: Principal, request: Any, now: float) -> None:
        """Raise unless this principal may make this request, at `now` in epoch seconds.

        `request` is the method's message, or a JSON object with the contract's field names; `None` where
        `reads_request` is false. Raises what `enforce` does, and `ReauthenticationNeeded`.
        """
        enforce(self.policy, principal)
        ages = [self.policy.max_age] if self.policy.max_age else []
        if self.reads_request:
            if request is None:
                raise TypeError(f"{self.name} needs its request")
            if any(_member(request, name) for name in self._proofs):
                return  # the method checks the value
            ages += [field.age for field in self._fields if field.used(request)]
        if ages:
            require_fresh(principal, min(ages), now)

    def _problem(self, method: MethodDescriptor) -> str:
        policy = self.policy
        if policy.access == pb.ACCESS_UNSPECIFIED:
            return " has no (signgate.common.v1.policy)"
        named = [caller for caller in policy.callers if caller != pb.SERVICE_UNSPECIFIED]
        if bool(named) != (policy.access == pb.ACCESS_INTERNAL):
            return ": an internal method must list callers, and no other method may"
        asks = self._fields or self._proofs or policy.max_age
        if policy.access not in USERS:
            return (
                ": only methods for users ask for assurance or freshness" if policy.assurance or asks else ""
            )
        if policy.assurance == pb.ASSURANCE_UNSPECIFIED:
            return ": the policy must say `assurance`"
        for name in self._proofs:
            proof = method.input_type.fields_by_name.get(name)
            if proof is None or proof.is_repeated or proof.type != FieldDescriptor.TYPE_STRING:
                return f": the proof `{name}` is not a string field of its request"
        if self._proofs and not (policy.max_age or self._fields):
            return ": `proofs` stand in for a `max_age`, and nothing has one"
        if self._fields and method.client_streaming:
            return ": fields of a streamed request cannot ask for freshness"
        return ""


class _Field(NamedTuple):
    """A field that asks for a fresh sign-in: where it is in the request, and its option."""

    path: tuple[str, ...]
    age: int
    values: frozenset[str]

    def used(self, request: Any) -> bool:
        """Whether a request has the field, with one of the values if the option names some."""
        found = list(_at(request, self.path))
        return bool(self.values.intersection(map(str, found)) if self.values else found)


def _fresh_fields(message: Descriptor, path: tuple[str, ...], above: tuple[str, ...]) -> Iterator[_Field]:
    """Those of a message and of the messages in it."""
    if message.full_name in above:
        raise PolicyMissingError(f"{message.full_name} holds itself: no path leads to all of its fields")
    for field in message.fields:
        here = (*path, field.name)
        if field.GetOptions().HasExtension(pb.fresh):
            fresh = fresh_of(field)
            yield _Field(here, fresh.max_age, frozenset(fresh.values))
        if field.message_type is not None and not field.message_type.full_name.startswith("google."):
            yield from _fresh_fields(field.message_type, here, (*above, message.full_name))


def fresh_of(field: FieldDescriptor) -> pb.Fresh:
    """The freshness that a field asks for. Raises `PolicyMissingError` for an option that cannot work."""
    fresh = field.GetOptions().Extensions[pb.fresh]
    if not fresh.max_age:
        raise PolicyMissingError(f"{field.full_name}: (signgate.common.v1.fresh) needs a `max_age`")
    if fresh.values and field.type != FieldDescriptor.TYPE_STRING:
        raise PolicyMissingError(f"{field.full_name}: only strings can ask for freshness by value")
    return fresh


def _at(holder: Any, path: tuple[str, ...]) -> Iterator[Any]:
    """The values at a path: of each item where something on it is a list."""
    found = _member(holder, path[0])
    if found is None:
        return
    items = found if _is_list(found) else (found,)
    for item in items:
        if len(path) == 1:
            yield item
        else:
            yield from _at(item, path[1:])


def _member(holder: Any, name: str) -> Any:
    """A field of a message, or a member of a JSON object; `None` where there is none."""
    if isinstance(holder, Mapping):
        return holder.get(name)
    field = getattr(holder, "DESCRIPTOR", None) and holder.DESCRIPTOR.fields_by_name.get(name)
    if field is None:
        return None  # JSON of another form than the contract's: its reader refuses it
    if field.has_presence and not holder.HasField(name):
        return None
    # Without presence, a field with its default value is an absent one.
    return getattr(holder, name) if field.has_presence else getattr(holder, name) or None


def _is_list(value: Any) -> bool:
    return not isinstance(value, (str, bytes, Mapping)) and hasattr(value, "__len__")


def require_fresh_for(
    field: FieldDescriptor, values: Collection[str], principal: Principal, now: float
) -> None:
    """As if a request had these values in that field: for values that a method finds out by itself.

    Raises `ReauthenticationNeeded`.
    """
    fresh = fresh_of(field)
    if not fresh.values or not set(fresh.values).isdisjoint(values):
        require_fresh(principal, fresh.max_age, now)


def enforce(policy: pb.Policy, principal: Principal) -> None:
    """Raise unless an authenticated principal may call a method of this policy, whatever it asks.

    `PermissionDenied`: `ACCESS_TOKEN_REQUIRED`, `API_KEY_REQUIRED`, `SERVICE_ROLE_REQUIRED`, `USER_REQUIRED`
    (a service-role token acts on no user's own things), `SCOPE_MISSING`. `InsufficientAal`.

    An account with the service role has sessions, which an operator's token has not. It ends them, and proves
    its second factor, as a user does, and with a second factor on it may nothing before that.
    """
    access = policy.access
    if access in OPEN:
        return
    if access == pb.ACCESS_SERVICE_ROLE:
        if not principal.is_service_role:
            raise PermissionDenied("Administrators only.", reason="SERVICE_ROLE_REQUIRED")
        if principal.session_id is not None:
            require_assurance(principal)
    elif principal.is_service_role and not _of_the_session(policy, principal):
        raise PermissionDenied("This acts on a user's own things; sign in.", reason="USER_REQUIRED")
    elif access == pb.ACCESS_USER and principal.is_api_key:
        raise PermissionDenied("This needs a login, not an API key.", reason="ACCESS_TOKEN_REQUIRED")
    elif access == pb.ACCESS_API_KEY and not principal.is_api_key:
        raise PermissionDenied("This needs an API key, not a login.", reason="API_KEY_REQUIRED")
    require_scopes(principal, policy.scopes)
    # Whatever is not said to be for any assurance needs the whole of it.
    if access in USERS and policy.assurance != pb.ASSURANCE_ANY:
        require_assurance(principal)


def _of_the_session(policy: pb.Policy, principal: Principal) -> bool:
    """Whether a method only ends the caller's session, reads its state, or proves more for it."""
    logins_own = policy.access == pb.ACCESS_USER and policy.assurance == pb.ASSURANCE_ANY
    return logins_own and principal.session_id is not None
