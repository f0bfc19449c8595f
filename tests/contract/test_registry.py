"""The registry as its clients see it: Confluent's own client and plain HTTP, on both backends."""

from __future__ import annotations

import contextlib
import http.client
import io
import ipaddress
import json
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
import uuid
from datetime import datetime, timedelta, timezone

import fastavro
import pytest
from confluent_kafka.schema_registry import (
    ConfigCompatibilityLevel,
    Metadata,
    MetadataProperties,
    SchemaReference,
    SchemaRegistryClient,
    ServerConfig,
)
from confluent_kafka.schema_registry import Schema as Sent
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.error import SchemaRegistryError
from confluent_kafka.serialization import MessageField, SerializationContext
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.responses import Response

from tieline.api import ConfigError, Schema
from tieline.broker.kafka.broker import KafkaBroker
from tieline.broker.local.log import LocalLog
from tieline.broker.port import Broker
from tieline.http.connections import Limits
from tieline.http.passwords import hash_password, hash_token
from tieline.http.server import WebServer
from tieline.http.users import Account, Role, User, edit_users
from tieline.registry.http.server import RegistryConfig, RegistryServer
from tieline.registry.schema_topic import SchemaTopic, TopicSchemaStore

MEDIA = "application/vnd.schemaregistry.v1+json"
READING = Schema.named("volttron.DeviceReading")


def record(*fields, name="lab.R"):
    space, _, short = name.rpartition(".")
    return json.dumps({"type": "record", "name": short, "namespace": space, "fields": list(fields)})


INT = record({"name": "n", "type": "int"})
LONG = record({"name": "n", "type": "long"})
TEXT = record({"name": "n", "type": "string"})
DEEP = json.loads("[" * 100 + "]" * 100)
MANY = [{"name": f"n{n}", "subject": "s", "version": 1} for n in range(5_000)]
MORE = record({"name": "n", "type": "long"}, {"name": "m", "type": ["null", "int"], "default": None})


@pytest.fixture(scope="module", params=["local", pytest.param("kafka", marks=pytest.mark.kafka)])
def broker(request, tmp_path_factory):
    """A backend. All tests share its topic, so each uses its own subjects."""
    opened: Broker
    if request.param == "local":
        opened = LocalLog.open(tmp_path_factory.mktemp("registry"))
    else:
        bootstrap = request.getfixturevalue("kafka_bootstrap")
        opened = KafkaBroker(bootstrap, {}, offsets_topic="", call_timeout=10.0)
    yield opened
    opened.close()


@pytest.fixture
def serve(broker):
    """Starts registries for one test."""
    with contextlib.ExitStack() as running:
        yield lambda **settings: running.enter_context(registry(broker, **settings))


@pytest.fixture(scope="module")
def url(broker):
    with registry(broker) as url:
        yield url


@contextlib.contextmanager
def registry(broker, **settings):
    flat = {"listen": "127.0.0.1:0", **{k.replace("_", "."): str(v) for k, v in settings.items()}}
    server = RegistryServer(SchemaTopic(broker), RegistryConfig.parse(flat))
    server.start()
    yield server.url
    server.stop()


@pytest.fixture
def client(url):
    with SchemaRegistryClient({"url": url}) as client:
        yield client


@pytest.fixture
def subject():
    return f"s-{uuid.uuid4().hex[:12]}"


