"""Postgres as the services, their neighbours and an operator meet it. What damages something does it to a second
installation, in a namespace of its own."""

from __future__ import annotations

import secrets as random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import kubernetes
import pytest
from cluster_client import EXEC_SECONDS, Client, Pods
from confinement import confined, confinements
from controller import Inventory
from exposition import metrics
from leaks import leaked
from postgres_installation import Installation, leader, members, sign_in, superuser

NAMESPACE, OWN = "infrastructure", "molecule-postgres-own"
NAME = "app.kubernetes.io/name=postgres"
HOST, POOLER = "postgres.infrastructure.svc", "pgbouncer.infrastructure.svc"
IN_SYNC = [("Leader", "running"), ("Sync Standby", "streaming")]
UNSAFE_METHODS = {"trust", "password", "md5", "ident"}

pytestmark = [pytest.mark.explain(NAMESPACE), pytest.mark.explain(OWN)]


def insert(ca: str, login: dict[str, Any], rows: int) -> list[int]:
    """In the cluster: insert numbers, each tried once, until so many were acknowledged; return those."""
    import asyncio
    import ssl

    import asyncpg

    async def write() -> list[int]:
        trust, connection = ssl.create_default_context(cadata=ca), None
        acknowledged: list[int] = []
        number = 0
        while len(acknowledged) < rows:
            number += 1
            try:
                connection = connection or await asyncpg.connect(timeout=2, ssl=trust, **login)
                await asyncio.wait_for(connection.execute("INSERT INTO acknowledged VALUES ($1)", number), 3)
                acknowledged.append(number)
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
                if connection is not None:
                    connection.terminate()
                connection = None
                await asyncio.sleep(0.1)
        return acknowledged

    return asyncio.run(write())


def share(ca: str, login: dict[str, Any], clients: int) -> tuple[int, int, int]:
    """In the cluster: many clients at once, each with a statement that it has prepared; return how many there were,
    over how many of the server's sessions, and how many answers were wrong."""
    import asyncio
    import ssl

    import asyncpg

    async def one(number: int, trust: ssl.SSLContext) -> tuple[set[int], int]:
        connection = await asyncpg.connect(timeout=60, ssl=trust, **login)
        try:
            statement = await connection.prepare("SELECT pg_backend_pid() AS pid, $1::integer + 1 AS next")
            rows = [await statement.fetchrow(number + offset) for offset in range(20)]
        finally:
            await connection.close()
        return {row["pid"] for row in rows}, sum(row["next"] != number + i + 1 for i, row in enumerate(rows))

    async def all_of_them() -> tuple[int, int, int]:
        trust = ssl.create_default_context(cadata=ca)
        found = await asyncio.gather(*(one(number, trust) for number in range(clients)))
        return len(found), len(set().union(*(pids for pids, _ in found))), sum(wrong for _, wrong in found)

    return asyncio.run(all_of_them())


def ask(url: str, method: str = "GET") -> tuple[int, str]:
    """In the cluster: status and body of an answer over HTTP."""
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def shake_hands(host: str, ca: str, name: str, port: int = 5432) -> str:
    """In the cluster: the version of TLS that is agreed on with who is called by that name, or the kind of the
    refusal; without a CA those of the system are believed."""
    import socket
    import ssl

    context = ssl.create_default_context(cadata=ca or None)
    try:
        with socket.create_connection((host, port), timeout=10) as plain:
            plain.sendall(bytes.fromhex("0000000804d2162f"))  # SSLRequest
            if plain.recv(1) != b"S":
                return "no TLS"
            with context.wrap_socket(plain, server_hostname=name) as wrapped:
                return str(wrapped.version())
    except OSError as error:
        return type(error).__name__


