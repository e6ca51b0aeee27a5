"""How clicks reach the brokers: which client, over TLS or not, as whom; and what is said when a setting is wrong."""

import ipaddress
import json
import os
import subprocess
import sys
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from conftest import free_ports
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition

sys.path.insert(0, str(Path(__file__).parents[1] / "lambda_src"))

from clickstream_ingest import delivery

from clicklab import bootstrap, collector, servers

SECURITY = ("SECURITY_PROTOCOL", "SASL_MECHANISM", "SASL_USERNAME", "SASL_PASSWORD", "SSL_CAFILE")
PASSWORD = "between-us-8d41"


@pytest.fixture
def environment(monkeypatch):
    for name in SECURITY:
        monkeypatch.delenv(f"KAFKA_{name}", raising=False)
    return lambda **told: [monkeypatch.setenv(name, value) for name, value in told.items()]


@pytest.mark.parametrize(
    ("told", "named"),
    [
        pytest.param({"KAFKA_SECURITY_PROTOCOL": "TLS"}, "KAFKA_SECURITY_PROTOCOL", id="no-such-protocol"),
        pytest.param({"KAFKA_SECURITY_PROTOCOL": "SASL_SSL"}, "KAFKA_SASL_MECHANISM", id="no-mechanism"),
        pytest.param(
            {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512", "KAFKA_SASL_USERNAME": "me"},
            "KAFKA_SASL_PASSWORD",
            id="no-password",
        ),
        pytest.param(
            {"KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT", "KAFKA_SASL_MECHANISM": "AWS_MSK_IAM"}, "SASL_SSL", id="iam-in-the-clear"
        ),
        pytest.param({"KAFKA_SASL_USERNAME": "me", "KAFKA_SASL_PASSWORD": PASSWORD}, "SASL_SSL", id="user-without-protocol"),
    ],
)  # fmt: skip
def test_settings_that_do_not_go_together_are_named_and_the_password_is_not(environment, told, named):
    environment(**told)
    with pytest.raises(ValueError, match=named) as raised:
        delivery.Security.of_environment()
    assert PASSWORD not in str(raised.value)


def test_the_password_is_not_shown_with_the_other_settings(environment):
    environment(KAFKA_SECURITY_PROTOCOL="SASL_SSL", KAFKA_SASL_MECHANISM="SCRAM-SHA-512", KAFKA_SASL_USERNAME="me",
                KAFKA_SASL_PASSWORD=PASSWORD)  # fmt: skip
    told = delivery.Security.of_environment()
    assert told.password == PASSWORD
    assert PASSWORD not in repr(told)


def test_the_role_of_aws_is_for_kafka_python_and_the_other_client_says_so():
    role = delivery.Security("SASL_SSL", "AWS_MSK_IAM")
    nobody = [f"127.0.0.1:{free_ports(1)[0]}"]
    with pytest.raises(delivery.NotAcknowledged):  # the mechanism is accepted, only nobody is there
        delivery.client_class("kafka")(nobody, 200, 200, role)
    with pytest.raises(ValueError, match="CLICK_SINK=kafka"):
        delivery.client_class("kafka-confluent")(nobody, 200, 200, role)


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True
    )


def test_a_client_that_is_not_installed_is_named_with_the_way_out():
    ran = python(
        "import sys; sys.modules['confluent_kafka'] = None; import lambda_function", CLICK_SINK="kafka-confluent"
    )
    assert ran.returncode != 0
    assert "CLICK_SINK=kafka-confluent needs the package confluent-kafka" in ran.stderr
    assert "choose CLICK_SINK=kafka" in ran.stderr


@pytest.mark.parametrize(
    ("chosen", "imported"), [("log", set()), ("kafka", {"kafka"}), ("kafka-confluent", {"confluent_kafka"})]
)
def test_only_the_chosen_client_is_imported(chosen, imported):
    ran = python(
        "import sys, lambda_function; print(*sys.modules.keys() & {'kafka', 'confluent_kafka'})", CLICK_SINK=chosen
    )
    assert set(ran.stdout.split()) == imported


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself: the file of the broker, with its key, and the one clients trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "broker.pem").write_bytes(secret + made)
    (folder / "ca.pem").write_bytes(made)
    return folder / "broker.pem", folder / "ca.pem"


