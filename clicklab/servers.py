"""Start the servers, wait until they are usable, stop them. Every notebook's second cell calls `need`."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import xmlrpc.client
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import requests

from clicklab import Missing, Trouble, bootstrap

ROOT = bootstrap.ROOT
START_TIMEOUT_S = 240  # ten times what a quiet machine takes: a busy one is no failure
# In containers docker owns the processes: nothing is started or stopped from Python, only waited for.
IN_DOCKER = os.environ.get("CLICKSTREAM_RUNTIME") == "docker"
STOP_TIMEOUT_S = 60
LIVES = 2  # processes a server may use up while it starts; one more, and it is said to die right after its start


# --- Settings --------------------------------------------------------------------------------------------------------

def state_folder() -> Path:
    """Where everything that runs keeps its data: $CLICKSTREAM_STATE, else .state in the repository."""
    return Path(os.environ.get("CLICKSTREAM_STATE") or ROOT / ".state").resolve()


def build_folder() -> Path:
    """Where executed notebooks and pages go: $CLICKSTREAM_BUILD, else build in the repository."""
    return Path(os.environ.get("CLICKSTREAM_BUILD") or ROOT / "build").resolve()


def _read_env(file: Path) -> dict[str, str]:
    lines = file.read_text().splitlines() if file.exists() else []
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def settings() -> dict[str, str]:
    """All settings: the environment's, else those the running servers were started with, else compose/defaults.env."""
    defaults = _read_env(ROOT / "compose" / "defaults.env")
    chosen = defaults | _read_env(state_folder() / "run" / "settings.env")
    return chosen | {key: os.environ[key] for key in defaults if os.environ.get(key)}


def setting(name: str) -> str:
    return settings()[name]


def address(server: str) -> str:
    """`host:port` of a server, as clients write it; `kafka` gives what `bootstrap_servers` wants."""
    return f"127.0.0.1:{setting(SERVERS[server].ports[0])}"


def url(server: str) -> str:
    """`http://host:port` of a server that speaks HTTP; for the NameNode its web pages."""
    port = "NAMENODE_HTTP_PORT" if server == "namenode" else SERVERS[server].ports[0]
    return f"http://127.0.0.1:{setting(port)}"


# --- What "usable" means, server by server -----------------------------------------------------------------------------

def _get(address: str) -> requests.Response:
    return requests.get(address, timeout=5)


def _kafka_usable() -> str:
    from kafka import KafkaAdminClient

    if reason := _port_closed("kafka"):
        return reason
    admin = KafkaAdminClient(bootstrap_servers=address("kafka"), request_timeout_ms=5000)
    try:
        brokers = admin.describe_cluster()["brokers"]
    finally:
        admin.close()
    return "" if brokers else "no broker has registered"


def _port_closed(server: str) -> str:
    host, port = address(server).split(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError as cause:
        return f"port {port}: {cause.strerror or cause}"
    return ""


def _namenode_usable() -> str:
    beans = _get(f"{url('namenode')}/jmx?qry=Hadoop:service=NameNode,name=FSNamesystemState").json()["beans"]
    return "" if beans else "the NameNode is still loading its image"


def _datanode_usable() -> str:
    beans = _get(f"{url('namenode')}/jmx?qry=Hadoop:service=NameNode,name=FSNamesystemState").json()["beans"]
    if not beans or beans[0]["NumLiveDataNodes"] < 1:
        return "the NameNode knows no live DataNode yet"
    return "" if beans[0]["FSState"] == "Operational" else "HDFS is in safe mode: read only until all blocks are reported"


def _connect_usable() -> str:
    # 404 and 409 come just after the start, while the worker joins its group.
    status = _get(f"{url('connect')}/connectors").status_code
    return "" if status == 200 else f"GET /connectors answers {status}"


def _ingest_usable() -> str:
    return "" if _get(f"{url('ingest')}/health").status_code == 200 else "GET /health does not answer 200"


def _blog_usable() -> str:
    return "" if _get(f"{url('blog')}/").status_code == 200 else "the first page is not served"


@dataclass(frozen=True)
class Server:
    what: str
    ports: tuple[str, ...]  # settings that hold its ports; the first is the one clients use
    usable: Callable[[], str]  # "" or the reason why it is not
    needs: tuple[str, ...] = ()


SERVERS = {
    "namenode": Server("HDFS: knows the files", ("NAMENODE_PORT", "NAMENODE_HTTP_PORT"), _namenode_usable),
    "datanode": Server("HDFS: holds the blocks", ("DATANODE_PORT", "DATANODE_HTTP_PORT", "DATANODE_IPC_PORT"),
                       _datanode_usable, ("namenode",)),
    "kafka": Server("the broker", ("KAFKA_PORT", "KAFKA_CONTROLLER_PORT"), _kafka_usable),
    "connect": Server("moves records to HDFS", ("CONNECT_PORT",), _connect_usable, ("kafka", "namenode", "datanode")),
    "ingest": Server("the collector's local door", ("INGEST_PORT",), _ingest_usable),
    "blog": Server("the demo blog", ("BLOG_PORT",), _blog_usable),
    "guard": Server("restarts failed sink tasks", (), lambda: "", ("connect",)),
}


# --- supervisor --------------------------------------------------------------------------------------------------------

def _socket_path() -> Path:
    path = state_folder() / "run" / "supervisor.sock"
    if len(str(path)) < 100:
        return path
    # The system's limit for a socket's path is 104 to 108 characters.
    name = hashlib.sha256(str(state_folder()).encode()).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"clickstream-{os.getuid()}-{name}.sock"


def _supervisor() -> xmlrpc.client.ServerProxy:
    from supervisor.xmlrpc import SupervisorTransport

    transport = SupervisorTransport(serverurl=f"unix://{_socket_path()}")
    return xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)


