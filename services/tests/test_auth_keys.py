"""Keys that change while the process runs: what is published, what signs, what still counts, and what is refused."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from slipway_auth.app import create_app
from slipway_auth.keys import KeyRing, load_signing_key, load_verification_keys
from slipway_auth.secret_files import ReloadMetrics, SecretFiles
from slipway_auth.service_keys import ServiceKeys, load_service_keys
from slipway_auth.settings import Settings
from slipway_kit.settings import SECRETS_DIR_VARIABLE, SettingsError
from slipway_kit.tokens import InvalidTokenError
from slipway_testing.checks import assert_problem
from slipway_testing.platform import PASSWORD, Platform, User
from slipway_testing.servers import live
from slipway_testing.tokens import mint, new_key, new_pem

P256 = ec.SECP256R1()


def public_pem(private_pem: str) -> str:
    key = load_pem_private_key(private_pem.encode(), None).public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def kid_of(private_pem: str) -> str:
    return load_signing_key(private_pem).key_id


class Files:
    """Stands for the mounted secrets."""

    def __init__(self, **texts: str) -> None:
        self.texts = {"auth_verification_keys": "", "service_keys": "{}"} | texts
        self.registry = CollectorRegistry()
        self.metrics = ReloadMetrics(self.registry)

    def read(self, name: str) -> str:
        return self.texts[name]

    @property
    def failures(self) -> float:
        samples = [sample for metric in self.registry.collect() for sample in metric.samples]
        return sum(sample.value for sample in samples if sample.name == "auth_reload_failures_total")


async def knows(ring: KeyRing, kid: str) -> bool:
    try:
        return (await ring.get(kid)).key_id == kid
    except InvalidTokenError:
        return False


async def test_a_key_is_replaced_in_three_steps_without_a_refused_token() -> None:
    old, new = new_pem(), new_pem()
    files = Files(auth_signing_key=old)
    ring = KeyRing(files.read, files.metrics)
    assert not ring.reload()
    # The next one is published, and others learn it.
    files.texts["auth_verification_keys"] = public_pem(new)
    assert ring.reload()
    assert [key["kid"] for key in ring.jwks["keys"]] == [kid_of(old), kid_of(new)]
    assert ring.signing.key_id == kid_of(old)
    # It signs; what the previous one signed still counts.
    files.texts |= {"auth_signing_key": new, "auth_verification_keys": public_pem(old)}
    assert ring.reload()
    assert ring.signing.key_id == kid_of(new)
    assert await knows(ring, kid_of(old))
    assert await knows(ring, kid_of(new))
    # The previous one goes.
    files.texts["auth_verification_keys"] = ""
    assert ring.reload()
    assert not await knows(ring, kid_of(old))
    assert [key["kid"] for key in ring.jwks["keys"]] == [kid_of(new)]


async def test_a_key_that_signs_and_is_in_the_bundle_is_published_once() -> None:
    pem = new_pem()
    files = Files(auth_signing_key=pem, auth_verification_keys=public_pem(pem))
    assert len(KeyRing(files.read, files.metrics).jwks["keys"]) == 1


@pytest.mark.parametrize("wrong", ["", "nonsense", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"])
async def test_a_file_that_cannot_be_used_changes_nothing_and_is_counted_once(wrong: str) -> None:
    pem = new_pem()
    files = Files(auth_signing_key=pem)
    ring = KeyRing(files.read, files.metrics)
    files.texts["auth_signing_key"] = wrong
    assert not ring.reload()
    assert not ring.reload()
    assert ring.signing.key_id == kid_of(pem)
    assert files.failures == 1
    # As when a half written file is complete.
    files.texts["auth_signing_key"] = new_pem()
    assert ring.reload()


def test_a_bundle_of_public_keys() -> None:
    pems = [new_pem() for _ in range(3)]
    bundle = "\n\n".join(map(public_pem, pems)) + "\n"
    assert [jwk["kid"] for jwk in load_verification_keys(bundle)] == [kid_of(pem) for pem in pems]
    assert all("d" not in jwk for jwk in load_verification_keys(bundle))
    assert load_verification_keys(" \n") == []


def pem_of(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, public: bool) -> str:
    if public:
        return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def unsuitable() -> list[ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey]:
    return [ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)]


def test_other_keys_are_refused_in_our_own_words() -> None:
    for key in unsuitable():
        with pytest.raises(ValueError, match=r"^a private key in PEM form on the curve P-256$"):
            load_signing_key(pem_of(key, public=False))
        with pytest.raises(ValueError, match=r"^public keys in PEM form on the curve P-256"):
            load_verification_keys(pem_of(key, public=True))
    for text in ("nonsense", new_pem(), public_pem(new_pem()) + "and more", "-----BEGIN X-----\n!\n-----END X-----"):
        with pytest.raises(ValueError, match=r"^public keys in PEM form on the curve P-256"):
            load_verification_keys(text)


@pytest.mark.parametrize(
    "text", ["", "nonsense", "[]", '"x"', '{"api": "short"}', '{"api": 5}', '{"Not A Name": "0123456789abcdef"}']
)
def test_service_keys_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"^a JSON object of service names") as error:
        load_service_keys(text)
    assert "short" not in str(error.value)


def test_service_keys_match_by_name_and_key_and_change() -> None:
    files = Files(service_keys=json.dumps({"api": "a" * 16, "image": "i" * 16}))
    keys = ServiceKeys(files.read, files.metrics)
    assert keys.match("api", "a" * 16)
    for name, key in (("api", "i" * 16), ("api", ""), ("nobody", "a" * 16), ("", ""), ("api", "ä" * 16)):
        assert not keys.match(name, key)
    files.texts["service_keys"] = json.dumps({"api": "b" * 16})
    assert keys.reload()
    assert keys.match("api", "b" * 16)
    assert not keys.match("api", "a" * 16)
    assert not keys.match("image", "i" * 16)


@given(st.lists(st.sampled_from(["1", "2", "3", "wrong", "", "worse"]), max_size=12))
def test_whatever_is_written_the_last_good_one_is_in_force(texts: list[str]) -> None:
    files = Files(number="0")
    watched = SecretFiles(("number",), files.read, int, files.metrics)
    good, present, failures = 0, "0", 0
    for text in texts:
        files.texts["number"] = text
        changed = text != present
        present = text
        if text.isdecimal():
            # Also when it is the value from before a wrong one: it was read again.
            assert watched.reload() == changed
            good = int(text)
        else:
            assert not watched.reload()
            failures += changed
        assert watched.value == good
        assert files.failures == failures


# The service, with files in place of the mounted secrets


@pytest.fixture
def mounted(platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Writes secret files as a kubelet would."""
    monkeypatch.setenv(SECRETS_DIR_VARIABLE, str(tmp_path))

    def write(**files: str) -> None:
        for name, text in files.items():
            (tmp_path / name).write_text(text + "\n")

    return write


