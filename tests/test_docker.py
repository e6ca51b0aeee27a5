"""The Docker files, read: they run the servers of clicklab, from files that exist, published to this machine only."""

from __future__ import annotations

import fnmatch
import re
import shlex

import pytest
import yaml

from clicklab import bootstrap, servers

pytestmark = pytest.mark.only_checked("the Docker files: read, no container started")
ROOT = bootstrap.ROOT
COMPOSE = yaml.safe_load((ROOT / "compose" / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
DEFAULTS = servers._read_env(ROOT / "compose" / "defaults.env")
# Understood beyond defaults.env: by clicklab.servers, by compose/serve, by the image's build.
FURTHER = {"CLICKSTREAM_RUNTIME", "LISTEN", "LEARNER_UID"}
DOCKERFILE = (ROOT / "compose" / "Dockerfile").read_text().replace("\\\n", " ")


def test_every_server_is_a_service_and_lab_is_the_only_other():
    assert set(SERVICES) == set(servers.SERVERS) | {"lab"}


@pytest.mark.parametrize("name", list(servers.SERVERS))
def test_a_service_runs_its_server_in_labs_network_and_asks_what_make_status_asks(name):
    service = SERVICES[name]
    assert service["command"] == f"compose/serve {name}"
    assert service["network_mode"] == "service:lab"
    assert service["healthcheck"]["test"] == ["CMD", "python", "-m", "clicklab", "usable", name]
    # Of what it needs it is stopped first, as `make down` does.
    assert set(servers.SERVERS[name].needs) <= set(service.get("depends_on", []))


def test_every_service_is_the_one_image_and_only_lab_builds_it():
    assert len({service["image"] for service in SERVICES.values()}) == 1
    assert [name for name, service in SERVICES.items() if "build" in service] == ["lab"]
    assert all(service["pull_policy"] == "never" for name, service in SERVICES.items() if name != "lab")
    build = SERVICES["lab"]["build"]
    assert (ROOT / "compose" / build["context"] / build["dockerfile"]).exists()


def test_only_lab_publishes_and_only_on_this_machine():
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["lab"]
    published = set()
    for port in SERVICES["lab"]["ports"]:
        outside, inside = re.fullmatch(r"127\.0\.0\.1:(\$\{[^}]+\}):(\$\{[^}]+\})", port).groups()
        # Pages name the port that the browser reaches: it has to be the one the server listens on.
        assert outside == inside
        published.add(re.match(r"\$\{(\w+)", outside)[1])
    assert published == {"LAB_PORT", "INGEST_PORT", "BLOG_PORT"}


def test_only_what_is_published_listens_beyond_127_0_0_1():
    listening = {name for name, service in SERVICES.items() if service["environment"].get("LISTEN")}
    assert listening == {"ingest", "blog"}
    assert "--ip 0.0.0.0" in " ".join(SERVICES["lab"]["command"])
    # A token is made and printed by JupyterLab when none is given: nobody may switch that off here.
    assert not re.search(r"token|password", " ".join(SERVICES["lab"]["command"]), re.IGNORECASE)


def test_every_variable_is_one_that_somebody_reads_with_the_default_of_defaults_env():
    written = (ROOT / "compose" / "docker-compose.yml").read_text()
    for name, default in re.findall(r"\$\{(\w+):-([^}]*)\}", written):
        assert name in FURTHER or DEFAULTS[name] == default, name
    for service in SERVICES.values():
        assert service["env_file"] == "defaults.env"
        assert set(service["environment"]) <= set(DEFAULTS) | FURTHER
        assert service["environment"]["CLICKSTREAM_RUNTIME"] == "docker"
    assert "LISTEN" in (ROOT / "compose" / "serve").read_text()


def test_state_is_one_named_volume_for_all():
    assert list(COMPOSE["volumes"]) == ["state"]
    for service in SERVICES.values():
        assert "state:/course/.state" in service["volumes"]
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert source in COMPOSE["volumes"] or (ROOT / "compose" / source).is_dir()


def test_every_service_is_given_the_time_to_close_its_files():
    for service in SERVICES.values():
        assert int(service["stop_grace_period"].removesuffix("s")) >= 30 and service["init"] is True


def ignored(path: str) -> bool:
    patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    parts = path.rstrip("/").split("/")
    beginnings = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
    return any(fnmatch.fnmatch(part, pattern.removeprefix("**/")) for pattern in patterns
               for part in (parts if pattern.startswith("**/") else beginnings))


def test_what_the_dockerfile_copies_exists_and_is_not_ignored():
    copied = [source for line in re.findall(r"^COPY (.+)$", DOCKERFILE, re.MULTILINE) for source in shlex.split(line)[:-1]]
    assert "." in copied and "requirements.lock" in copied
    for source in copied:
        assert (ROOT / source).exists(), source
        assert source == "." or not ignored(source), source


def test_the_image_holds_no_data_no_history_and_no_other_machines_environment():
    for name in (".git", ".state", ".venv", "build", "clicklab/__pycache__", "notebooks/.ipynb_checkpoints"):
        assert ignored(name), name
    for name in ("compose/serve", "notebooks/course.toml", "blog_snippet/_includes/clickstream.html", "tests/conftest.py"):
        assert not ignored(name), name


def test_bootstrap_prepares_the_image_from_what_was_copied_before_it():
    steps = re.findall(r"^(?:COPY|RUN) .+$", DOCKERFILE, re.MULTILINE)
    place = next(number for number, step in enumerate(steps) if "clicklab/bootstrap.py prepare" in step)
    before = " ".join(steps[:place])
    assert all(name in before for name in ("requirements.lock", "clicklab/__init__.py", "clicklab/bootstrap.py", "compose/jars"))
    # bootstrap goes on without Jekyll or Chromium; an image without them is no use.
    assert "command -v jekyll" in steps[place] and "command -v chromium" in steps[place]


def test_nothing_runs_as_root_in_the_end():
    users = re.findall(r"^USER (\w+)$", DOCKERFILE, re.MULTILINE)
    assert users and users[-1] != "root"