def is_supervised() -> bool:
    """Whether our supervisord answers."""
    try:
        return _supervisor().supervisor.getState()["statename"] == "RUNNING"
    except (OSError, xmlrpc.client.Error, ConnectionError):
        return False


def _environment() -> dict[str, str]:
    state = state_folder()
    return {
        **os.environ, **settings(),
        "CLICKSTREAM_STATE": str(state),
        "SUPERVISOR_SOCKET": str(_socket_path()),
        "PYTHON": sys.executable, "JAVA": bootstrap.java(), "JARS": str(bootstrap.jars_folder()),
        # Marks what we started, so that `down` finds it even after supervisord itself was killed.
        "CLICKSTREAM_SERVER_OF": str(state),
    }


def _start_supervisor() -> None:
    state = state_folder()
    for folder in ("run", "logs", "ledger"):
        (state / folder).mkdir(parents=True, exist_ok=True)
    if strays := _strays():
        _end(strays)
    _socket_path().unlink(missing_ok=True)
    (state / "run" / "settings.env").write_text("".join(f"{key}={value}\n" for key, value in settings().items()))
    conf = ROOT / "compose" / "supervisord.conf"
    ran = subprocess.run([sys.executable, "-m", "supervisor.supervisord", "-c", conf], env=_environment(),
                         capture_output=True, text=True)
    if ran.returncode:
        raise Trouble("supervisord does not start.", (ran.stdout + ran.stderr).strip(), "make doctor")
    wait_for("supervisord", lambda: "" if is_supervised() else "its socket does not answer yet", 20, quiet=True)


def _state(name: str) -> str:
    """supervisor's word for a server: RUNNING, STARTING, BACKOFF, STOPPED, EXITED, FATAL; STOPPED without supervisord."""
    try:
        return _supervisor().supervisor.getProcessInfo(name)["statename"]
    except (OSError, xmlrpc.client.Error, ConnectionError):
        return "STOPPED"


def pid(name: str) -> int | None:
    """The process id of a server, None when it does not run."""
    with contextlib.suppress(OSError, xmlrpc.client.Error, ConnectionError):
        return _supervisor().supervisor.getProcessInfo(name)["pid"] or None
    return None


def processes(name: str) -> list[psutil.Process]:
    """A server's process and its children."""
    with contextlib.suppress(psutil.NoSuchProcess):
        if number := pid(name):
            parent = psutil.Process(number)
            return [parent, *parent.children(recursive=True)]
    return []


def memory_mb(name: str) -> float:
    """Resident memory of a server, MB."""
    total = 0
    for process in processes(name):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += process.memory_info().rss
    return total / 1e6


# --- Waiting -----------------------------------------------------------------------------------------------------------

def wait_for(what: str, problem: Callable[[], str], timeout_s: float, *, next: str = "make doctor",
             quiet: bool = False, every_s: float = 0.2) -> float:
    """Poll the real thing until it has no problem left; returns the seconds it took.

    Parameters
    ----------
    what : str
        What is waited for, for the message.
    problem : callable returning str
        "" when done, else why not yet. May raise: an exception is a reason like another.
    timeout_s : float
        Seconds until `Trouble` is raised with the last reason and `next`.
    """
    started = told = time.monotonic()
    while True:
        try:
            reason = problem()
        except Trouble:
            raise
        except Exception as cause:
            reason = f"{type(cause).__name__}: {str(cause).splitlines()[0] if str(cause) else ''}"
        now = time.monotonic()
        if not reason:
            return now - started
        if now - started > timeout_s:
            raise Trouble(f"{what}: not there after {timeout_s:.0f} s.", reason, next)
        if not quiet and now - told > 10:
            print(f"{what}: waiting, {now - started:.0f} s of at most {timeout_s:.0f} s: {reason[:120]}", flush=True)
            told = now
        time.sleep(every_s)


