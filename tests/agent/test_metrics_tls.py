"""`/metrics` beyond loopback: real uvicorn under TLS with throw-away certificates, passwords, and those who guess."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from agent import passwords
from agent.credentials import CredentialError, Secret
from agent.metrics import Exporter
from agent.server_section import TlsConfig
from agent.web import door
from agent.web.guard import FAILURES_MAX, WINDOW_S, counted_as
from agent.web.server import WebServer, listening_socket
from tests.fakes.desk import Desk
from tests.fakes.sites import Driver, bank

USER, PASSWORD = "prometheus", "correct horse battery"
OPENSSL = shutil.which("openssl") or "openssl"


@dataclass(frozen=True)
class Address:
    tls: TlsConfig | None = None
    password_file: Path | Secret | None = None
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 0


@dataclass(frozen=True)
class Certificates:
    """A certificate of the server, and one of a client with the authority that signed it."""

    server: Path
    server_key: Path
    client_ca: Path
    client: Path
    client_key: Path


def openssl(folder: Path, *words: str) -> None:
    subprocess.run((OPENSSL, *words), cwd=folder, check=True, capture_output=True)


def self_signed(folder: Path, name: str, *more: str) -> tuple[Path, Path]:
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", f"{name}.key")
    openssl(folder, "req", "-x509", *key, "-out", f"{name}.pem", "-days", "2", "-subj", f"/CN={name}", *more)
    (folder / f"{name}.key").chmod(0o600)
    return folder / f"{name}.pem", folder / f"{name}.key"


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("certificates")
    server, server_key = self_signed(folder, "server", "-addext", "subjectAltName=IP:127.0.0.1")
    ca, ca_key = self_signed(folder, "ca")
    openssl(
        folder, "req", "-newkey", "rsa:2048", "-nodes", "-keyout", "client.key", "-out", "client.csr", "-subj", "/CN=c"
    )
    signed = ("-in", "client.csr", "-CA", ca.name, "-CAkey", ca_key.name, "-CAcreateserial", "-out", "client.pem")
    openssl(folder, "x509", "-req", *signed, "-days", "2")
    return Certificates(server, server_key, ca, folder / "client.pem", folder / "client.key")


@pytest.fixture
def tls(certificates: Certificates) -> TlsConfig:
    return TlsConfig(certificates.server, certificates.server_key)


def write_passwords(folder: Path, *lines: str) -> Path:
    path = folder / "passwords"
    path.write_text("# who may look\n\n" + "".join(f"{line}\n" for line in lines), encoding="utf-8")
    path.chmod(0o600)
    return path


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    return write_passwords(tmp_path, passwords.line(USER, PASSWORD))


@pytest.fixture
def desk() -> Desk:
    driver = Driver(bank()).start()
    driver.all_good()
    return Desk(driver)


@asynccontextmanager
async def serving(desk: Desk, address: Address, credentials: Path | None = None) -> AsyncIterator[WebServer]:
    async with WebServer(Exporter(desk), desk, address, credentials) as web:
        yield web


async def get(
    web: WebServer,
    page: str = "/metrics",
    *,
    trust: Certificates | None = None,
    show: Certificates | None = None,
    auth: tuple[str, str] | None = None,
    headers: dict[str, str] | None = None,
    maximum: ssl.TLSVersion | None = None,
) -> httpx.Response:
    context = ssl.create_default_context(cafile=trust.server if trust is not None else None)
    if maximum is not None:
        context.minimum_version, context.maximum_version = ssl.TLSVersion.MINIMUM_SUPPORTED, maximum
        context.set_ciphers("ALL:@SECLEVEL=0")
    if show is not None:
        context.load_cert_chain(show.client, show.client_key)
    async with httpx.AsyncClient(verify=context, trust_env=False) as client:
        return await client.get(f"{web.scheme}://127.0.0.1:{web.port}{page}", auth=auth, headers=headers)


# ---------------------------------------------------------------- TLS


@pytest.mark.parametrize("page", ["/metrics", "/healthz"])
async def test_pages_come_by_tls_to_those_who_know_the_password(desk, tls, password_file, certificates, page):
    async with serving(desk, Address(tls, password_file)) as web:
        found = await get(web, page, trust=certificates, auth=(USER, PASSWORD))
        nobody = await get(web, page, trust=certificates)
        wrong = await get(web, page, trust=certificates, auth=(USER, PASSWORD + "!"))

    assert found.status_code == 200
    assert nobody.status_code == wrong.status_code == 401
    assert nobody.headers["www-authenticate"].startswith('Basic realm="changeover"')
    assert "changeover_" not in nobody.text + wrong.text


async def test_a_client_that_speaks_no_tls_gets_nothing(desk, tls, password_file):
    async with serving(desk, Address(tls, password_file)) as web, httpx.AsyncClient(trust_env=False) as client:
        with pytest.raises(httpx.TransportError):
            await client.get(f"http://127.0.0.1:{web.port}/metrics")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_tls_1_2_is_spoken_and_nothing_older(desk, tls, password_file, certificates):
    async with serving(desk, Address(tls, password_file)) as web:
        auth = (USER, PASSWORD)
        assert (await get(web, trust=certificates, auth=auth, maximum=ssl.TLSVersion.TLSv1_2)).status_code == 200
        with pytest.raises(httpx.ConnectError):
            await get(web, trust=certificates, auth=auth, maximum=ssl.TLSVersion.TLSv1_1)


async def test_with_a_client_authority_only_its_clients_come_in(desk, certificates):
    files = TlsConfig(certificates.server, certificates.server_key, certificates.client_ca)
    async with serving(desk, Address(files)) as web:
        assert (await get(web, trust=certificates, show=certificates)).status_code == 200
        with pytest.raises(httpx.TransportError):
            await get(web, trust=certificates)


async def test_client_certificate_and_password_are_both_asked_for_when_both_are_given(
    desk, certificates, password_file
):
    files = TlsConfig(certificates.server, certificates.server_key, certificates.client_ca)
    async with serving(desk, Address(files, password_file)) as web:
        assert (await get(web, trust=certificates, show=certificates)).status_code == 401
        found = await get(web, trust=certificates, show=certificates, auth=(USER, PASSWORD))

    assert found.status_code == 200


async def test_new_certificate_and_passwords_are_in_force_without_a_new_start(
    desk, tmp_path, password_file, certificates
):
    chain, key = tmp_path / "own.pem", tmp_path / "own.key"
    shutil.copy(certificates.client_ca, chain)  # any pair will do; nobody trusts this one
    shutil.copy(certificates.client_ca.with_suffix(".key"), key)
    async with serving(desk, Address(TlsConfig(chain, key), password_file)) as web:
        with pytest.raises(httpx.ConnectError):
            await get(web, trust=certificates, auth=(USER, PASSWORD))
        shutil.copy(certificates.server, chain)
        shutil.copy(certificates.server_key, key)
        write_passwords(tmp_path, passwords.line(USER, "another long one"))

        web.read_anew()()

        assert (await get(web, trust=certificates, auth=(USER, "another long one"))).status_code == 200
        assert (await get(web, trust=certificates, auth=(USER, PASSWORD))).status_code == 401


async def test_files_that_cannot_be_used_leave_what_is_in_force(desk, tls, tmp_path, password_file, certificates):
    async with serving(desk, Address(tls, password_file)) as web:
        write_passwords(tmp_path, "prometheus:secret")
        with pytest.raises(CredentialError, match="line 3: the hash must be scrypt"):
            web.read_anew()

        assert (await get(web, trust=certificates, auth=(USER, PASSWORD))).status_code == 200


@pytest.mark.parametrize("guard", ["none", "tls", "password"])
async def test_the_network_is_never_served_without_both(desk, tls, password_file, guard):
    address = {
        "none": Address(metrics_host="0.0.0.0"),
        "tls": Address(tls, metrics_host="0.0.0.0"),
        "password": Address(password_file=password_file, metrics_host="0.0.0.0"),
    }[guard]

    with pytest.raises(OSError, match="would leave this machine"):
        await WebServer(Exporter(desk), desk, address).start()


async def test_the_network_is_served_under_both(desk, tls, password_file, certificates):
    async with serving(desk, Address(tls, password_file, metrics_host="0.0.0.0")) as web:
        assert (await get(web, trust=certificates, auth=(USER, PASSWORD))).status_code == 200


def test_an_address_that_this_machine_does_not_have_yet_is_waited_for(caplog):
    with listening_socket("192.0.2.77", 0, is_guarded=True) as listener:
        assert listener.getsockname()[0] == "192.0.2.77"
    assert "web.address_not_here address=192.0.2.77" in caplog.text


# ---------------------------------------------------------------- guessing


async def test_after_five_wrong_passwords_an_address_is_not_listened_to_for_a_minute(desk, password_file):
    async with serving(desk, Address(password_file=password_file)) as web:
        answers = [await get(web, auth=(USER, f"guess number {n}")) for n in range(FAILURES_MAX + 1)]
        right = await get(web, auth=(USER, PASSWORD))
        desk.driver.now_s += WINDOW_S
        later = await get(web, auth=(USER, PASSWORD))

    assert [answer.status_code for answer in answers] == [401] * FAILURES_MAX + [429]
    assert right.status_code == 429
    assert 0 < int(right.headers["retry-after"]) <= WINDOW_S
    assert later.status_code == 200


async def test_guesses_at_the_same_time_are_counted_like_others(desk, password_file):
    async with serving(desk, Address(password_file=password_file)) as web:
        many = [get(web, auth=(USER, f"guess number {n}")) for n in range(door.CLIENTS_OF_ONE_MAX)]
        codes = sorted(answer.status_code for answer in await asyncio.gather(*many))

    assert codes == [401] * FAILURES_MAX + [429] * (door.CLIENTS_OF_ONE_MAX - FAILURES_MAX)


async def test_an_address_that_a_client_claims_does_not_count(desk, password_file):
    async with serving(desk, Address(password_file=password_file)) as web:
        for n in range(FAILURES_MAX):
            await get(web, auth=(USER, "wrong wrong wrong"), headers={"X-Forwarded-For": f"192.0.2.{n}"})
        answer = await get(web, auth=(USER, PASSWORD), headers={"X-Forwarded-For": "192.0.2.99"})

    assert answer.status_code == 429


async def test_asking_without_a_password_is_no_guess(desk, password_file):
    async with serving(desk, Address(password_file=password_file)) as web:
        for _ in range(3 * FAILURES_MAX):
            assert (await get(web)).status_code == 401
        answer = await get(web, auth=(USER, PASSWORD))

    assert answer.status_code == 200


async def test_a_right_password_is_checked_once(desk, password_file, monkeypatch):
    checks: list[str] = []
    matches = passwords.Hash.matches

    def counted(kept: passwords.Hash, password: str) -> bool:
        checks.append(password)
        return matches(kept, password)

    monkeypatch.setattr(passwords.Hash, "matches", counted)
    async with serving(desk, Address(password_file=password_file)) as web:
        for _ in range(4):
            assert (await get(web, auth=(USER, PASSWORD))).status_code == 200

    assert checks == [PASSWORD]


async def test_an_unknown_name_costs_as_much_as_a_wrong_password(desk, password_file, monkeypatch):
    checks: list[int] = []
    matches = passwords.Hash.matches

    def counted(kept: passwords.Hash, password: str) -> bool:
        checks.append(kept.cost)
        return matches(kept, password)

    monkeypatch.setattr(passwords.Hash, "matches", counted)
    async with serving(desk, Address(password_file=password_file)) as web:
        assert (await get(web, auth=("nobody", PASSWORD))).status_code == 401
        assert (await get(web, auth=(USER, "wrong wrong wrong"))).status_code == 401

    assert checks == [passwords.COST, passwords.COST]


@pytest.mark.parametrize("header", ["Bearer abc", "Basic", "Basic !!!", "Basic bm9jb2xvbg==", "Basic " + "A" * 5000])
async def test_words_that_are_no_password_are_refused(desk, password_file, header):
    async with serving(desk, Address(password_file=password_file)) as web:
        assert (await get(web, headers={"Authorization": header})).status_code == 401


def test_an_ipv6_network_counts_as_one():
    assert counted_as("2001:db8:1:2::7") == counted_as("2001:db8:1:2:ffff::1") == "2001:db8:1:2::/64"
    assert counted_as("::ffff:192.0.2.1") == counted_as("192.0.2.1") == "192.0.2.1"
    assert counted_as("::1") == "::/64"


# ---------------------------------------------------------------- the door


async def dead(reader: asyncio.StreamReader) -> bool:
    """Tell whether the far side hangs up within the patience of a test."""
    try:
        async with asyncio.timeout(10):
            return await reader.read(1) == b""
    except ConnectionError:
        return True


async def test_one_address_cannot_take_all_places(desk):
    async with serving(desk, Address()) as web:
        idle = [await asyncio.open_connection("127.0.0.1", web.port) for _ in range(door.CLIENTS_OF_ONE_MAX)]
        reader, writer = await asyncio.open_connection("127.0.0.1", web.port)

        assert await dead(reader)
        for _, one in (*idle, (reader, writer)):
            one.close()
        async with asyncio.timeout(10):
            while True:
                try:
                    assert (await get(web)).status_code == 200
                    break
                except httpx.TransportError:
                    await asyncio.sleep(0.05)


async def test_a_client_that_says_nothing_is_sent_away(desk, tls, monkeypatch):
    monkeypatch.setattr(door, "REQUEST_WITHIN_S", 0.2)
    monkeypatch.setattr(door, "HANDSHAKE_WITHIN_S", 0.2)
    async with serving(desk, Address()) as web:
        silent, one = await asyncio.open_connection("127.0.0.1", web.port)
        slow, other = await asyncio.open_connection("127.0.0.1", web.port)
        other.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n")
        assert await dead(silent)
        assert await dead(slow)
        for writer in (one, other):
            writer.close()
    async with serving(desk, Address(tls)) as web:
        silent, one = await asyncio.open_connection("127.0.0.1", web.port)
        assert await dead(silent)
        one.close()


async def test_a_connection_in_use_is_kept(desk, monkeypatch):
    monkeypatch.setattr(door, "REQUEST_WITHIN_S", 0.3)
    async with serving(desk, Address()) as web, httpx.AsyncClient(trust_env=False) as client:
        ports = set()
        async with asyncio.timeout(10):
            for _ in range(12):
                answer = await client.get(f"http://127.0.0.1:{web.port}/healthz")
                ports.add(answer.extensions["network_stream"].get_extra_info("client_addr"))
                await asyncio.sleep(0.1)

    assert len(ports) == 1


# ---------------------------------------------------------------- files


def started(desk: Desk, address: Address, credentials: Path | None = None) -> None:
    asyncio.run(WebServer(Exporter(desk), desk, address, credentials).start())


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_file_that_others_may_read_is_refused_with_the_cure(desk, tls, password_file, mode):
    password_file.chmod(mode)

    with pytest.raises(CredentialError) as caught:
        started(desk, Address(tls, password_file))

    cure = f"{password_file} has mode {mode:04o}: others may read it; chmod 0600 {password_file}"
    assert str(caught.value) == cure


def test_a_key_that_others_may_read_is_refused(desk, tmp_path, certificates):
    key = tmp_path / "server.key"
    shutil.copy(certificates.server_key, key)
    key.chmod(0o644)

    with pytest.raises(CredentialError, match="chmod 0600"):
        started(desk, Address(TlsConfig(certificates.server, key)))


def test_files_that_are_missing_or_something_else_are_told(desk, tmp_path, certificates, tls):
    not_there = tmp_path / "not_there"

    def why(files: TlsConfig) -> str:
        with pytest.raises(CredentialError) as caught:
            started(desk, Address(files))
        return str(caught.value)

    assert why(TlsConfig(not_there, certificates.server_key)).startswith(
        f"server.metrics_tls.certificate: {not_there} is not there"
    )
    assert why(TlsConfig(certificates.server, not_there)) == f"{not_there} cannot be read: No such file or directory"
    assert "no certificate with its key" in why(
        TlsConfig(certificates.server, certificates.client_ca.with_suffix(".key"))
    )
    locked = tmp_path / "locked.key"
    openssl(tmp_path, "genrsa", "-aes256", "-passout", "pass:secret word", "-out", "locked.key", "2048")
    locked.chmod(0o600)
    assert "the key is locked by a password" in why(TlsConfig(certificates.server, locked))
    (tmp_path / "ca.pem").write_text("nothing", encoding="utf-8")
    files = TlsConfig(certificates.server, certificates.server_key, tmp_path / "ca.pem")
    assert why(files).startswith(f"server.metrics_tls.client_ca: {tmp_path / 'ca.pem'} is no certificate in PEM")


async def test_a_secret_is_a_file_of_the_directory_that_is_given(desk, tmp_path, certificates):
    shutil.copy(certificates.server_key, tmp_path / "metrics-key")
    (tmp_path / "metrics-key").chmod(0o600)

    async with serving(desk, Address(TlsConfig(certificates.server, Secret("metrics-key"))), tmp_path) as web:
        assert (await get(web, trust=certificates)).status_code == 200


async def test_a_secret_is_found_where_systemd_puts_it(desk, tmp_path, certificates, monkeypatch):
    shutil.copy(certificates.server_key, tmp_path / "secret_metrics-key")
    (tmp_path / "secret_metrics-key").chmod(0o440)  # as an access list for our user shows
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))

    async with serving(desk, Address(TlsConfig(certificates.server, Secret("metrics-key")))) as web:
        assert (await get(web, trust=certificates)).status_code == 200


def test_a_secret_without_a_directory_is_told(desk, certificates, monkeypatch):
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)

    with pytest.raises(CredentialError, match="give --credentials DIR"):
        started(desk, Address(TlsConfig(certificates.server, Secret("metrics-key"))))
