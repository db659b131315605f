"""Who a caller is: tokens, keys and proxies, over HTTP, WebSockets and server-sent events."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import jwt
import pytest
import websockets
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from starlette.applications import Starlette

from app.api.context import ApiServices
from app.api.permissions import is_permission
from app.api.transport.routes import api_routes
from app.clock import utc_now
from app.engine.store.lake import Lake
from app.scope import Scope
from app.services.access import keys, tokens
from app.services.access.authentication import AuthenticationRules, Proxy
from app.services.access.identity import TokenRules, Unauthenticated
from app.storage.database import Database
from app.storage.wakeups import Changes
from tests.api.conftest import serving

SECRET = "0123456789abcdef" * 4
VIEWER = "{ viewer { subject organisation sandbox permissions } }"
JOBS = "subscription { jobsUpdated { id } }"
RSA, EC = rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
PRIVATE: dict[str, Any] = {"RS256": RSA, "ES256": EC, "EdDSA": ED}
MAKERS: dict[str, Any] = {
    "RS256": jwt.algorithms.RSAAlgorithm,
    "ES256": jwt.algorithms.ECAlgorithm,
    "EdDSA": jwt.algorithms.OKPAlgorithm,
}

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

Serve = Callable[[AuthenticationRules], "Asked"]


class Asked:
    """Calls a server with these rules."""

    def __init__(self, services: ApiServices) -> None:
        self.services = services
        self.app = Starlette(routes=api_routes(services))

    async def post(self, headers: Any, query: str = VIEWER, peer: str = "127.0.0.1") -> httpx.Response:
        transport = httpx.ASGITransport(app=self.app, client=(peer, 1234))
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
            return await http.post("/graphql", json={"query": query}, headers=headers)

    async def viewer(self, headers: Any, peer: str = "127.0.0.1") -> Any:
        response = await self.post(headers, peer=peer)
        assert response.status_code == 200, response.text
        return response.json()["data"]["viewer"]

    async def refused(self, headers: Any, status: int = 401, peer: str = "127.0.0.1") -> str:
        response = await self.post(headers, peer=peer)
        (error,) = response.json()["errors"]
        assert response.status_code == status, response.text
        assert error["extensions"] == {"code": "UNAUTHENTICATED" if status == 401 else "FORBIDDEN"}
        assert ("www-authenticate" in response.headers) == (status == 401)
        message: str = error["message"]
        return message

    async def key(self, **values: Any) -> tuple[str, str]:
        """Id and secret of a new key of `acme`."""
        new = keys.NewKey(**{"name": "k", "permissions": ["read"], **values})
        row, secret = await keys.create(self.services.database, utc_now, Scope("acme", "", "ann"), new, is_permission)
        return row.id, secret


@pytest.fixture
async def serve(database: Database, changes: Changes, tmp_path: Path) -> AsyncIterator[Serve]:
    opened: list[Asked] = []
    (tmp_path / "uploads").mkdir()

    def start(rules: AuthenticationRules) -> Asked:
        lake, uploads = Lake(tmp_path / "lake"), tmp_path / "uploads"
        opened.append(Asked(ApiServices(database, lake, changes, utc_now, uploads, access=rules)))
        return opened[-1]

    yield start
    for asked in opened:
        await asked.services.authentication.close()


def by_secret(**rules: Any) -> AuthenticationRules:
    return AuthenticationRules("jwt", TokenRules(secret=SECRET, **rules))


def token(key: Any = SECRET, algorithm: str = "HS256", headers: Any = None, **claims: Any) -> str:
    plain = {"sub": "ann", "org": "acme", "permissions": ["read"], "exp": time.time() + 600, **claims}
    return jwt.encode({name: one for name, one in plain.items() if one is not None}, key, algorithm, headers)


def bearer(text: str) -> dict[str, str]:
    return {"authorization": f"Bearer {text}"}


def key_set(path: Path, *algorithms: str) -> None:
    published = [
        {**json.loads(MAKERS[name].to_jwk(PRIVATE[name].public_key())), "kid": name, "use": "sig"}
        for name in algorithms
    ]
    path.write_text(json.dumps({"keys": published}))


@on_sqlite
async def test_a_token_says_who_calls_and_what_it_may_do(serve: Serve) -> None:
    asked = serve(by_secret())
    ann = {"subject": "ann", "organisation": "acme", "sandbox": "prod", "permissions": ["read"]}
    assert await asked.viewer(bearer(token())) == ann
    assert await asked.viewer({"authorization": f"bearer {token()}"}) == ann
    limited = token(permissions="audiences:write read", sandboxes=["dev"])
    assert await asked.viewer(bearer(limited)) == ann | {"sandbox": "dev", "permissions": ["audiences:write", "read"]}
    headers = bearer(token(sandboxes=["dev", "prod"])) | {"x-sandbox-name": "dev", "x-gw-ims-org-id": "acme"}
    assert (await asked.viewer(headers))["sandbox"] == "dev"


@on_sqlite
async def test_headers_choose_within_the_token(serve: Serve) -> None:
    asked = serve(by_secret())
    message = await asked.refused(bearer(token()) | {"x-gw-ims-org-id": "globex"}, 403)
    assert message == "this caller belongs to the organisation 'acme' and cannot use 'globex': omit the organisation"
    message = await asked.refused(bearer(token(sandboxes=["dev"])) | {"x-sandbox-name": "prod"}, 403)
    assert message == "this caller may not use the sandbox 'prod', only dev: choose one of them"


@on_sqlite
@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ({}, "no credentials were sent"),
        ({"authorization": "Basic YTpi"}, "no credentials were sent"),
        (bearer("x.y"), "the token is not a JSON Web Token"),
        (bearer(token(exp=time.time() - 60)), "Signature has expired"),
        (bearer(token(nbf=time.time() + 600)), "not yet valid"),
        (bearer(token(key="f" * 32)), "Signature verification failed"),
        (bearer(token(algorithm="HS512")), "the token is signed with 'HS512', and its key signs with HS256 only"),
        (bearer(token(key="", algorithm="none")), "the token is signed with 'none'"),
        (bearer(token(iss="https://other")), "Invalid issuer"),
        (bearer(token(iss="https://issuer", aud="other")), "Audience doesn't match"),
        (bearer(token(iss="https://issuer")), 'Token is missing the "aud" claim'),
        (bearer(token(iss="https://issuer", aud="gateway", org=None)), 'Token is missing the "org" claim'),
        (bearer(token(iss="https://issuer", aud="gateway", sub=None)), 'Token is missing the "sub" claim'),
        (bearer(token(iss="https://issuer", aud="gateway", org=7)), "the token's claim 'org' is 7"),
        (bearer(token(iss="https://issuer", aud="gateway", permissions=7)), "the token's claim 'permissions' is 7"),
        ({"x-api-key": "sgk_nothing"}, "the API key is unknown"),
        ({"x-api-key": "sgk_nothing", **bearer(token())}, "both x-api-key and authorization are sent"),
        ([("authorization", f"Bearer {token()}")] * 2, "authorization is sent 2 times"),
    ],
)
async def test_what_is_no_identity(serve: Serve, headers: Any, says: str) -> None:
    asked = serve(by_secret(issuer="https://issuer", audience="gateway"))
    assert says in await asked.refused(headers)
    assert (await asked.viewer(bearer(token(iss="https://issuer", aud=["gateway", "b"]))))["subject"] == "ann"


@on_sqlite
async def test_clocks_may_differ_a_little(serve: Serve) -> None:
    asked = serve(by_secret(leeway=timedelta(seconds=60)))
    assert (await asked.viewer(bearer(token(exp=time.time() - 20))))["subject"] == "ann"
    assert "expired" in await asked.refused(bearer(token(exp=time.time() - 100)))


@on_sqlite
@pytest.mark.parametrize("algorithm", PRIVATE)
async def test_each_kind_of_public_key(serve: Serve, tmp_path: Path, algorithm: str) -> None:
    key_set(tmp_path / "keys.json", *PRIVATE)
    asked = serve(AuthenticationRules("jwt", TokenRules(jwks=str(tmp_path / "keys.json"))))
    signed = token(PRIVATE[algorithm], algorithm, {"kid": algorithm})
    assert (await asked.viewer(bearer(signed)))["subject"] == "ann"
    other = next(name for name in PRIVATE if name != algorithm)
    message = await asked.refused(bearer(token(PRIVATE[algorithm], algorithm, {"kid": other})))
    assert f"its key signs with {other} only" in message
    assert "is signed with the unknown key 'x'" in await asked.refused(
        bearer(token(PRIVATE[algorithm], algorithm, {"kid": "x"}))
    )
    assert "names no key" in await asked.refused(bearer(token(PRIVATE[algorithm], algorithm)))


@on_sqlite
async def test_a_public_key_is_no_secret(serve: Serve, tmp_path: Path) -> None:
    """The classic confusion: a token signed by HMAC with the public key as its secret."""
    key_set(tmp_path / "keys.json", "RS256")
    asked = serve(AuthenticationRules("jwt", TokenRules(jwks=str(tmp_path / "keys.json"))))
    published = json.loads(MAKERS["RS256"].to_jwk(RSA.public_key()))["n"]
    message = await asked.refused(bearer(token(published, "HS256", {"kid": "RS256"})))
    assert "the token is signed with 'HS256', and its key signs with RS256 only" in message
    assert "'none'" in await asked.refused(bearer(token("", "none", {"kid": "RS256"})))


@on_sqlite
async def test_keys_rotate_without_a_restart(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "keys.json"
    key_set(path, "RS256")
    asked = serve(AuthenticationRules("jwt", TokenRules(jwks=str(path))))
    old, new = token(RSA, "RS256", {"kid": "RS256"}), token(ED, "EdDSA", {"kid": "EdDSA"})
    assert (await asked.viewer(bearer(old)))["subject"] == "ann"
    assert "unknown key" in await asked.refused(bearer(new))
    key_set(path, "EdDSA")
    assert (await asked.viewer(bearer(new)))["subject"] == "ann"
    assert "unknown key" in await asked.refused(bearer(old))
    path.write_text("{")
    assert (await asked.viewer(bearer(new)))["subject"] == "ann", "the keys from before stay"


@on_sqlite
async def test_keys_by_url_are_fetched_again_and_not_for_each_token(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "keys.json"
    fetched = []

    def urlopen(url: str, timeout: float) -> Any:
        fetched.append(url)
        return path.open("rb")

    now = [1000.0]
    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    monkeypatch.setattr("app.services.access.tokens.time", SimpleNamespace(monotonic=lambda: now[0]))
    key_set(path, "RS256")
    asked = tokens.KeySet("https://issuer/keys")
    assert (await asked.find("RS256")).key_id == "RS256"
    for _ in range(5):
        with pytest.raises(Unauthenticated):
            await asked.find("EdDSA")
    assert len(fetched) == 1
    key_set(path, "EdDSA")
    now[0] += tokens.RETRY_SECONDS
    assert (await asked.find("EdDSA")).key_id == "EdDSA"
    assert len(fetched) == 2
    key_set(path, "RS256")
    now[0] += tokens.REFRESH_SECONDS
    with pytest.raises(Unauthenticated):
        await asked.find("EdDSA")
    assert len(fetched) == 3


@on_sqlite
async def test_without_keys_nobody_is_known(serve: Serve, tmp_path: Path) -> None:
    asked = serve(AuthenticationRules("jwt", TokenRules(jwks=str(tmp_path / "none.json"))))
    response = await asked.post(bearer(token(RSA, "RS256", {"kid": "RS256"})))
    assert response.status_code == 503
    assert response.json()["errors"][0]["extensions"] == {"code": "UNAVAILABLE"}


async def test_api_keys_over_the_api(serve: Serve) -> None:
    asked = serve(by_secret())
    admin = bearer(token(permissions=["read", "admin"]))
    create = """mutation { createApiKey(input: {name: "nightly", permissions: ["read"], sandboxes: ["dev"]}) {
      secret apiKey { id prefix permissions sandboxes createdBy } errors { code message path } } }"""
    created = (await asked.post(admin, create)).json()["data"]["createApiKey"]
    secret, id_ = created["secret"], created["apiKey"].pop("id")
    assert created == {
        "secret": secret,
        "apiKey": {"prefix": secret[:12], "permissions": ["read"], "sandboxes": ["dev"], "createdBy": "ann"},
        "errors": [],
    }
    raw = keys._digest(secret)
    assert secret not in raw
    viewer = await asked.viewer({"x-api-key": secret})
    assert viewer["organisation"] == "acme"
    assert viewer["sandbox"] == "dev"
    assert viewer["subject"].startswith("key:")
    refused = (await asked.post(admin, create.replace('["read"]', '["write", "x"]'))).json()["data"]["createApiKey"]
    assert [(error["code"], error["path"]) for error in refused["errors"]] == [
        ("FORBIDDEN", ["input", "permissions", "0"]),
        ("INVALID_INPUT", ["input", "permissions", "1"]),
    ]
    await asked.services.authentication.close()
    listed = "{ apiKeys { totalCount nodes { id name lastUsedAt revokedAt } } }"
    (node,) = (await asked.post(admin, listed)).json()["data"]["apiKeys"]["nodes"]
    assert (node["id"], node["name"], node["revokedAt"]) == (id_, "nightly", None)
    assert node["lastUsedAt"] is not None
    other = bearer(token(org="globex", permissions=["admin"]))
    assert (await asked.post(other, listed)).json()["data"]["apiKeys"] == {"totalCount": 0, "nodes": []}
    revoke = f'mutation {{ revokeApiKey(id: "{id_}") {{ apiKey {{ revokedAt }} errors {{ code }} }} }}'
    assert (await asked.post(other, revoke)).json()["data"]["revokeApiKey"]["errors"] == [{"code": "NOT_FOUND"}]
    assert (await asked.viewer({"x-api-key": secret}))["organisation"] == "acme"
    assert (await asked.post(admin, revoke)).json()["data"]["revokeApiKey"]["errors"] == []
    assert await asked.refused({"x-api-key": secret}) == f"the API key {secret[:12]}… was revoked: use another"


@on_sqlite
async def test_whoever_is_limited_to_sandboxes_has_no_say_in_keys(serve: Serve) -> None:
    asked = serve(by_secret())
    limited = bearer(token(permissions=["admin"], sandboxes=["prod"]))
    (error,) = (await asked.post(limited, "{ apiKeys { totalCount } }")).json()["errors"]
    assert error["extensions"]["code"] == "FORBIDDEN"
    create = 'mutation { createApiKey(input: {name: "a", permissions: ["admin"]}) { secret errors { code } } }'
    payload = (await asked.post(limited, create)).json()["data"]["createApiKey"]
    assert payload == {"secret": None, "errors": [{"code": "FORBIDDEN"}]}


@on_sqlite
async def test_an_expired_key_and_a_mode_of_keys_alone(serve: Serve) -> None:
    asked = serve(AuthenticationRules("keys"))
    _, secret = await asked.key(expires_at=utc_now() + timedelta(milliseconds=1))
    assert await asked.refused({"x-api-key": secret}) == f"the API key {secret[:12]}… has expired: use another"
    assert await asked.refused({}) == "no credentials were sent: send x-api-key"
    assert await asked.refused(bearer(token())) == "no credentials were sent: send x-api-key"


FORWARDED = {"x-forwarded-user": "bob", "x-forwarded-organisation": "acme", "x-forwarded-permissions": "read,run"}


@on_sqlite
async def test_a_proxy_says_who_calls(serve: Serve) -> None:
    asked = serve(AuthenticationRules("proxy", proxy=Proxy((ip_network("10.1.0.0/16"),))))
    bob = {"subject": "bob", "organisation": "acme", "sandbox": "prod", "permissions": ["read", "run"]}
    assert await asked.viewer(FORWARDED, peer="10.1.2.3") == bob
    assert await asked.viewer(FORWARDED, peer="::ffff:10.1.2.3") == bob
    for peer in ("10.2.0.1", "127.0.0.1", "testclient"):
        message = await asked.refused(FORWARDED | {"x-forwarded-for": "10.1.2.3"}, peer=peer)
        assert message.startswith(
            f"identity headers are accepted only from the configured proxies, and {peer} is not one of them"
        )
    twice = [*FORWARDED.items(), ("x-forwarded-user", "root")]
    assert await asked.refused(twice, peer="10.1.2.3") == "x-forwarded-user is sent 2 times: send it once"
    for missing in ("x-forwarded-user", "x-forwarded-organisation"):
        headers = {name: value for name, value in FORWARDED.items() if name != missing}
        assert f"the proxy sent {missing} as None" in await asked.refused(headers, peer="10.1.2.3")
    limited = FORWARDED | {"x-forwarded-sandboxes": "dev"}
    assert (await asked.viewer(limited, peer="10.1.2.3"))["sandbox"] == "dev"


@on_sqlite
async def test_the_subject_is_the_creator(serve: Serve) -> None:
    asked = serve(by_secret())
    create = 'mutation { createDataset(input: {name: "a", kind: EXPORT}) { dataset { name } errors { code } } }'
    headers = bearer(token(permissions=["read", "write"]))
    assert (await asked.post(headers, create)).json()["data"]["createDataset"]["errors"] == []
    define = """mutation { createSegmentDefinition(input: {name: "a", expression: "true"}) {
      definition { createdBy } errors { code } } }"""
    payload = (await asked.post(headers, define)).json()["data"]["createSegmentDefinition"]
    assert payload == {"definition": {"createdBy": "ann"}, "errors": []}


@on_sqlite
async def test_metrics_need_a_permission_and_health_does_not(serve: Serve) -> None:
    asked = serve(by_secret())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=asked.app), base_url="http://gateway") as http:
        assert (await http.get("/metrics")).status_code == 401
        assert (await http.get("/metrics", headers=bearer(token(permissions=["write"])))).status_code == 403
        assert (await http.get("/metrics", headers=bearer(token(permissions=["metrics:read"])))).status_code == 200
        assert (await http.get("/health/live")).status_code == 200


# ---------------------------------------------------------------- callers who stay


PROTOCOL = websockets.Subprotocol("graphql-transport-ws")


class Socket:
    def __init__(self, port: int) -> None:
        self._connect = websockets.connect(f"ws://127.0.0.1:{port}/graphql", subprotocols=[PROTOCOL])

    async def __aenter__(self) -> "Socket":
        self._socket = await self._connect.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._connect.__aexit__(*error)

    async def send(self, **message: Any) -> None:
        await self._socket.send(json.dumps(message))

    async def get(self) -> Any:
        return json.loads(await self._socket.recv())

    async def closed(self) -> tuple[int, str]:
        await self._socket.wait_closed()
        return self._socket.close_code or 0, self._socket.close_reason or ""


@on_sqlite
@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (None, "no credentials were sent: send `authorization: Bearer …`, or x-api-key"),
        ({"authorization": f"Bearer {token(exp=1)}"}, "the token is not valid (Signature has expired): get a new one"),
        ({"x-api-key": "sgk_x"}, "the API key is unknown: create one with `segmentation key create`"),
        ({"x-api-key": 7}, "x-api-key must be a text"),
        ({"x-forwarded-user": "root"}, "no credentials were sent: send `authorization: Bearer …`, or x-api-key"),
        (
            {**bearer(token(sandboxes=["dev"])), "x-sandbox-name": "prod"},
            "this caller may not use the sandbox 'prod', only dev: choose one of them",
        ),
    ],
)
async def test_a_socket_without_identity_is_closed(serve: Serve, payload: Any, reason: str) -> None:
    async with serving(serve(by_secret()).app) as port, Socket(port) as socket:
        await socket.send(type="connection_init", **({} if payload is None else {"payload": payload}))
        assert await socket.closed() == (4403, reason)


async def test_a_socket_ends_when_its_key_is_revoked(serve: Serve, database: Database) -> None:
    asked = serve(by_secret())
    id_, secret = await asked.key()
    async with serving(asked.app) as port, Socket(port) as socket:
        await socket.send(type="connection_init", payload={"x-api-key": secret})
        assert await socket.get() == {"type": "connection_ack"}
        await socket.send(type="subscribe", id="1", payload={"query": JOBS})
        await socket.send(type="subscribe", id="2", payload={"query": "{ viewer { organisation } }"})
        assert (await socket.get())["payload"]["data"] == {"viewer": {"organisation": "acme"}}
        other = Database(f"sqlite:///{database.location}" if database.dialect == "sqlite" else database.location)
        await keys.revoke(other, utc_now, Scope("acme", "", "ann"), id_)  # as another process would
        await other.dispose()
        assert await socket.closed() == (4403, "the API key was revoked: connect again with another")


@on_sqlite
async def test_a_socket_ends_with_its_token(serve: Serve) -> None:
    asked = serve(by_secret(leeway=timedelta(0)))
    async with serving(asked.app) as port, Socket(port) as socket:
        await socket.send(type="connection_init", payload=bearer(token(exp=int(time.time()) + 2)))
        assert await socket.get() == {"type": "connection_ack"}
        await socket.send(type="subscribe", id="1", payload={"query": JOBS})
        assert await socket.closed() == (4403, "the identity has expired: connect again with a new one")


@on_sqlite
async def test_an_event_stream_ends_with_its_key(serve: Serve) -> None:
    asked = serve(by_secret())
    id_, secret = await asked.key()
    accept = {"accept": "text/event-stream"}
    async with serving(asked.app) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        refused = await http.post("/graphql", json={"query": JOBS}, headers=accept)
        assert refused.status_code == 401
        headers = accept | {"x-api-key": secret}
        async with http.stream("POST", "/graphql", json={"query": JOBS}, headers=headers) as stream:
            assert stream.status_code == 200
            await keys.revoke(asked.services.database, utc_now, Scope("acme", "", "ann"), id_)
            lines = [line async for line in stream.aiter_lines() if line and not line.startswith(":")]
    assert lines[0] == "event: next"
    assert json.loads(lines[1].removeprefix("data: ")) == {
        "errors": [
            {
                "message": "the API key was revoked: connect again with another",
                "extensions": {"code": "UNAUTHENTICATED"},
            }
        ]
    }
    assert lines[2] == "event: complete"


async def test_one_look_serves_all_streams_of_a_key(serve: Serve) -> None:
    asked = serve(by_secret())
    id_, secret = await asked.key()
    authentication = asked.services.authentication
    identity = await authentication.identify({"x-api-key": secret}, None)
    waits = [asyncio.create_task(authentication.until_ended(identity)) for _ in range(3)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert authentication._watched[id_][0] == 3
    waits[0].cancel()
    await keys.revoke(asked.services.database, utc_now, Scope("acme", "", "ann"), id_)
    assert await asyncio.gather(*waits[1:]) == ["the API key was revoked: connect again with another"] * 2
    assert authentication._watched == {}