# --- Start and stop ------------------------------------------------------------------------------------------------------

def need(*names: str) -> None:
    """Make sure that these servers, and those they need, are usable; start what is missing.

    Parameters
    ----------
    names : str
        Of `namenode datanode kafka connect ingest blog guard`.

    Raises
    ------
    Trouble
        A port is taken, memory or disk is short, a server died or is not usable in time. Ends with the next command.
    """
    from clicklab import connect, topics

    wanted = _with_needs(names)
    if IN_DOCKER:
        wait_usable(*wanted)
        if "kafka" in wanted:
            topics.ensure()
        return
    if not is_supervised():
        check_room()
        check_ports(wanted)
        _start_supervisor()
        starting = wanted
    else:
        starting = [name for name in wanted if _state(name) not in ("RUNNING", "STARTING")]
        check_ports(starting)
    if "blog" in starting and not shutil.which("jekyll"):
        raise Missing("The blog needs Jekyll, which is not on this machine.", "notebook 01 builds and serves it for real",
                      bootstrap.install_command(["jekyll"]))
    for name in starting:
        with contextlib.suppress(xmlrpc.client.Fault):
            _supervisor().supervisor.startProcess(name, False)
    started = time.monotonic()
    waiting = list(wanted)
    checked_pair = False
    lives: dict[str, set[int]] = {name: set() for name in wanted}
    while waiting:
        for name in list(waiting):
            if name == "connect" and not checked_pair:
                if {"kafka", "namenode", "datanode"} & set(waiting):
                    continue
                topics.ensure()
                connect.belong_together()
                checked_pair = True
            lives[name].add(pid(name) or 0)  # 0: between two lives
            reason = reason_not_usable(name)
            if not reason:
                waiting.remove(name)
                if name in starting:
                    where = address(name) if SERVERS[name].ports else ""
                    print(f"{name:<10} ready      {time.monotonic() - started:5.1f} s   {where}", flush=True)
            elif _state(name) == "FATAL" or len(lives[name] - {0}) > LIVES:
                # supervisor would start it again for ever: each of its lives lasts longer than the second it asks for.
                with contextlib.suppress(xmlrpc.client.Fault):
                    _supervisor().supervisor.stopProcess(name, False)
                raise _death(name)
            elif time.monotonic() - started > START_TIMEOUT_S:
                raise Trouble(f"{name} is not usable after {START_TIMEOUT_S} s.", f"{reason}\n      {_last_words(name)}",
                              f"make doctor, then look into {log_file(name)}")
        if waiting:
            time.sleep(0.5)  # asking oftener takes the processor from the servers that start
    if already := [name for name in wanted if name not in starting]:
        print(f"usable already: {', '.join(already)}", flush=True)


def _with_needs(names: tuple[str, ...]) -> list[str]:
    wanted = set(names).union(*(SERVERS[name].needs for name in names))
    if "guard" in names:
        wanted |= set(SERVERS["connect"].needs)
    return [name for name in SERVERS if name in wanted]


def reason_not_usable(name: str) -> str:
    """Why a server cannot do its job now; "" when it can."""
    state = "RUNNING" if IN_DOCKER else _state(name)
    if state != "RUNNING":
        return f"supervisor says {state}"
    try:
        return SERVERS[name].usable()
    except Exception as cause:
        return f"{type(cause).__name__}: {str(cause)[:160]}"


def usable(name: str) -> bool:
    """Whether a server does its job now (not only: whether its process runs)."""
    return not reason_not_usable(name)


def up(names: tuple[str, ...] = tuple(SERVERS)) -> float:
    """Start all servers (`make up`); returns the seconds until all are usable and notes them for `make status`."""
    was_formatted = (state_folder() / "hdfs" / "name").exists()
    already = all(_state(name) == "RUNNING" for name in names)
    started = time.monotonic()
    need(*names)
    seconds = time.monotonic() - started
    if not already:
        note = {"seconds": round(seconds, 1), "first_time": not was_formatted, "servers": list(names)}
        (state_folder() / "run" / "up.json").write_text(json.dumps(note))
    return seconds