def ask(url, method="GET", body=None, **headers):
    """Return status and body, as a client without a library gets them."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    all_headers = {"Content-Type": MEDIA, **{k.replace("_", "-"): v for k, v in headers.items()}}
    request = urllib.request.Request(url, data, all_headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def read_as_worker(broker, schema_id):
    """Return a schema as a worker reads it. Kafka shows the end of a transaction only after a moment."""
    deadline = time.monotonic() + 20
    store = TopicSchemaStore(broker)
    while (schema := store.schema(schema_id)) is None:
        assert time.monotonic() < deadline, f"id {schema_id} is not visible"
    return schema


def error_of(call, *args, **kwargs):
    with pytest.raises(SchemaRegistryError) as caught:
        call(*args, **kwargs)
    return caught.value.http_status_code, caught.value.error_code


def test_confluents_deserializer_and_ours_read_what_its_serializer_writes(client, broker, subject):
    context = SerializationContext(subject, MessageField.VALUE)
    serializer = AvroSerializer(client, MORE)
    data = serializer({"n": 7, "m": None}, context)
    assert AvroDeserializer(client)(data, context) == {"n": 7, "m": None}
    assert data is not None
    schema_id = int.from_bytes(data[1:5], "big")
    assert read_as_worker(broker, schema_id).definition == json.loads(MORE)
    assert client.get_latest_version(f"{subject}-value").version == 1


def test_a_schema_is_registered_once_and_has_one_id_under_every_subject(client, subject):
    first = client.register_schema(subject, Sent(INT, "AVRO"))
    assert (
        client.register_schema(f"{subject}-b", Sent(json.dumps(json.loads(INT), indent=3), "AVRO")) == first
    )
    registered = client.lookup_schema(subject, Sent(INT, "AVRO"))
    assert (registered.schema_id, registered.version, registered.subject) == (first, 1, subject)
    assert json.loads(client.get_schema(first).schema_str) == json.loads(INT)
    assert {subject, f"{subject}-b"} <= set(client.get_subjects())


def test_a_schema_that_the_level_forbids_is_rejected_and_the_field_is_named(client, subject):
    client.register_schema(subject, Sent(INT, "AVRO"))
    assert client.test_compatibility(subject, Sent(LONG, "AVRO"))
    assert not client.test_compatibility(subject, Sent(TEXT, "AVRO"))
    with pytest.raises(SchemaRegistryError, match="'n' is string here and int there") as caught:
        client.register_schema(subject, Sent(TEXT, "AVRO"))
    assert (caught.value.http_status_code, caught.value.error_code) == (409, 40901)
    client.set_config(subject, ServerConfig(ConfigCompatibilityLevel.NONE))
    assert client.get_config(subject).compatibility_level is ConfigCompatibilityLevel.NONE
    client.register_schema(subject, Sent(TEXT, "AVRO"))
    assert client.get_versions(subject) == [1, 2]


@pytest.mark.parametrize(
    ("level", "old", "new", "good"),
    [
        ("BACKWARD", [INT], LONG, True),
        ("BACKWARD", [LONG], INT, False),
        ("BACKWARD", [TEXT, INT], LONG, True),
        ("BACKWARD_TRANSITIVE", [TEXT, INT], LONG, False),
        ("FORWARD", [LONG], INT, True),
        ("FORWARD", [INT], LONG, False),
        ("FORWARD_TRANSITIVE", [TEXT, LONG], INT, False),
        ("FULL", [LONG], MORE, True),
        ("FULL", [INT], LONG, False),
        ("FULL_TRANSITIVE", [INT, LONG], MORE, False),
        ("NONE", [INT], TEXT, True),
    ],
)
def test_each_level_accepts_and_rejects_what_it_should(url, subject, level, old, new, good):
    ask(f"{url}/config/{subject}", "PUT", {"compatibility": "NONE"})
    for schema in old:
        assert ask(f"{url}/subjects/{subject}/versions", "POST", {"schema": schema})[0] == 200
    assert ask(f"{url}/config/{subject}", "PUT", {"compatibility": level}) == (200, {"compatibility": level})
    path = f"{url}/compatibility/subjects/{subject}/versions?verbose=true"
    answer = ask(path, "POST", {"schema": new})[1]
    assert answer["is_compatible"] is good
    assert bool(answer["messages"]) is not good
    status = ask(f"{url}/subjects/{subject}/versions", "POST", {"schema": new})[0]
    assert status == (200 if good else 409)


def test_every_schema_is_compatible_with_a_subject_without_versions(client, url, subject):
    """As in Confluent's registry since 7.2.1. Its clients treat all but ``true`` as incompatible."""

    def check(version="", schema=INT, query=""):
        path = f"{url}/compatibility/subjects/{subject}/versions{version}{query}"
        status, answer = ask(path, "POST", {"schema": schema})
        return (status, answer.get("is_compatible", answer.get("error_code")), *answer.get("messages", []))

    assert client.test_compatibility(subject, Sent(INT, "AVRO")) is True
    assert check("/latest") == check("/-1") == check() == (200, True)
    assert check("/latest", query="?verbose=true") == (200, True)
    assert check("/1") == (404, 40402)
    assert check("/0") == check("/x") == (422, 42202)
    assert check("/latest", "{") == check("", "{") == (422, 42201)
    status, compatible, message = check("/latest", "{", query="?verbose=true")
    assert (status, compatible) == (200, False)
    assert "not an Avro schema" in message
    client.register_schema(subject, Sent(INT, "AVRO"))
    client.register_schema(subject, Sent(LONG, "AVRO"))
    assert check("/latest", TEXT) == check("/2", TEXT) == (200, False)
    assert check("/7", TEXT) == (404, 40402)
    client.delete_version(subject, 2)
    assert check("/2") == (404, 40402)
    assert check("/latest", INT) == (200, True)  # of version 1
    client.delete_subject(subject)
    assert check("/latest", TEXT) == check("", TEXT) == (200, True)
    assert check("/1", TEXT) == (404, 40402)