@pytest.fixture
def rotating(platform: Platform, mounted: Callable[..., None]) -> Iterator[tuple[httpx2.Client, str]]:
    """An auth that looks at its files all the time; and the key that it started with."""
    pem = new_pem()
    mounted(auth_signing_key=pem, service_keys=json.dumps({"api": "first key of api"}))
    from_files = ("auth_signing_key", "service_keys")
    values = {name: value for name, value in platform.auth_settings.items() if name not in from_files}
    settings = Settings.load(**values, keys_reload_seconds=0.05)
    with live(create_app(settings)) as server, httpx2.Client(base_url=server.url) as client:
        yield client, pem


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def published(client: httpx2.Client) -> list[str]:
    return [key["kid"] for key in client.get("/.well-known/jwks.json").json()["keys"]]


def test_the_running_service_changes_its_key(
    rotating: tuple[httpx2.Client, str], mounted: Callable[..., None], account: User
) -> None:
    client, old = rotating
    new = new_pem()

    def login() -> str:
        answer = client.post("/login", json={"username": account.username, "password": PASSWORD})
        token: str = answer.json()["access_token"]
        return token

    def is_active(token: str) -> bool:
        active: bool = client.post("/verify", json={"token": token}).json()["active"]
        return active

    first = login()
    mounted(auth_verification_keys=public_pem(new))
    eventually(lambda: published(client) == [kid_of(old), kid_of(new)])
    mounted(auth_signing_key=new, auth_verification_keys=public_pem(old))
    eventually(lambda: published(client) == [kid_of(new), kid_of(old)])
    second = login()
    assert jwt.get_unverified_header(second)["kid"] == kid_of(new)
    assert is_active(first)
    assert is_active(second)
    mounted(auth_verification_keys="")
    eventually(lambda: published(client) == [kid_of(new)])
    assert not is_active(first)
    assert is_active(second)