def status() -> list[dict[str, object]]:
    """One row a server: `server`, `state` (usable, not usable, stopped), `address`, `memory MB`, `what`."""
    table = []
    for name, server in SERVERS.items():
        supervised = "RUNNING" if IN_DOCKER else _state(name)
        state = "usable" if supervised == "RUNNING" and usable(name) else \
            "stopped" if supervised in ("STOPPED", "EXITED") else "not usable"
        table.append({"server": name, "state": state, "address": address(name) if server.ports else "",
                      "memory MB": round(memory_mb(name)), "what": server.what})
    return table


def measured(table: list[dict[str, object]]) -> str:
    """`make up`'s seconds and the servers' memory as Markdown, with the machine they were measured on (README)."""
    note_file = state_folder() / "run" / "up.json"
    if not note_file.exists():
        raise Trouble("There is nothing measured yet.", "the servers were not started by make up", "make down up")
    note = json.loads(note_file.read_text())
    lines = ["| server | memory | what |", "|---|---:|---|"]
    lines += [f"| {row['server']} | {row['memory MB']} MB | {row['what']} |" for row in table if row["memory MB"]]
    together = sum(row["memory MB"] for row in table if row["server"] in ("namenode", "datanode", "kafka", "connect"))
    how = "the first time, with formatting" if note["first_time"] else "data from before"
    return "\n".join([
        *lines, "", f"All usable {note['seconds']} s after `make up` ({how}); broker, Connect and HDFS together {together:,} MB. "
        f"Measured {time.strftime('%Y-%m-%d')} on {os.cpu_count()} cores, {psutil.virtual_memory().total / 1e9:.0f} GB, "
        f"{platform.system()} {platform.machine()}."])


def down() -> None:
    """Stop every server of this state and supervisord; end what a killed supervisord left. Data stays."""
    if is_supervised():
        names = [name for name in SERVERS if _state(name) not in ("STOPPED", "EXITED", "FATAL")]
        # Writers first, so that the sink closes its files while HDFS and the broker still answer.
        for group in (("guard", "blog", "ingest", "connect"), ("kafka", "datanode", "namenode")):
            for name in set(names) & set(group):
                with contextlib.suppress(xmlrpc.client.Fault):
                    _supervisor().supervisor.stopProcess(name, False)
            wait_for("stopping " + ", ".join(n for n in group if n in names),
                     lambda g=group: " ".join(n for n in g if _state(n) in ("STOPPING", "RUNNING")), STOP_TIMEOUT_S)
        supervisor = _supervisor().supervisor.getPID()
        _supervisor().supervisor.shutdown()
        wait_for("supervisord to end", lambda: "it still runs" if psutil.pid_exists(supervisor) else "", 20, quiet=True)
        for name in names:
            print(f"{name:<10} stopped", flush=True)
    _end(_strays())
    for left in ("settings.env", "up.json"):
        (state_folder() / "run" / left).unlink(missing_ok=True)
    for hold in (state_folder() / "run").glob("hold-*"):
        hold.unlink()


def _strays() -> list[psutil.Process]:
    """Processes that we started for this state and nobody supervises any more."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.environ().get("CLICKSTREAM_SERVER_OF") == str(state_folder()):
                found.append(process)
    return found


def _end(strays: list[psutil.Process]) -> None:
    for process in strays:
        with contextlib.suppress(psutil.NoSuchProcess):
            print(f"ending pid {process.pid}, left over from an earlier run", flush=True)
            process.terminate()
    _, alive = psutil.wait_procs(strays, timeout=20)
    for process in alive:
        process.kill()
    psutil.wait_procs(alive, timeout=10)


# --- Faults: what notebook 06 and the drills do to a server -----------------------------------------------------------------

def send_signal(name: str, number: signal.Signals) -> None:
    """Send a signal to a server. After SIGKILL and SIGTERM it waits until the process is gone; supervisor starts it again at once.

    Raises
    ------
    Trouble
        The server does not run, or is still there after the time that supervisor gives it.
    """
    hit = processes(name)
    if not hit:
        raise Trouble(f"{name} does not run, so it cannot be hit.", f"supervisor says {_state(name)}", "make status")
    for process in hit:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)
    if number in (signal.SIGKILL, signal.SIGTERM):
        _, alive = psutil.wait_procs(hit, timeout=STOP_TIMEOUT_S)
        if alive:
            raise Trouble(f"{name} is still there {STOP_TIMEOUT_S} s after {signal.Signals(number).name}.",
                          f"pid {alive[0].pid} does not end", f"look into {log_file(name)}")


@contextlib.contextmanager
def paused(name: str) -> Iterator[None]:
    """Freeze a server with SIGSTOP while the block runs: its connections stay open and nobody answers on them."""
    send_signal(name, signal.SIGSTOP)
    try:
        yield
    finally:
        send_signal(name, signal.SIGCONT)


def hdfs_admin(*words: str) -> str:
    """Run HDFS's own administration tool (`hdfs dfsadmin`), for what no client library does; returns what it prints."""
    command = [bootstrap.java(), "-Xmx64m", "-cp", f"{bootstrap.jars_folder()}/hdfs/*", "org.apache.hadoop.hdfs.tools.DFSAdmin",
               "-fs", f"hdfs://{address('namenode')}", *words]
    ran = subprocess.run(command, env=os.environ | {"HADOOP_USER_NAME": "clickstream"}, capture_output=True, text=True, timeout=60)
    if ran.returncode:
        raise Trouble(f"hdfs dfsadmin {' '.join(words)} fails.", (ran.stderr or ran.stdout).strip()[-300:], "make status")
    return ran.stdout