def test_a_subject_is_first_deleted_softly_and_its_id_is_never_reused(client, subject):
    mine, next_ = (
        record({"name": "n", "type": type_}, name=f"lab.R{subject[2:]}") for type_ in ("int", "string")
    )
    first = client.register_schema(subject, Sent(mine, "AVRO"))
    assert error_of(client.delete_subject, subject, True) == (404, 40405)
    assert client.delete_subject(subject) == [1]
    assert error_of(client.get_latest_version, subject) == (404, 40401)
    assert json.loads(client.get_schema(first).schema_str) == json.loads(mine)
    assert client.delete_subject(subject, True) == [1]
    other = client.register_schema(subject, Sent(next_, "AVRO"))
    assert other > first


def test_the_latest_version_is_never_a_deleted_one(client, url, subject):
    client.register_schema(subject, Sent(INT, "AVRO"))
    client.register_schema(subject, Sent(LONG, "AVRO"))
    assert client.delete_version(subject, 2) == 2
    assert ask(f"{url}/subjects/{subject}/versions/latest?deleted=true")[1]["version"] == 1
    assert ask(f"{url}/subjects/{subject}/versions/latest", "DELETE") == (200, 1)
    assert ask(f"{url}/subjects/{subject}/versions/latest?permanent=true", "DELETE")[1]["error_code"] == 40402
    assert ask(f"{url}/subjects/{subject}/versions?deleted=true")[1] == [1, 2]


def test_a_prefix_of_contexts_selects_all_subjects(client, url, subject):
    client.register_schema(subject, Sent(INT, "AVRO"))
    for prefix in (":*:", ":.:", f":*:{subject}", subject):
        assert subject in ask(f"{url}/subjects?subjectPrefix={prefix}")[1]