BROKER = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{inside},SASL_SSL://127.0.0.1:{outside},CONTROLLER://127.0.0.1:{controller}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT
sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
ssl.keystore.type=PEM
ssl.keystore.location={keystore}
log.dirs={folder}/log
offsets.topic.replication.factor=1
"""


@pytest.fixture(scope="module")
def guarded_broker(tmp_path_factory):
    """A real broker whose door takes only TLS with a password; a second, plain door is for the test to look inside.

    Yields the settings with which a collector gets in, and the address of the plain door.
    """
    folder = tmp_path_factory.mktemp("guarded")
    inside, outside, controller = free_ports(3)
    keystore, ca_file = certificate(folder)
    config = folder / "server.properties"
    config.write_text(
        BROKER.format(inside=inside, outside=outside, controller=controller, keystore=keystore, folder=folder)
    )
    java = [bootstrap.java(), "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx256m", "-Djava.net.preferIPv4Stack=true", "-cp",
            f"{bootstrap.jars_folder()}/kafka/*"]  # fmt: skip
    user = f"SCRAM-SHA-512=[name=collector,password={PASSWORD}]"
    subprocess.run([*java, "kafka.tools.StorageTool", "format", "-t", "WZ7c1MpyQBuSCkHb5mXqJQ", "-c", config, "--add-scram", user],
                   check=True, capture_output=True, timeout=120)  # fmt: skip
    with open(folder / "broker.log", "w") as log:
        broker = subprocess.Popen([*java, "kafka.Kafka", config], stdout=log, stderr=log)
    try:

        def not_usable():
            if broker.poll() is not None:
                raise AssertionError((folder / "broker.log").read_text()[-3000:])
            admin = KafkaAdminClient(bootstrap_servers=f"127.0.0.1:{inside}", bootstrap_timeout_ms=1000)
            try:
                admin.create_topics({"clickstream": {"num_partitions": 1, "replication_factor": 1}})
            finally:
                admin.close()

        servers.wait_for("the guarded broker", lambda: not_usable() or "", servers.START_TIMEOUT_S, quiet=True)
        yield {
            "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{outside}",
            "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
            "KAFKA_SASL_USERNAME": "collector",
            "KAFKA_SASL_PASSWORD": PASSWORD,
            "KAFKA_SSL_CAFILE": str(ca_file),
        }, f"127.0.0.1:{inside}"  # fmt: skip
    finally:
        broker.kill()
        broker.wait()


def event(event_id: str) -> dict:
    click = {"path": "/guarded/", "tag": "A", "timestamp": "2026-01-01T00:00:00Z", "event_id": event_id}
    return {
        "requestContext": {"requestId": "r-1", "http": {"method": "POST"}},
        "body": json.dumps(click),
        "isBase64Encoded": False,
    }


def ids_in_topic(address: str) -> list[str]:
    with KafkaConsumer(bootstrap_servers=address) as consumer:
        place = TopicPartition("clickstream", 0)
        consumer.assign([place])
        end = consumer.end_offsets([place])[place]
        consumer.seek_to_beginning(place)
        found = []
        while consumer.position(place) < end:
            found += [json.loads(record.value)["event_id"] for batch in consumer.poll(500).values() for record in batch]
        return found


@pytest.mark.servers
@pytest.mark.parametrize("chosen", ["kafka", "kafka-confluent"])
def test_clicks_reach_a_broker_that_asks_for_tls_and_a_password(guarded_broker, chosen):
    settings, plain_door = guarded_broker
    event_id = str(uuid.uuid4())
    with collector.function(CLICK_SINK=chosen, **settings) as function:
        assert function.invoke(event(event_id))["statusCode"] == 200, function.log()
    assert ids_in_topic(plain_door).count(event_id) == 1


@pytest.mark.servers
@pytest.mark.parametrize("chosen", ["kafka", "kafka-confluent"])
@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"KAFKA_SASL_PASSWORD": "not-" + PASSWORD}, id="another-password"),
        pytest.param({"KAFKA_SSL_CAFILE": ""}, id="an-authority-nobody-knows"),
        pytest.param({"KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT"}, id="in-the-clear"),
    ],
)
def test_a_collector_that_the_broker_does_not_let_in_says_503_and_keeps_the_password_to_itself(
    guarded_broker, chosen, wrong
):
    settings, plain_door = guarded_broker
    event_id = str(uuid.uuid4())
    with collector.function(CLICK_SINK=chosen, DELIVERY_TIMEOUT_MS="2000", **settings | wrong) as function:
        assert function.invoke(event(event_id))["statusCode"] == 503
        log = "\n".join(function.log())
    assert PASSWORD not in log
    assert '"message":"not acknowledged"' in log
    assert event_id not in ids_in_topic(plain_door)
