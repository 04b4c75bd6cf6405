"""Signing in: who gets tokens, for how long, and how they end."""

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import httpx2
import jwt
import pytest

from attune.access.tokens import signing_key
from attune.base.errors import StartError
from attune.database.embedded import Cluster
from tests.api.sites import PASSWORD, Site, bearer, new_database, new_folder, site_on
from tests.support.clock import VirtualClock

ACCESS, REFRESH = 600, 6000

clock = VirtualClock()


@pytest.fixture(scope="module")
async def site(cluster: Cluster, base: Path) -> AsyncIterator[Site]:
    """A server whose time tests turn, with an administrator who can sign in."""
    lifetimes = {"auth": {"access_token_lifetime": ACCESS, "refresh_token_lifetime": REFRESH}}
    async with new_database(cluster) as dsn, site_on(dsn, new_folder(base), lifetimes, clock) as made:
        await made.identity("admin")
        yield made


async def test_nobody_can_sign_in_before_they_have_a_password(site: Site) -> None:
    await site.data("POST", "/api/v1/identities", json={"login": "new", "administrator": True})

    for login in ("new", "nobody"):
        for password in ("", "new", "admin", "correct horse battery"):
            answer = await site.remote.post("/auth/login", json={"login": login, "password": password or " "})
            assert answer.status_code == 401


async def test_who_does_not_exist_and_who_is_wrong_cannot_be_told_apart(site: Site) -> None:
    wrong, nobody, without = [
        await site.remote.post("/auth/login", json={"login": login, "password": "wrong"})
        for login in ("admin", "nobody", "adm\u0131n")
    ]

    assert wrong.status_code == nobody.status_code == without.status_code == 401
    assert wrong.json()["detail"] == nobody.json()["detail"] == without.json()["detail"]


async def test_a_login_gives_tokens_and_says_for_how_long(site: Site) -> None:
    tokens = await site.tokens("admin")

    assert tokens["token_type"] == "Bearer"
    assert tokens["expires_in"] == ACCESS
    assert tokens["user"]["login"] == "admin"
    assert await _me(site, tokens["access_token"]) == 200


async def test_an_access_token_is_good_until_it_expires(site: Site) -> None:
    tokens = await site.tokens("admin")

    clock.advance(ACCESS - 1)
    assert await _me(site, tokens["access_token"]) == 200
    clock.advance(1)
    answer = await site.remote.get("/auth/me", headers=bearer(tokens["access_token"]))
    assert answer.status_code == 401
    assert answer.json()["detail"] == "The token has expired."
    assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_a_refresh_token_outlives_its_access_token_and_gives_new_ones(site: Site) -> None:
    tokens = await site.tokens("admin")

    clock.advance(REFRESH - 1)
    renewed = await _refresh(site, tokens["refresh_token"])
    assert renewed.status_code == 200
    assert renewed.json()["data"].keys() == {"access_token", "refresh_token", "token_type", "expires_in"}
    assert await _me(site, renewed.json()["data"]["access_token"]) == 200
    clock.advance(1)
    assert (await _refresh(site, tokens["refresh_token"])).status_code == 401
    assert (await _refresh(site, renewed.json()["data"]["refresh_token"])).status_code == 200


async def test_each_kind_of_token_is_good_for_its_own_purpose_only(site: Site) -> None:
    """T-98: rights were checked for access tokens alone, and every other kind was let through."""
    tokens = await site.tokens("admin")

    assert await _me(site, tokens["refresh_token"]) == 401
    assert (await _refresh(site, tokens["access_token"])).status_code == 401


async def test_a_new_password_ends_all_tokens_at_once(site: Site) -> None:
    await site.identity("eve")
    tokens = await site.tokens("eve")
    assert await _me(site, tokens["access_token"]) == 200

    await site.data("PUT", "/api/v1/identities/eve/password", json={"password": "another password"})

    refused = await site.remote.get("/auth/me", headers=bearer(tokens["access_token"]))
    assert refused.status_code == 401
    assert refused.json()["detail"] == "The token was revoked."
    assert (await _refresh(site, tokens["refresh_token"])).status_code == 401
    assert (await site.remote.post("/auth/login", json={"login": "eve", "password": PASSWORD})).status_code == 401
    assert await _me(site, (await site.tokens("eve", "another password"))["access_token"]) == 200


async def test_who_is_frozen_can_do_nothing(site: Site) -> None:
    await site.identity("ice")
    tokens = await site.tokens("ice")

    await site.sql("UPDATE attune.identity SET frozen = true WHERE login = 'ice'")

    assert await _me(site, tokens["access_token"]) == 403
    assert (await _refresh(site, tokens["refresh_token"])).status_code == 403
    assert (await site.remote.post("/auth/login", json={"login": "ice", "password": PASSWORD})).status_code == 403