def test_a_referenced_version_is_not_deleted_and_is_still_read(client, url, broker, subject):
    unit = f"lab.Unit{subject[2:]}"
    client.register_schema(
        subject, Sent(json.dumps({"type": "enum", "name": unit, "symbols": ["C"]}), "AVRO")
    )
    user = record({"name": "u", "type": unit}, name=f"lab.User{subject[2:]}")
    assert ask(f"{url}/subjects/{subject}-user/versions", "POST", {"schema": user})[1]["error_code"] == 42201
    sent = Sent(user, "AVRO", [SchemaReference(unit, subject, 1)])
    schema_id = client.register_schema(f"{subject}-user", sent)
    assert client.get_referenced_by(subject, 1) == [schema_id]
    assert error_of(client.delete_version, subject, 1) == (422, 42206)
    context = SerializationContext(subject, MessageField.VALUE)
    serializer = AvroSerializer(client, sent, conf={"subject.name.strategy": lambda *_: f"{subject}-user"})
    data = serializer({"u": "C"}, context)
    assert AvroDeserializer(client)(data, context) == {"u": "C"}
    ours = read_as_worker(broker, schema_id)
    assert fastavro.schemaless_reader(io.BytesIO(data[5:]), ours.parsed, None) == {"u": "C"}
    client.delete_subject(f"{subject}-user")
    client.delete_subject(subject)
    assert read_as_worker(broker, schema_id) == ours  # earlier records can still be read


def test_the_latest_version_with_given_metadata_is_found(client, subject):
    client.set_config(subject, ServerConfig(ConfigCompatibilityLevel.NONE))
    for text, owner in ((INT, "boiler"), (LONG, "boiler"), (TEXT, "roof")):
        owned = Metadata(tags=None, properties=MetadataProperties({"owner": owner}), sensitive=[])
        client.register_schema(subject, Sent(text, "AVRO", metadata=owned))
    assert client.get_latest_with_metadata(subject, {"owner": "boiler"}).version == 2
    assert client.get_latest_with_metadata(subject, {"owner": "roof"}).version == 3
    assert error_of(client.get_latest_with_metadata, subject, {"owner": "nobody"}) == (404, 40403)
    assert error_of(client.get_latest_with_metadata, f"{subject}-not", {"owner": "roof"}) == (404, 40401)


def test_a_read_only_subject_rejects_schemas_and_an_import_keeps_ids(client, url, subject):
    assert ask(f"{url}/mode/{subject}", "PUT", {"mode": "READONLY"}) == (200, {"mode": "READONLY"})
    assert error_of(client.register_schema, subject, Sent(INT, "AVRO")) == (422, 42205)
    assert ask(f"{url}/mode/{subject}", "PUT", {"mode": "IMPORT"})[0] == 200
    wanted = {"schema": record({"name": subject[2:], "type": "int"}), "id": 2_000_000, "version": 7}
    assert ask(f"{url}/subjects/{subject}/versions", "POST", wanted)[1]["id"] == 2_000_000
    assert ask(f"{url}/subjects/{subject}/versions")[1] == [7]
    assert ask(f"{url}/mode/{subject}", "DELETE") == (200, {"mode": "IMPORT"})
    assert error_of(client.get_mode, subject) == (404, 40409)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "error"),
    [
        ("GET", "/schemas/ids/1999999999", None, 404, 40403),
        ("GET", "/schemas/ids/x", None, 404, 40403),
        ("GET", "/schemas/ids/%C2%B2", None, 404, 40403),
        ("GET", "/subjects/none/versions", None, 404, 40401),
        ("GET", "/subjects/none/versions/1", None, 404, 40401),
        ("GET", "/config/none", None, 404, 40408),
        ("GET", "/mode/none", None, 404, 40409),
        ("GET", "/nothing", None, 404, 404),
        ("PATCH", "/subjects", {}, 405, 405),
        ("POST", "/subjects/s/versions", {}, 422, 42201),
        ("POST", "/subjects/s/versions", {"schema": "{"}, 422, 42201),
        ("POST", "/subjects/s/versions", {"schema": "[" * 10_000}, 422, 42201),
        ("POST", "/subjects/s/versions", {"schema": "{}", "schemaType": "PROTOBUF"}, 422, 42201),
        ("POST", "/subjects/s/versions", {"schema": '{"type":"fixed","name":"F","size":1e999}'}, 422, 42201),
        ("POST", "/subjects/s/versions", {"schema": '"int"', "id": 2**31}, 422, 422),
        ("POST", "/subjects/s/versions", b'{"schema": "int", "metadata": {"a": NaN}}', 422, 422),
        ("POST", "/subjects/s/versions", b'{"schema": "int", "metadata": {"a": 1e999}}', 422, 422),
        ("POST", "/subjects/s/versions", {"schema": '"int"', "metadata": {"a": DEEP}}, 422, 422),
        ("POST", "/subjects/s/versions", {"schema": '"int"', "references": MANY}, 422, 42201),
        ("POST", "/subjects/s/versions", b"{", 422, 422),
        ("POST", "/subjects/s/versions", b"[" * 100_000, 422, 422),
        ("POST", "/subjects/s/versions", b" " * 1_000_001, 413, 42209),
        ("PUT", "/config", {"compatibility": "SIDEWARDS"}, 422, 42203),
        ("PUT", "/mode", {"mode": "SLEEPING"}, 422, 42204),
        ("GET", "/subjects?limit=many", None, 422, 422),
    ],
)
def test_invalid_requests_are_rejected_with_confluents_codes(url, method, path, body, status, error):
    actual, answer = ask(url + path, method, body)
    assert (actual, answer["error_code"]) == (status, error)
    assert answer["message"]
    assert "Traceback" not in json.dumps(answer)