@pytest.fixture(scope="session")
def logins(secrets: dict[str, Any], definitions: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return how each service signs in."""
    return {
        name: {
            "host": HOST,
            "user": service["database"]["user"],
            "database": service["database"]["name"],
            "password": secrets["postgres_databases"][name],
        }
        for name, service in definitions.items()
        if "database" in service
    }


# --- who gets in


@pytest.fixture
def try_all(client: Client, ca: str) -> Any:
    """Return a function that signs in to the platform's Postgres in several ways."""

    def attempts(logins: list[dict[str, Any]], **more: Any) -> list[str]:
        answers: list[str] = client.call(sign_in, **{"ca": ca, "attempts": logins} | more)
        return answers

    return attempts


def test_each_service_reaches_its_own_database(try_all: Any, logins: dict[str, dict[str, Any]]) -> None:
    statement = "SELECT current_user || '@' || current_database() || ' ' || pg_is_in_recovery()"
    answers = try_all(list(logins.values()), statement=statement)
    assert answers == [f"{login['user']}@{login['database']} false" for login in logins.values()]


def test_no_service_reaches_the_database_of_another(try_all: Any, logins: dict[str, dict[str, Any]]) -> None:
    foreign = [
        one | {"database": two["database"]} for one in logins.values() for two in logins.values() if one is not two
    ]
    built_in = [login | {"database": name} for login in logins.values() for name in ("postgres", "template1")]
    assert set(try_all(foreign + built_in)) == {"refused: InsufficientPrivilegeError"}


def test_a_wrong_password_and_none_are_refused(try_all: Any, logins: dict[str, dict[str, Any]]) -> None:
    neighbour = dict(zip(logins, [*list(logins)[1:], next(iter(logins))], strict=True))
    wrong = [login | {"password": "wrong"} for login in logins.values()]
    borrowed = [login | {"password": logins[neighbour[name]]["password"]} for name, login in logins.items()]
    none = [{key: value for key, value in login.items() if key != "password"} for login in logins.values()]
    assert set(try_all(wrong + borrowed)) == {"refused: InvalidPasswordError"}
    assert all(answer.startswith("refused") for answer in try_all(none))


def test_without_tls_nobody_gets_in(try_all: Any, logins: dict[str, dict[str, Any]], secrets: dict[str, Any]) -> None:
    copier = {"host": HOST, "user": "replicator", "password": secrets["postgres_replication_password"]}
    everybody = [*logins.values(), copier | {"database": "postgres"}]
    assert set(try_all(everybody, ca="")) == {"refused: InvalidAuthorizationSpecificationError"}


def test_its_certificate_is_of_the_platforms_ca_for_its_names(client: Client, ca: str) -> None:
    for name in (HOST, f"{HOST}.cluster.local", "postgres-replica.infrastructure.svc"):
        assert client.call(shake_hands, host=HOST, ca=ca, name=name) == "TLSv1.3"
    assert client.call(shake_hands, host=HOST, ca=ca, name="redis.infrastructure.svc") == "SSLCertVerificationError"
    assert client.call(shake_hands, host=HOST, ca="", name=HOST) == "SSLCertVerificationError"


def test_every_session_over_the_network_is_encrypted(pods: Pods, try_all: Any, logins: dict[str, Any]) -> None:
    """Those of the services and of the other members, as the server itself sees them."""
    mine = "SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    assert set(try_all(list(logins.values()), statement=mine)) == {"TLSv1.3"}
    sessions = "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE client_addr IS NOT NULL"
    assert "f" not in superuser(pods, NAMESPACE, sessions)


def test_the_superuser_does_not_come_in_over_the_network(try_all: Any, secrets: dict[str, Any]) -> None:
    login = {"host": HOST, "user": "postgres", "password": secrets["postgres_superuser_password"]}
    attempts = [login | {"database": name} for name in ("postgres", "auth_db")]
    assert set(try_all(attempts)) == {"refused: InvalidAuthorizationSpecificationError"}


def test_who_copies_the_data_reads_no_service(try_all: Any, secrets: dict[str, Any]) -> None:
    login = {"host": HOST, "user": "replicator", "password": secrets["postgres_replication_password"]}
    assert try_all([login | {"database": "auth_db"}])[0].startswith("refused")


def test_no_service_may_more_than_own_its_database(pods: Pods, logins: dict[str, dict[str, Any]]) -> None:
    users = ", ".join(f"'{login['user']}'" for login in logins.values())
    powers = "rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls"
    assert superuser(pods, NAMESPACE, f"SELECT rolname FROM pg_roles WHERE rolname IN ({users}) AND ({powers})") == []


# --- how it is kept


def test_pages_have_checksums_and_writes_are_durable(pods: Pods) -> None:
    names = ["data_checksums", "fsync", "synchronous_commit", "full_page_writes"]
    found = superuser(pods, NAMESPACE, "; ".join(f"SHOW {name}" for name in names))
    assert dict(zip(names, found, strict=True)) == dict.fromkeys(names, "on")


def test_passwords_are_kept_and_sent_as_scram_only(pods: Pods) -> None:
    weak = "SELECT rolname FROM pg_authid WHERE rolpassword NOT LIKE 'SCRAM-SHA-256$%'"
    assert superuser(pods, NAMESPACE, weak) == []
    rules = superuser(pods, NAMESPACE, "SELECT type || ' ' || auth_method FROM pg_hba_file_rules")
    assert rules
    assert not [rule for rule in rules if rule.split()[1] in UNSAFE_METHODS]


def test_text_is_utf8_and_sorted_the_same_on_every_system(pods: Pods, logins: dict[str, dict[str, Any]]) -> None:
    names = ", ".join(f"'{login['database']}'" for login in logins.values())
    rows = superuser(
        pods,
        NAMESPACE,
        f"SELECT DISTINCT pg_encoding_to_char(encoding), datlocprovider FROM pg_database WHERE datname IN ({names})",
    )
    assert rows == ["UTF8|b"]


def test_the_service_leads_to_the_leader(pods: Pods, cluster: Any) -> None:
    slices = cluster.items(
        f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices",
        labelSelector="kubernetes.io/service-name=postgres",
    )
    addresses = [address for part in slices for end in part["endpoints"] or [] for address in end["addresses"]]
    assert addresses == [pods.core.read_namespaced_pod(leader(pods, NAMESPACE), NAMESPACE).status.pod_ip]


# --- the pooler


def through(login: dict[str, Any]) -> dict[str, Any]:
    """Return the same login, by the pooler."""
    return login | {"host": POOLER, "port": 6432}


def test_through_the_pooler_each_service_reaches_its_own_database(
    try_all: Any, logins: dict[str, dict[str, Any]]
) -> None:
    statement = "SELECT current_user || '@' || current_database() || ' ' || pg_is_in_recovery()"
    answers = try_all([through(login) for login in logins.values()], statement=statement)
    assert answers == [f"{login['user']}@{login['database']} false" for login in logins.values()]


def test_the_pooler_lets_in_nobody_that_postgres_would_not(
    try_all: Any, logins: dict[str, dict[str, Any]], secrets: dict[str, Any]
) -> None:
    neighbours = [
        one | {"database": two["database"]} for one in logins.values() for two in logins.values() if one is not two
    ]
    neighbours += [login | {"database": "postgres"} for login in logins.values()]
    assert set(try_all([*map(through, neighbours)])) == {"refused: InsufficientPrivilegeError"}
    wrong = [login | {"password": "wrong"} for login in logins.values()]
    wrong += [{**login, "database": "pgbouncer"} for login in logins.values()]
    own = {"replicator": "replication", "postgres": "superuser", "_pooler": "pooler", "_verifier": "verifier"}
    wrong += [
        {"user": user, "database": "auth_db", "password": secrets[f"postgres_{name}_password"]}
        for user, name in own.items()
    ]
    answers = try_all([*map(through, wrong)])
    assert all(answer.startswith("refused") for answer in answers), answers
    assert set(try_all([through(login) for login in logins.values()], ca="")) == {"refused: ProtocolViolationError"}


def test_the_poolers_certificate_is_of_the_platforms_ca_for_its_name(client: Client, ca: str) -> None:
    arguments = {"host": POOLER, "port": 6432}
    assert client.call(shake_hands, ca=ca, name=POOLER, **arguments) == "TLSv1.3"
    assert client.call(shake_hands, ca=ca, name="minio.infrastructure.svc", **arguments) == "SSLCertVerificationError"
    assert client.call(shake_hands, ca="", name=POOLER, **arguments) == "SSLCertVerificationError"


def test_clients_share_connections_and_their_prepared_statements_follow(
    client: Client, ca: str, logins: dict[str, dict[str, Any]]
) -> None:
    clients, servers, wrong = client.call(share, ca=ca, login=through(next(iter(logins.values()))), clients=60)
    assert (clients, wrong) == (60, 0)
    assert 1 <= servers <= 20


def test_the_services_come_through_the_pooler(pods: Pods, logins: dict[str, dict[str, Any]]) -> None:
    """The server sees where its sessions come from: requests from poolers, and no password in their settings."""
    poolers = {
        pods.core.read_namespaced_pod(name, NAMESPACE).status.pod_ip
        for name in pods.names(NAMESPACE, "app.kubernetes.io/name=pgbouncer")
    }
    assert len(poolers) >= 2
    query = "SELECT DISTINCT host(client_addr) FROM pg_stat_activity WHERE usename = '{}'"
    for login in logins.values():
        # A migration or a schedule, which go to Postgres itself, ends soon.
        look = partial(superuser, pods, NAMESPACE, query.format(login["user"]))
        assert pods.eventually(lambda: set(look()) - poolers, set()) == set(), login["user"]  # noqa: B023


# --- its members


def test_its_members_are_in_sync_and_on_different_hosts(pods: Pods, inventory: Inventory) -> None:
    wanted = [("Leader", "running"), *[("Sync Standby", "streaming")] * (inventory.variable("postgres_members") - 1)]
    assert len(wanted) > 1
    # The standby of one that was just restarted is in sync a moment later.
    assert pods.eventually(lambda: sorted(members(pods, NAMESPACE).values()), wanted) == wanted
    nodes = [pods.core.read_namespaced_pod(name, NAMESPACE).spec.node_name for name in pods.names(NAMESPACE, NAME)]
    assert len(set(nodes)) == len(wanted)
    standby = superuser(pods, NAMESPACE, "SELECT sync_state, ssl FROM pg_stat_replication JOIN pg_stat_ssl USING (pid)")
    assert standby == ["sync|t"]


def test_an_eviction_takes_one_member_at_a_time(pods: Pods) -> None:
    policy: Any = kubernetes.client.PolicyV1Api(pods.api)
    budget = policy.read_namespaced_pod_disruption_budget("postgres", NAMESPACE)
    assert pods.eventually(
        lambda: policy.read_namespaced_pod_disruption_budget("postgres", NAMESPACE).status.disruptions_allowed, 1
    )
    assert budget.spec.max_unavailable == 1


def test_the_replicas_service_reads_and_does_not_write(try_all: Any, logins: dict[str, dict[str, Any]]) -> None:
    replicas = [login | {"host": "postgres-replica.infrastructure.svc"} for login in logins.values()]
    assert set(try_all(replicas, statement="SELECT pg_is_in_recovery()")) == {"True"}
    answers = try_all(replicas, statement="CREATE TABLE molecule_written (number integer)")
    assert set(answers) == {"refused: ReadOnlySQLTransactionError"}


def test_a_stranger_may_look_at_patroni_and_change_nothing(client: Client, pods: Pods, secrets: dict[str, Any]) -> None:
    address = f"http://{pods.core.read_namespaced_pod('postgres-0', NAMESPACE).status.pod_ip}:8008"
    assert client.call(ask, url=f"{address}/readiness")[0] == 200
    for path in ("restart", "switchover", "reload", "reinitialize"):
        assert client.call(ask, url=f"{address}/{path}", method="POST")[0] in (401, 403), path
    shown = client.call(ask, url=f"{address}/config")[1]
    assert leaked(secrets, shown) == []


def test_it_is_confined(pods: Pods, hosts: dict[str, Any]) -> None:
    found = confinements(pods, hosts, NAMESPACE, NAME)
    assert found == {where: confined(10005 if "/exporter " in where else 10003) for where in found}
    poolers = confinements(pods, hosts, NAMESPACE, "app.kubernetes.io/name=pgbouncer")
    assert poolers == dict.fromkeys(poolers, confined(10006))


def test_the_exporter_tells_how_each_member_is(client: Client, pods: Pods, logins: dict[str, dict[str, Any]]) -> None:
    replicas = 0.0
    for name in pods.names(NAMESPACE, NAME):
        address = pods.core.read_namespaced_pod(name, NAMESPACE).status.pod_ip
        seen = client.call(metrics, address=address, port=9187)
        assert seen["pg_up"] == 1, name
        failed = [sample for sample, value in seen.items() if "collector_success" in sample and value != 1]
        assert (seen["pg_exporter_last_scrape_error"], failed) == (0, []), name
        for login in logins.values():
            assert seen[f'pg_database_size_bytes{{datname="{login["database"]}"}}'] > 0
        replicas += seen["pg_replication_is_replica"]
    assert replicas == len(pods.names(NAMESPACE, NAME)) - 1


def test_the_exporters_user_comes_in_from_nowhere_else(pods: Pods, try_all: Any) -> None:
    attempts = [
        {"host": HOST, "user": "_monitor", "database": "postgres", "password": word} for word in ("", "_monitor")
    ]
    assert all(answer.startswith("refused") for answer in try_all(attempts))
    # What the server's own user is in a pod does not become the exporter's by asking for it.
    command = ["psql", "-XAtqc", "SELECT 1", "-U", "_monitor", "-d", "postgres"]
    ended = pods.execute(NAMESPACE, "postgres-0", *command, container="postgres")
    assert "Peer authentication failed" in ended.errors
    command = ["psql", "-XAtqc", "SELECT 1", "-U", "postgres", "-h", "/run/postgresql"]
    ended = pods.execute(NAMESPACE, "postgres-0", *command, container="exporter")
    assert "Peer authentication failed" in ended.errors


def test_no_password_is_in_the_environment_or_on_a_command_line(pods: Pods, secrets: dict[str, Any]) -> None:
    read = "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null; true"
    shown = pods.execute(NAMESPACE, "postgres-0", "bash", "-c", read, container="postgres").output
    assert "PATRONI_NAME" in shown
    assert leaked(secrets, shown) == []


# --- one of the test's own


@pytest.fixture(scope="module")
def growing(pods: Pods) -> Iterator[None]:
    """Make a storage class as the lab's own, whose volumes may ask for more. The disk behind is the same."""
    api: Any = kubernetes.client.StorageV1Api(pods.api)
    classes = {item.metadata.name: item for item in api.list_storage_class().items}
    if OWN in classes:  # of a run that was broken off
        api.delete_storage_class(OWN)
    api.create_storage_class(
        {
            "metadata": {"name": OWN, "labels": {"app.kubernetes.io/part-of": "slipway-test"}},
            "provisioner": classes["local-path"].provisioner,
            "volumeBindingMode": "WaitForFirstConsumer",
            "allowVolumeExpansion": True,
        }
    )
    yield
    api.delete_storage_class(OWN)


@pytest.fixture(scope="module")
def own(pods: Pods, state: Any, growing: None) -> Iterator[Installation]:
    """Return a second installation, made from nothing."""
    image = pods.core.read_namespaced_pod("postgres-0", NAMESPACE).spec.containers[0].image
    with pods.namespace(OWN):
        installation = Installation(OWN, state, image)
        installation.variables["postgres_storage_class"] = OWN
        check = installation.apply("--check")
        assert check.code == 0, check.output
        assert pods.core.list_namespaced_config_map(OWN, label_selector=NAME).items == []
        run = installation.apply()
        assert run.code == 0, run.output
        hidden = {"password": installation.password, "key": installation.variables["postgres_certificate_key"]}
        assert leaked(hidden, run.output) == []
        yield installation


def test_a_second_run_changes_nothing(own: Installation) -> None:
    run = own.apply()
    assert run.code == 0, run.output
    assert run.changed == 0, run.output


def test_data_outlives_the_pod(own: Installation, client: Client, pods: Pods) -> None:
    statement = "CREATE TABLE kept AS SELECT generate_series(1, 1000) AS number"
    assert own.query(client, statement) == "None"
    killed = pods.core.read_namespaced_pod("postgres-0", OWN).metadata.uid
    pods.core.delete_namespaced_pod("postgres-0", OWN, grace_period_seconds=0)
    pods.wait_ready(OWN, "postgres-0", other_than=killed)
    answer = pods.eventually(lambda: own.query(client, "SELECT sum(number) FROM kept"), "500500")
    assert answer == "500500"


def test_a_new_password_takes_the_place_of_the_old_one(own: Installation, client: Client) -> None:
    before, own.password = own.login, random.token_urlsafe(24)
    run = own.apply()
    assert run.code == 0, run.output
    assert run.changed > 0
    assert leaked({"password": own.password}, run.output) == []
    answers = client.call(sign_in, ca=own.ca, attempts=[before, own.login])
    assert answers == ["refused: InvalidPasswordError", "1"]


def test_a_new_certificate_reaches_the_running_server(own: Installation, client: Client, pods: Pods) -> None:
    """Without a restart: who is signed in stays."""
    old, running = own.ca, pods.core.read_namespaced_pod("postgres-0", OWN).metadata.uid
    started = superuser(pods, OWN, "SELECT pg_postmaster_start_time()")
    own.renew()
    run = own.apply()
    assert run.code == 0, run.output
    assert own.query(client, "SELECT sum(number) FROM kept") == "500500"
    assert client.call(shake_hands, host=own.host, ca=old, name=own.host) == "SSLCertVerificationError"
    assert pods.core.read_namespaced_pod("postgres-0", OWN).metadata.uid == running
    assert superuser(pods, OWN, "SELECT pg_postmaster_start_time()") == started
    assert own.apply().changed == 0


def test_volumes_grow_by_the_inventory_and_never_shrink(own: Installation, pods: Pods) -> None:
    apps: Any = kubernetes.client.AppsV1Api(pods.api)

    def sizes() -> set[str]:
        claims = pods.core.list_namespaced_persistent_volume_claim(OWN).items
        found = [*claims, *apps.read_namespaced_stateful_set("postgres", OWN).spec.volume_claim_templates]
        return {claim.spec.resources.requests["storage"] for claim in found}

    running = pods.core.read_namespaced_pod("postgres-0", OWN).metadata.uid
    assert sizes() == {"1Gi"}
    own.variables |= {"postgres_storage_size": "2Gi"}
    run = own.apply()
    assert run.code == 0, run.output
    assert sizes() == {"2Gi"}
    assert pods.core.read_namespaced_pod("postgres-0", OWN).metadata.uid == running
    assert own.apply().changed == 0
    run = own.apply(postgres_storage_size="1Gi")
    assert run.code != 0
    assert "postgres_storage_size: found 1Gi, wanted at least 2Gi" in run.failure
    assert sizes() == {"2Gi"}


def test_volumes_of_a_class_that_cannot_grow_are_left_alone(own: Installation, pods: Pods) -> None:
    storage: Any = kubernetes.client.StorageV1Api(pods.api)
    storage.patch_storage_class(OWN, {"allowVolumeExpansion": False})
    run = own.apply(postgres_storage_size="3Gi")
    assert run.code != 0
    assert "postgres_storage_size: found 3Gi, wanted 2Gi" in run.failure
    assert f"its storage class {OWN} does not let volumes grow" in run.failure
    claims = pods.core.list_namespaced_persistent_volume_claim(OWN).items
    assert {claim.spec.resources.requests["storage"] for claim in claims} == {"2Gi"}


def test_a_second_member_joins_the_running_one(own: Installation, client: Client, pods: Pods) -> None:
    running = pods.core.read_namespaced_pod("postgres-0", OWN).metadata.uid
    own.variables |= {"postgres_members": 2}
    run = own.apply()
    assert run.code == 0, run.output
    assert pods.eventually(lambda: sorted(members(pods, OWN).values()), IN_SYNC) == IN_SYNC
    assert pods.core.read_namespaced_pod("postgres-0", OWN).metadata.uid == running
    for member in ("postgres-0", "postgres-1"):
        assert superuser(pods, OWN, "SELECT sum(number) FROM kept", member, "one_db") == ["500500"]
    assert own.apply().changed == 0


def test_the_leaders_pod_is_deleted_and_no_acknowledged_row_is_lost(
    own: Installation, client: Client, pods: Pods, state: Path
) -> None:
    assert own.query(client, "CREATE TABLE acknowledged (number integer)") == "None"
    old = leader(pods, OWN)
    # With a way of its own into the pod: making a connection changes the one that makes it.
    writer = Client(Pods(state / "kubeconfig"), client.namespace, client.name)
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(writer.call, insert, ca=own.ca, login=own.login, rows=2500)

        def written() -> bool:
            return int(superuser(pods, OWN, "SELECT count(*) FROM acknowledged", old, "one_db")[0]) >= 300

        assert pods.eventually(written, True), "the writer does not write"
        pods.core.delete_namespaced_pod(old, OWN, grace_period_seconds=0)
        acknowledged = writing.result(timeout=EXEC_SECONDS)
    # The last rows may have come before the pod was gone.
    assert pods.eventually(lambda: leader(pods, OWN) != old, True), f"{old} still leads"
    assert pods.eventually(lambda: sorted(members(pods, OWN).values()), IN_SYNC) == IN_SYNC
    assert len(acknowledged) == len(set(acknowledged)) == 2500
    for member in ("postgres-0", "postgres-1"):
        rows = superuser(pods, OWN, "SELECT number FROM acknowledged", member, "one_db")
        assert set(acknowledged) - set(map(int, rows)) == set(), f"lost on {member}"


def test_a_changed_setting_reaches_every_running_member(own: Installation, pods: Pods) -> None:
    """One that takes a reload, and one that takes a restart."""
    uids = {name: pods.core.read_namespaced_pod(name, OWN).metadata.uid for name in pods.names(OWN, NAME)}
    own.variables |= {
        "postgres_parameters": {"work_mem": "6MB", "max_connections": 120},
        "postgres_synchronous_strict": True,
    }
    run = own.apply()
    assert run.code == 0, run.output
    assert run.changed > 0
    show = "SELECT current_setting('work_mem'), current_setting('max_connections')"
    for member in uids:
        assert pods.eventually(partial(superuser, pods, OWN, show, member), ["6MB|120"]) == ["6MB|120"], member
    shown = pods.execute(OWN, "postgres-0", "patronictl", "show-config", container="postgres").output
    assert "synchronous_mode_strict: true" in shown
    assert {name: pods.core.read_namespaced_pod(name, OWN).metadata.uid for name in uids} == uids
    assert pods.eventually(lambda: sorted(members(pods, OWN).values()), IN_SYNC) == IN_SYNC
    assert own.apply().changed == 0


def test_uninstalled_and_installed_again_it_has_its_data(own: Installation, client: Client, pods: Pods) -> None:
    run = own.uninstall()
    assert run.code == 0, run.output
    assert pods.core.list_namespaced_pod(OWN, label_selector=NAME).items == []
    run = own.apply()
    assert run.code == 0, run.output
    assert pods.eventually(lambda: own.query(client, "SELECT sum(number) FROM kept"), "500500") == "500500"


def test_uninstalled_with_its_data_nothing_is_left(own: Installation, pods: Pods) -> None:
    run = own.uninstall(postgres_uninstall_data=True)
    assert run.code == 0, run.output
    assert pods.core.list_namespaced_persistent_volume_claim(OWN).items == []
    assert pods.core.list_namespaced_secret(OWN).items == []
    left = [item.metadata.name for item in pods.core.list_namespaced_config_map(OWN).items]
    assert left in ([], ["kube-root-ca.crt"])