async def test_who_is_deleted_has_no_token_any_more(site: Site) -> None:
    await site.identity("brief")
    tokens = await site.tokens("brief")

    await site.sql("DELETE FROM attune.identity WHERE login = 'brief'")

    assert await _me(site, tokens["access_token"]) == 401
    assert (await _refresh(site, tokens["refresh_token"])).status_code == 401


FORGED = [
    ("signed with another key", lambda claims, key: jwt.encode(claims, b"k" * 32)),
    ("signed with no key", lambda claims, key: jwt.encode(claims, None, algorithm="none")),
    ("of another algorithm", lambda claims, key: jwt.encode(claims, key + key, algorithm="HS512")),
    ("none, spelled otherwise", lambda claims, key: _unsigned(claims, "nOnE")),
    ("without a signature", lambda claims, key: jwt.encode(claims, key).rpartition(".")[0] + "."),
    ("changed after it was signed", lambda claims, key: _changed(jwt.encode(claims, key))),
    ("without an end", lambda claims, key: jwt.encode(_without(claims, "exp"), key)),
    ("without an epoch", lambda claims, key: jwt.encode(_without(claims, "epoch"), key)),
    ("of another epoch", lambda claims, key: jwt.encode(claims | {"epoch": claims["epoch"] + 1}, key)),
    ("of nobody", lambda claims, key: jwt.encode(claims | {"sub": "9000000000"}, key)),
    ("of a name", lambda claims, key: jwt.encode(claims | {"sub": "admin"}, key)),
    ("of no kind", lambda claims, key: jwt.encode(claims | {"token_type": None}, key)),
    ("with an end that is no time", lambda claims, key: jwt.encode(claims | {"exp": "never"}, key)),
    ("for somebody else", lambda claims, key: jwt.encode(claims | {"aud": "another server"}, key)),
]


@pytest.mark.parametrize("forge", [row[1] for row in FORGED], ids=[row[0] for row in FORGED])
async def test_a_token_that_this_server_did_not_make_is_refused(site: Site, forge: Any) -> None:
    key = signing_key(site.place.signing_key)
    token = (await site.tokens("admin"))["access_token"]
    claims = jwt.decode(token, key, algorithms=["HS256"], options={"verify_exp": False, "verify_iat": False})
    assert await _me(site, jwt.encode(claims, key)) == 200

    assert await _me(site, forge(claims, key)) == 401


async def test_looking_at_a_password_does_not_stop_the_loop(site: Site) -> None:
    guess = {"login": "admin", "password": "guess"}

    # Argon2 takes as long as thousands of turns. In the loop it would be one more than the ten of a quick answer.
    assert min([await _turns(site, guess, 401) for _ in range(5)]) > 100


async def test_many_may_guess_at_once_and_others_get_in(site: Site) -> None:
    async with anyio.create_task_group() as guessing:
        for _ in range(20):
            guessing.start_soon(_guess, site)
        assert (await site.ask("GET", "/health/ready")).status_code == 200
        await site.tokens("admin")


def test_the_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "secrets" / "signing.key"

    key = signing_key(path)

    assert signing_key(path) == key
    assert len(key) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    path.write_bytes(b"short")
    with pytest.raises(StartError, match="no signing key"):
        signing_key(path)


async def test_no_password_and_no_hash_is_in_an_answer(site: Site) -> None:
    answer = await site.ask("PUT", "/api/v1/identities/admin/password", json={"password": PASSWORD})

    assert PASSWORD not in answer.text
    assert "argon2" not in answer.text
    rows = await site.sql("SELECT password_hash FROM attune.identity WHERE login = 'admin'")
    assert rows[0]["password_hash"].startswith("$argon2id$")


async def _me(site: Site, token: str) -> int:
    return (await site.remote.get("/auth/me", headers=bearer(token))).status_code


async def _guess(site: Site) -> None:
    answer = await site.remote.post("/auth/login", json={"login": "admin", "password": "guess"})
    assert answer.status_code == 401


async def _refresh(site: Site, token: str) -> httpx2.Response:
    return await site.remote.post("/auth/refresh", json={"refresh_token": token})


async def _turns(site: Site, body: dict[str, str], status: int) -> int:
    """How often the loop, which server and test share, went round while a login was answered."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await anyio.lowlevel.checkpoint()
            turns += 1

    async with anyio.create_task_group() as counting:
        counting.start_soon(count)
        answer = await site.remote.post("/auth/login", json=body)
        counting.cancel_scope.cancel()
    assert answer.status_code == status
    return turns


def _without(claims: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in claims.items() if key != name}


def _unsigned(claims: dict[str, Any], algorithm: str) -> str:
    parts = ({"alg": algorithm, "typ": "JWT"}, claims)
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts) + "."


def _changed(token: str) -> str:
    head, claims, signature = token.split(".")
    decoded = json.loads(base64.urlsafe_b64decode(claims + "=="))
    changed = base64.urlsafe_b64encode(json.dumps(decoded | {"login": "root"}).encode()).rstrip(b"=").decode()
    return f"{head}.{changed}.{signature}"
