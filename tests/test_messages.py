"""What can go wrong before anything runs: one message that names the cause and the next command, never only a trace."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest
from conftest import run_clicklab

from clicklab import Trouble, bootstrap, course, servers


def test_a_busy_port_is_named_with_who_uses_it_and_the_way_around(second_state):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        said = run_clicklab("up", CONNECT_PORT=str(port))
    assert said.returncode == 1
    assert f"port {port} is in use by another program" in said.stderr and f"pid {os.getpid()}" in said.stderr
    assert f"CONNECT_PORT={port + 1} make up" in said.stderr
    assert "Traceback" not in said.stderr


@pytest.mark.parametrize(("setting", "message"), [
    pytest.param("MEMORY_NEEDED_MB", "Too little memory for the servers.", id="memory"),
    pytest.param("DISK_NEEDED_MB", "Too little disk space for the servers.", id="disk"),
])
def test_too_little_room_is_said_before_anything_starts(second_state, setting, message):
    said = run_clicklab("up", **{setting: "999000000"})
    assert said.returncode == 1 and message in said.stderr and "Next:" in said.stderr and "Traceback" not in said.stderr
    assert not (second_state / "kafka").exists()


def test_an_unknown_parameter_is_refused_before_anything_runs():
    said = run_clicklab("run", "04", "-p", "COMIT_INTERVAL_MS=5000")
    assert said.returncode == 1
    assert "No chosen notebook has the parameter COMIT_INTERVAL_MS." in said.stderr and "COMMIT_INTERVAL_MS" in said.stderr
    assert "Traceback" not in said.stderr


def test_a_notebook_number_that_is_not_there_is_refused():
    with pytest.raises(Trouble, match="There is no notebook 42"):
        course.run(["42"])


def test_without_jekyll_and_chromium_the_rest_is_named_and_the_status_is_3(second_state, tmp_path):
    said = run_clicklab("run", "01", PATH=str(tmp_path), HOME=str(tmp_path))
    assert said.returncode == 3, said.stdout + said.stderr
    assert "not executed: 01 Record clicks on a Jekyll blog: Chromium and Jekyll not on this machine" in said.stdout
    assert "Next:" in said.stdout


def test_without_a_full_java_the_spark_notebook_is_named_and_the_status_is_3(second_state, monkeypatch, capsys):
    monkeypatch.setattr(bootstrap, "full_java", lambda: None)
    assert course.exit_status(course.run(["07"])) == 3
    said = capsys.readouterr().out
    assert "a full Java 17 or 21 not on this machine" in said and "Next:" in said


@pytest.mark.parametrize(("release", "is_taken"), [
    pytest.param('JAVA_VERSION="21.0.8"\nMODULES="java.base jdk.incubator.vector"\n', True, id="whole"),
    pytest.param('JAVA_VERSION="21.0.8"\nMODULES="java.base"\n', False, id="trimmed"),
    pytest.param('JAVA_VERSION="25"\nMODULES="java.base jdk.incubator.vector"\n', False, id="too-new"),
])
def test_spark_takes_only_a_whole_java_that_it_supports(release, is_taken, monkeypatch, tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "java").touch()
    (tmp_path / "release").write_text(release)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert (bootstrap.full_java() == str(tmp_path)) == is_taken


def test_doctor_names_what_is_missing_and_how_to_get_it(second_state, tmp_path):
    said = run_clicklab("doctor", PATH=str(tmp_path), HOME=str(tmp_path))
    assert said.returncode == 1
    assert "jekyll     missing" in said.stdout and "chromium   missing" in said.stdout and "Next:" in said.stdout


def test_a_failing_server_is_shown_with_its_own_words(second_state):
    # A file where the broker wants its folder: it cannot start, and says so in its log.
    (second_state / "kafka").write_text("not a folder")
    with pytest.raises(Trouble) as caught:
        servers.need("kafka")
    assert "kafka" in caught.value.what and caught.value.why and str(servers.log_file("kafka")) in caught.value.next


def test_a_message_in_a_notebook_is_not_buried_in_a_trace():
    shown = Trouble("Nothing works.", "it is Monday", "make doctor")._render_traceback_()
    assert shown == ["Trouble: Nothing works.\nWhy:  it is Monday\nNext: make doctor"]


def test_serve_says_which_servers_there_are():
    import subprocess

    root = Path(__file__).resolve().parents[1]
    said = subprocess.run([root / "compose" / "serve", "kafak"], capture_output=True, text=True,
                          env={**os.environ, "PYTHON": sys.executable})
    assert said.returncode == 64 and 'no server "kafak"' in said.stderr and "namenode datanode kafka" in said.stderr
