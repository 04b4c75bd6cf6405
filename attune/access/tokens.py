"""Tokens: JSON Web Tokens (RFC 7519), signed with HMAC-SHA-256 by a key that never leaves the data directory."""

import os
import secrets
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import jwt

from attune.access.model import Identity
from attune.base.clock import Clock
from attune.base.errors import StartError, Unauthenticated

_ALGORITHM = "HS256"
_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class TokenPair:
    """`expires_in` are the seconds that the access token lives."""

    access: str
    refresh: str
    expires_in: int


@dataclass(frozen=True, slots=True)
class Claims:
    identity: int
    epoch: int


class Tokens:
    """Issues and reads tokens. Lifetimes are in seconds."""

    def __init__(self, key: bytes, clock: Clock, *, access_lifetime: int, refresh_lifetime: int) -> None:
        self._key = key
        self._clock = clock
        self._lifetimes = {"access": access_lifetime, "refresh": refresh_lifetime}

    def issue(self, identity: Identity) -> TokenPair:
        """A new access token and the refresh token for the one after it."""
        return TokenPair(self._sign(identity, "access"), self._sign(identity, "refresh"), self._lifetimes["access"])

    def read(self, token: str, kind: str) -> Claims:
        """What a token of that kind says. Raises Unauthenticated saying whether it is wrong or has expired."""
        try:
            claims = jwt.decode(
                token,
                self._key,
                algorithms=[_ALGORITHM],
                # Our clock says whether it has expired; a wall clock that was set back does not make it wrong.
                options={
                    "require": ["sub", "exp", "token_type", "epoch"],
                    "verify_exp": False,
                    "verify_iat": False,
                    "verify_nbf": False,
                },
            )
            identity, epoch, expires = int(claims["sub"]), int(claims["epoch"]), float(claims["exp"])
        except (jwt.InvalidTokenError, ValueError, TypeError) as error:
            raise Unauthenticated("The token is not valid.") from error
        if claims["token_type"] != kind:
            raise Unauthenticated(f"This takes an {kind} token." if kind == "access" else f"This takes a {kind} token.")
        if expires <= self._clock.now().timestamp():
            raise Unauthenticated("The token has expired.")
        return Claims(identity, epoch)

    def _sign(self, identity: Identity, kind: str) -> str:
        now = self._clock.now()
        return jwt.encode(
            {
                "sub": str(identity.id),
                "login": identity.login,
                "token_type": kind,
                "epoch": identity.token_epoch,
                "iat": int(now.timestamp()),
                "exp": int((now + timedelta(seconds=self._lifetimes[kind])).timestamp()),
                "jti": secrets.token_hex(8),
            },
            self._key,
            algorithm=_ALGORITHM,
        )


def signing_key(path: Path) -> bytes:
    """The key in the file `path`, made on first use and readable by its owner only."""
    try:
        return _read(path)
    except FileNotFoundError:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = path.with_suffix(".new")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
        return _read(path)


def _read(path: Path) -> bytes:
    key = path.read_bytes()
    if len(key) != _KEY_BYTES:
        raise StartError(f"{path} is no signing key: it has {len(key)} bytes instead of {_KEY_BYTES}. Remove it.")
    return key
