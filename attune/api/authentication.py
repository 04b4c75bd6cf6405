"""Who calls: somebody with a token, somebody on this machine through the socket file, or nobody in particular."""

from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from attune.access.identities import Identities
from attune.access.model import Caller, How
from attune.api.endpoints import SAFE_METHODS, Access, Answer, Endpoint, Permission, Socket
from attune.base.errors import Forbidden, Unauthenticated

LOCAL_SCOPE = "attune.local"
"""Set in the ASGI scope of requests that came through the socket file."""

TOKEN_PROTOCOL = "attune.jwt."  # noqa: S105 - what stands in front of one
"""What stands in front of a token among the subprotocols of a WebSocket."""

_PROXY_HEADERS = ("forwarded", "via")
_ANONYMOUS = Caller(How.ANONYMOUS, None)
_LOCAL = Caller(How.LOCAL, None)


class Gate:
    """Lets callers through to a route, or says why not. Whatever is not allowed is forbidden."""

    def __init__(self, identities: Identities, *, anonymous_read: bool, public_url: str = "") -> None:
        self._identities = identities
        self._anonymous_read = anonymous_read
        self._public_url = public_url

    async def caller(self, request: HTTPConnection, endpoint: Endpoint | Socket) -> Caller:
        """Who calls. Raises Unauthenticated or Forbidden."""
        if _lets_pages_in(request, endpoint):
            self._refuse_foreign_pages(request)
        if request.scope.get(LOCAL_SCOPE):
            return _LOCAL
        if endpoint.access is Access.PUBLIC:
            return _ANONYMOUS
        token = _bearer(request)
        if token is None:
            return self._without_token(request, endpoint)
        identity = await self._identities.authenticate(token)
        caller = Caller(How.TOKEN, identity)
        if isinstance(endpoint.access, Permission) and not self.allows(caller, endpoint.access):
            raise Forbidden(f"Insufficient permissions: {endpoint.access.resource}:{endpoint.access.action}")
        return caller

    def allows(self, caller: Caller, permission: Permission) -> bool:
        """Whether somebody who was let through has a permission."""
        match caller.how:
            case How.LOCAL:
                return True
            case How.ANONYMOUS:
                return permission.anonymous
            case How.TOKEN:
                return caller.identity is not None and caller.identity.administrator

    def _refuse_foreign_pages(self, request: HTTPConnection) -> None:
        """A page of another site may not make a browser change something here."""
        if request.headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
            raise Forbidden("A page of another site may not do this.")
        origin = request.headers.get("origin")
        # A proxy may put its own name for us into Host.
        if origin is None or (origin == self._public_url != ""):
            return
        _, _, authority = origin.partition("://")
        if not authority or authority != request.headers.get("host"):
            raise Forbidden(f"A page of {origin} may not do this.")

    def _without_token(self, request: HTTPConnection, endpoint: Endpoint | Socket) -> Caller:
        allowed = self._anonymous_read and isinstance(endpoint.access, Permission) and endpoint.access.anonymous
        if not allowed:
            raise Unauthenticated("Send a token: Authorization: Bearer …; POST /auth/login gives one.")
        if any(name in _PROXY_HEADERS or name.startswith("x-forwarded") for name in request.headers):
            raise Unauthenticated(
                "Anonymous reading is for callers on this machine, and this request came through a proxy."
            )
        if not _names_this_machine(request.headers.get("host", "")):
            raise Unauthenticated(
                "Anonymous reading is for callers on this machine, and the Host header names another."
            )
        return _ANONYMOUS


def _lets_pages_in(request: HTTPConnection, endpoint: Endpoint | Socket) -> bool:
    """Whether a page of another site would get something out of it: changes, or what is told as long as it is open."""
    if isinstance(endpoint, Socket) or endpoint.answer is Answer.STREAM:
        return True
    return request.scope["method"] not in SAFE_METHODS


def _bearer(request: HTTPConnection) -> str | None:
    header = request.headers.get("authorization")
    if header is None:
        # A browser can add no header to a WebSocket.
        offered = request.scope.get("subprotocols", ())
        return next((one.removeprefix(TOKEN_PROTOCOL) for one in offered if one.startswith(TOKEN_PROTOCOL)), None)
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Unauthenticated("The Authorization header must be: Bearer, a space, and a token.")
    return token.strip()


def _names_this_machine(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False