@contextlib.contextmanager
def held_down(name: str) -> Iterator[None]:
    """Kill a server and keep it down while the block runs: compose/serve waits for the hold file to go."""
    hold = state_folder() / "run" / f"hold-{name}"
    hold.touch()
    try:
        send_signal(name, signal.SIGKILL)
        yield
    finally:
        hold.unlink(missing_ok=True)


def wait_usable(*names: str, timeout_s: float = START_TIMEOUT_S) -> float:
    """Wait until servers that are being restarted do their job again; returns the seconds."""
    what = " and ".join(names) if len(names) < 3 else "all servers"
    return wait_for(what, lambda: "; ".join(f"{n}: {r}" for n in names if (r := reason_not_usable(n))),
                    timeout_s)


# --- Reasons, in words ------------------------------------------------------------------------------------------------------

def log_file(name: str) -> Path:
    return state_folder() / "logs" / f"{name}.log"


def _last_words(name: str, lines: int = 4) -> str:
    """The last lines of a server's log that name an error, else its last lines."""
    file = log_file(name)
    if not file.exists():
        return "it wrote no log"
    text = file.read_text(errors="replace").splitlines()[-200:]
    telling = [line for line in text if any(word in line for word in ("ERROR", "FATAL", "Exception", "Error:", "Why:"))]
    return "\n      ".join(line[:200] for line in (telling or text)[-lines:])


def _death(name: str) -> Trouble:
    return Trouble(f"{name} stops right after its start.", _last_words(name), f"look into {log_file(name)}, then make doctor")


def port_user(port: int) -> str | None:
    """Who listens on a port of 127.0.0.1: "java, pid 4121", "another program" where the system does not tell, None if free."""
    with contextlib.suppress(psutil.AccessDenied):
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
                if not connection.pid:
                    return "another program"
                return f"{psutil.Process(connection.pid).name()}, pid {connection.pid}"
        return None
    with socket.socket() as probe:
        return "another program" if probe.connect_ex(("127.0.0.1", port)) == 0 else None


def check_ports(names: list[str]) -> None:
    """Raise `Trouble` when a port of these servers is taken by somebody else."""
    if not names:
        return
    chosen = settings()
    mine = {process.pid for process in _strays()}
    for name in names:
        if _state(name) in ("RUNNING", "STARTING"):
            continue
        for key in SERVERS[name].ports:
            user = port_user(int(chosen[key]))
            if user and not any(user.endswith(f"pid {number}") for number in mine):
                other = int(chosen[key]) + 1
                raise Trouble(f"{name} cannot start.", f"port {chosen[key]} is in use by another program ({user}).",
                              f"stop that program, or run  {key}={other} make up")


def check_room() -> None:
    """Raise `Trouble` when memory or disk is too short to start (while our servers run, their memory is not missed)."""
    if is_supervised():
        return
    chosen = settings()
    free_mb = psutil.virtual_memory().available / 1e6
    if free_mb < int(chosen["MEMORY_NEEDED_MB"]):
        raise Trouble("Too little memory for the servers.",
                      f"{free_mb:,.0f} MB are free, {int(chosen['MEMORY_NEEDED_MB']):,} MB are needed.",
                      "close other programs, then make up")
    state_folder().mkdir(parents=True, exist_ok=True)
    disk_mb = shutil.disk_usage(state_folder()).free / 1e6
    if disk_mb < int(chosen["DISK_NEEDED_MB"]):
        raise Trouble("Too little disk space for the servers.",
                      f"{disk_mb:,.0f} MB are free at {state_folder()}, {int(chosen['DISK_NEEDED_MB']):,} MB are needed.",
                      "free some space, or put the data elsewhere:  CLICKSTREAM_STATE=/another/disk make up")
