"""Identities, their passwords, and signing in."""

import anyio
import anyio.to_thread
import argon2

from attune.access import queries
from attune.access.model import Identity
from attune.access.tokens import TokenPair, Tokens
from attune.base.errors import BadInput, Conflict, Forbidden, NotFound, Problem, Unauthenticated
from attune.bus.bus import Bus

ADMINISTRATOR = "admin"

_MIN_PASSWORD = 8
_MAX_PASSWORD = 128
_AT_ONCE = 2
"""Hashing takes 19 MiB and a core for some 20 ms: people who sign in wait for each other, not the pipeline for them."""


class Identities:
    """Makes identities and lets them in."""

    def __init__(self, bus: Bus, tokens: Tokens) -> None:
        self._bus = bus
        self._tokens = tokens
        # OWASP's choice for Argon2id: 19 MiB, two passes, one lane.
        self._hasher = argon2.PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
        self._limiter = anyio.CapacityLimiter(_AT_ONCE)
        # What a login that does not exist is checked against, so that its answer takes as long.
        self._nobody: str | None = None

    async def ensure_administrator(self) -> None:
        """Make the first identity. It has no password until somebody gives it one."""
        async with self._bus.transaction() as transaction:
            await queries.insert_identity(
                transaction.connection, ADMINISTRATOR, "Administrator", administrator=True, now=transaction.now
            )

    async def create(self, login: str, display_name: str | None, *, administrator: bool) -> Identity:
        """A new identity without a password. Raises Conflict when the login is taken."""
        async with self._bus.transaction() as transaction:
            identity = await queries.insert_identity(
                transaction.connection, login, display_name, administrator=administrator, now=transaction.now
            )
        if identity is None:
            raise Conflict(f"There is an identity {login} already.")
        return identity

    async def set_password(self, login: str, password: str) -> Identity:
        """Give an identity another password. All its tokens end at once."""
        if not _MIN_PASSWORD <= len(password) <= _MAX_PASSWORD:
            raise BadInput(
                "The password is not good.",
                [Problem("/password", f"must have {_MIN_PASSWORD} to {_MAX_PASSWORD} characters")],
            )
        password_hash = await anyio.to_thread.run_sync(self._hasher.hash, password, limiter=self._limiter)
        async with self._bus.transaction() as transaction:
            identity = await queries.set_password(transaction.connection, login, password_hash, transaction.now)
        if identity is None:
            raise NotFound(f"There is no identity {login}.")
        return identity

    async def sign_in(self, login: str, password: str) -> tuple[Identity, TokenPair]:
        """The identity and its tokens. Raises Unauthenticated, or Forbidden when the identity is frozen."""
        found = await queries.identity_with_hash(self._bus.database, login)
        password_hash = found[1] if found else None
        right = await anyio.to_thread.run_sync(self._verify, password_hash, password, limiter=self._limiter)
        if found is None or not right:
            raise Unauthenticated("Login or password is wrong.")
        return found[0], self._issue(found[0])

    async def refresh(self, token: str) -> TokenPair:
        """New tokens for a refresh token. Raises Unauthenticated, or Forbidden when the identity is frozen."""
        return self._issue(await self._identity_of(token, "refresh"))

    async def authenticate(self, token: str) -> Identity:
        """The identity of an access token. Raises Unauthenticated, or Forbidden when it is frozen."""
        identity = await self._identity_of(token, "access")
        if identity.frozen:
            raise Forbidden(f"The identity {identity.login} is frozen.")
        return identity

    async def _identity_of(self, token: str, kind: str) -> Identity:
        claims = self._tokens.read(token, kind)
        identity = await queries.identity(self._bus.database, claims.identity)
        if identity is None or identity.token_epoch != claims.epoch:
            raise Unauthenticated("The token was revoked.")
        return identity

    def _issue(self, identity: Identity) -> TokenPair:
        if identity.frozen:
            raise Forbidden(f"The identity {identity.login} is frozen.")
        return self._tokens.issue(identity)

    def _verify(self, password_hash: str | None, password: str) -> bool:
        if self._nobody is None:
            self._nobody = self._hasher.hash("nobody has this password")
        try:
            self._hasher.verify(password_hash or self._nobody, password)
        except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
            return False
        return password_hash is not None