def test_the_running_service_keeps_its_key_when_the_new_one_is_wrong(
    rotating: tuple[httpx2.Client, str], mounted: Callable[..., None]
) -> None:
    client, old = rotating
    mounted(auth_signing_key="nonsense")
    series = 'auth_reload_failures_total{file="auth_signing_key and auth_verification_keys"} 1.0'
    eventually(lambda: series in client.get("/metrics").text)
    assert published(client) == [kid_of(old)]


def test_the_running_service_learns_new_service_keys(
    rotating: tuple[httpx2.Client, str], mounted: Callable[..., None]
) -> None:
    client, _ = rotating

    def granted(key: str) -> bool:
        return client.post("/service-tokens", json={"audience": "image"}, auth=("api", key)).status_code == 200

    assert granted("first key of api")
    mounted(service_keys=json.dumps({"api": "second key of api"}))
    eventually(lambda: granted("second key of api"))
    assert not granted("first key of api")


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("auth_signing_key", "a private key in PEM form"),
        ("auth_verification_keys", "public keys in PEM form"),
        ("service_keys", "a JSON object of service names"),
    ],
)
def test_a_wrong_file_at_the_start_is_told_in_one_line(
    platform: Platform, mounted: Callable[..., None], name: str, wanted: str
) -> None:
    mounted(**{name: "nonsense-that-is-secret"})
    values = {key: value for key, value in platform.auth_settings.items() if key != name}
    with pytest.raises(SettingsError) as error:
        Settings.load(**values)
    (line,) = error.value.lines
    assert line.startswith(f"{name.upper()} (or the file ")
    assert f"wanted {wanted}" in line
    assert "nonsense" not in line


# Tokens that services get


def ask(auth: httpx2.Client, name: str, key: str, **body: str) -> httpx2.Response:
    return auth.post("/service-tokens", json={"audience": "image"} | body, auth=(name, key))


def test_a_service_token_says_who_calls_whom(auth: httpx2.Client, platform: Platform) -> None:
    answer = ask(auth, "api", platform.service_keys["api"])
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json()["expires_in"] == 900
    token = answer.json()["token"]
    assert jwt.get_unverified_header(token) == {"alg": "ES256", "typ": "st+jwt", "kid": platform.key.key_id}
    key = jwt.PyJWK(platform.key.public_jwk)
    claims = jwt.decode(token, key, algorithms=["ES256"], audience="slipway:image", issuer="slipway-auth")
    assert claims["sub"] == "api"
    assert claims["exp"] - claims["iat"] == 900


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Basic",
        "Basic !!!",
        "Basic YXBp",
        "Bearer YXBpOng=",
        "Basic YXBpOndyb25n",
        "Basic bm9ib2R5OndybG9uZw==",
        "Basic 4oKsOng=",
    ],
)
def test_service_credentials_that_are_wrong(auth: httpx2.Client, authorization: str) -> None:
    answer = auth.post("/service-tokens", json={"audience": "image"}, headers={"Authorization": authorization})
    assert_problem(answer, 401, "invalid-service-credentials")
    assert answer.headers["www-authenticate"].startswith("Basic ")


def test_a_key_is_good_for_one_name(auth: httpx2.Client, platform: Platform) -> None:
    assert_problem(ask(auth, "image", platform.service_keys["api"]), 401, "invalid-service-credentials")


@pytest.mark.parametrize("audience", ["", "Image", "image service", "slipway:image", "../auth", "i" * 40])
def test_callees_that_cannot_be(auth: httpx2.Client, platform: Platform, audience: str) -> None:
    assert_problem(ask(auth, "api", platform.service_keys["api"], audience=audience), 422, "invalid-request")


def test_a_service_token_is_nobodys_access_token(auth: httpx2.Client, platform: Platform) -> None:
    token = ask(auth, "api", platform.service_keys["api"]).json()["token"]
    assert auth.post("/verify", json={"token": token}).json() == {"active": False}
    change = {"current_password": PASSWORD, "new_password": "a whole new horse"}
    answer = auth.post("/password", json=change, headers={"Authorization": f"Bearer {token}"})
    assert_problem(answer, 401, "invalid-token")


def test_a_token_of_a_key_that_was_never_published(auth: httpx2.Client, account: User) -> None:
    token = mint(new_key(), sub=account.id, preferred_username=account.username)
    assert auth.post("/verify", json={"token": token}).json() == {"active": False}