def test_other_media_types_are_rejected(url):
    assert ask(f"{url}/subjects/s/versions", "POST", {"schema": INT}, Content_Type="text/xml")[0] == 415
    assert ask(f"{url}/subjects", Accept="text/html")[0] == 406
    assert ask(f"{url}/subjects", Accept="text/html, */*;q=0.1")[0] == 200


def test_a_path_may_end_in_a_slash_and_a_subject_may_have_one(url, subject):
    assert ask(f"{url}/config/") == ask(f"{url}/config")
    with_slashes = f"{subject}%2Fa%2F"
    assert ask(f"{url}/subjects/{with_slashes}/versions/", "POST", {"schema": INT})[0] == 200
    assert f"{subject}/a/" in ask(f"{url}/subjects/?subjectPrefix={subject}")[1]
    assert ask(f"{url}/subjects/{with_slashes}/versions")[1] == [1]
    assert ask(f"{url}/subjects/{with_slashes}", "DELETE")[1] == [1]


def test_two_registries_at_once_never_give_one_id_to_two_schemas(serve, subject):
    urls = [serve(), serve()]
    ids: list[dict[int, int]] = [{}, {}]
    gate = threading.Barrier(2)

    def register(which):
        gate.wait(10)
        for n in range(8) if which == 0 else reversed(range(8)):
            schema = record({"name": f"f{n}_{subject[2:]}", "type": "int"})
            answer = ask(f"{urls[which]}/subjects/{subject}-{n}/versions", "POST", {"schema": schema})
            ids[which][n] = answer[1]["id"]

    threads = [threading.Thread(target=register, args=[which]) for which in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(ids[0]) == len(set(ids[0].values())) == 8
    assert ids[0] == ids[1]
    for n, schema_id in ids[0].items():
        answer = ask(f"{urls[n % 2]}/schemas/ids/{schema_id}/versions")
        assert answer == (200, [{"subject": f"{subject}-{n}", "version": 1}])


def test_a_worker_and_a_registry_on_one_broker_share_ids_and_rules(client, broker, subject):
    store = TopicSchemaStore(broker)
    schema_id = store.register(subject, READING)
    assert json.loads(client.get_schema(schema_id).schema_str) == READING.definition
    assert client.register_schema(subject, Sent(READING.text, "AVRO")) == schema_id


def test_a_client_without_credentials_is_refused_and_a_viewer_changes_nothing(serve, tmp_path):
    with edit_users(tmp_path / "users") as users:
        users.put(Account(User("ann", Role.OPERATOR), "password", hash_password("s3cret")))
        users.put(Account(User("ui", Role.VIEWER), "token", hash_token("t0ken")))
    url = serve(users_file=tmp_path / "users")
    assert ask(f"{url}/subjects")[0] == 401
    assert ask(f"{url}/subjects", Authorization="Basic !!!")[0] == 401
    with SchemaRegistryClient({"url": url, "basic.auth.user.info": "ann:s3cret"}) as client:
        assert client.register_schema("s", Sent(INT, "AVRO")) > 0
    with SchemaRegistryClient({"url": url, "basic.auth.user.info": "ann:other", "max.retries": 0}) as client:
        assert error_of(client.get_subjects)[0] == 401
    bearer = {"Authorization": "Bearer t0ken"}
    assert "s" in ask(f"{url}/subjects", **bearer)[1]
    for path in ("/subjects/s/versions", "/subjects/s/versions/", "/subjects/s%2Fversions"):
        assert ask(url + path, "POST", {"schema": LONG}, **bearer)[0] == 403, path
    assert ask(f"{url}/subjects/s", "POST", {"schema": INT}, **bearer)[0] == 200
    assert ask(f"{url}/subjects/s", "DELETE", **bearer)[0] == 403


@pytest.fixture
def certificate(tmp_path):
    """A self-signed certificate and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(timezone.utc)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .sign(key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    (tmp_path / "cert.pem").write_bytes(certificate.public_bytes(pem))
    form = serialization.PrivateFormat.PKCS8
    (tmp_path / "key.pem").write_bytes(key.private_bytes(pem, form, plain))
    return tmp_path / "cert.pem", tmp_path / "key.pem"


def test_a_registry_with_a_certificate_speaks_only_https(serve, certificate):
    path, key = certificate
    url = serve(ssl_certificate_location=path, ssl_key_location=key)
    assert url.startswith("https://127.0.0.1:")
    with SchemaRegistryClient({"url": url, "ssl.ca.location": str(path)}) as client:
        schema_id = client.register_schema("secret", Sent(INT, "AVRO"))
        assert client.lookup_schema("secret", Sent(INT, "AVRO")).schema_id == schema_id
    with pytest.raises((urllib.error.URLError, ConnectionError, http.client.HTTPException)):
        ask(url.replace("https", "http"))


def test_clients_that_do_not_finish_the_tls_handshake_do_not_block_others(certificate):
    async def app(scope, receive, send):
        await Response("here")(scope, receive, send)

    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    server = WebServer(app, listener, Limits(connections=1, head=0.3), name="test", certificate=certificate)
    server.start()
    try:
        with contextlib.ExitStack() as silent:
            clients = [silent.enter_context(socket.create_connection(address, 60)) for _ in range(5)]
            trusted = ssl.create_default_context(cafile=certificate[0])
            url = f"https://127.0.0.1:{address[1]}/"
            with urllib.request.urlopen(url, timeout=60, context=trusted) as answer:
                assert answer.read() == b"here"
            assert [client.recv(1) for client in clients] == [b""] * 5
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"listen": "0.0.0.0:8081"},
            "Create a users file with `tieline users add` and set users.file, or listen",
        ),
        ({"listen": "[::]:8081"}, "other machines can reach"),
        ({"listen": "127.0.0.1.example.com:8081"}, "other machines can reach"),
        ({"listen": "127.0.0.1"}, "is not HOST:PORT"),
        ({"users_file": "none"}, "No such file"),
        ({"ssl_key_location": "key.pem"}, "must be set together"),
        ({"ssl_key_location": "none", "ssl_certificate_location": "none"}, "FileNotFoundError"),
    ],
)
def test_settings_that_cannot_be_served_are_rejected_before_the_server_listens(settings, message):
    flat = {name.replace("_", "."): value for name, value in settings.items()}
    with pytest.raises(ConfigError, match=message):
        RegistryConfig.parse(flat)
