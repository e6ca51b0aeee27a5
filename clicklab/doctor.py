"""Look at everything the course needs on this machine and say, line by line, what is ready. Notebook 00 calls it."""

from __future__ import annotations

import contextlib
import hashlib
import platform
import shutil
import subprocess
import sys

import psutil

from clicklab import Missing, Trouble, bootstrap, servers


def look() -> list[str]:
    """One line a thing: its name, its state in words, then its figure or address; a line below says what to do.

    The text is what a question about a failure should carry: it holds no name, path or address of yours but the ports.
    """
    lines = []
    for name, examine in CHECKS.items():
        try:
            state, detail = examine()
            lines.append(f"{name:<10} {state:<10} {detail}".rstrip())
        except Trouble as trouble:
            lines.append(f"{name:<10} {'missing' if isinstance(trouble, Missing) else 'not ready':<10} {trouble.what}")
            lines += [f"           Why:  {trouble.why}"] * bool(trouble.why)
            lines += [f"           Next: {trouble.next}"] * bool(trouble.next)
    return lines


def is_well(lines: list[str]) -> bool:
    """Whether nothing in the list needs a person."""
    return not any(line.split()[1:2] in (["missing"], ["not"]) for line in lines if not line.startswith(" "))


def _python() -> tuple[str, str]:
    return "ready", f"{platform.python_version()} on {platform.system()} {platform.machine()}"


def _packages() -> tuple[str, str]:
    lock = bootstrap.ROOT / "requirements.lock"
    stamp = bootstrap.share(bootstrap.Path(sys.prefix)) / f"{lock.name}.installed"
    if not stamp.exists() or stamp.read_text() != hashlib.sha256(lock.read_bytes()).hexdigest():
        raise Trouble("the packages are not those of requirements.lock", "the lock has changed since they were installed",
                      "make prepare")
    return "ready", "as locked in requirements.lock"


def _java() -> tuple[str, str]:
    said = subprocess.run([bootstrap.java(), "-version"], capture_output=True, text=True)
    return "ready", (said.stderr or said.stdout).splitlines()[0]


def _jars() -> tuple[str, str]:
    found = [path for path in bootstrap.jars_folder().rglob("*.jar")]
    if not found:
        raise Trouble("the servers' jars are not here", "the first start fetches them", "make prepare")
    return "ready", f"{len(found)} jars, {sum(p.stat().st_size for p in found) / 1e6:,.0f} MB"


def _program(name: str, found: str | None) -> tuple[str, str]:
    if not found:
        raise Missing(f"{name} is not on this machine", "notebook 01 builds the blog with Jekyll and clicks it in Chromium",
                      bootstrap.install_command([name]))
    said = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=60)
    return "ready", said.stdout.strip().splitlines()[0] if said.stdout.strip() else found


def _spark() -> tuple[str, str]:
    home = bootstrap.full_java()
    if not home:
        return "absent", f"{bootstrap.NAMES['java']}: only notebook 07 asks for it. Next: {bootstrap.install_command(['java'])}"
    if not list((bootstrap.jars_folder() / "spark").glob("*.jar")):
        return "absent", "Spark's jar for the table: only notebook 07 asks for it. Next: make prepare-further"
    said = subprocess.run([f"{home}/bin/java", "-version"], capture_output=True, text=True)
    return "ready", (said.stderr or said.stdout).splitlines()[0]


def _font() -> tuple[str, str]:
    from clicklab import charts

    found = charts.hangul_font()
    return ("ready", found) if found else ("absent", "no font with Hangul: Korean titles in figures are drawn as boxes")


def _memory() -> tuple[str, str]:
    memory = psutil.virtual_memory()
    servers.check_room()
    return "ready", f"{memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB free"


def _disk() -> tuple[str, str]:
    return "ready", f"{shutil.disk_usage(bootstrap.ROOT).free / 1e9:.0f} GB free"


def _ports() -> tuple[str, str]:
    if servers.IN_DOCKER:
        return "ready", "docker's"
    servers.check_ports(list(servers.SERVERS))
    return "ready", "free, or our own servers'"


def _servers() -> tuple[str, str]:
    if not servers.IN_DOCKER and not servers.is_supervised():
        return "stopped", "make up starts them"
    bad = [f"{row['server']} ({row['state']})" for row in servers.status() if row["state"] not in ("usable", "stopped")]
    if bad:
        raise Trouble(", ".join(bad), "", "make status, then look into .state/logs/")
    return "ready", ", ".join(row["server"] for row in servers.status() if row["state"] == "usable")


def _sink() -> tuple[str, str]:
    from clicklab import connect

    if not servers.usable("connect"):
        return "stopped", "Connect does not run"
    found = connect.tasks()
    for what, state, cause in found:
        if state != "RUNNING":
            raise Trouble(f"{what} of the sink is {state}", cause, "the guard restarts it; look into .state/logs/guard.log")
    return ("ready", f"{len(found) - 1} task RUNNING") if found else ("absent", "notebook 04 registers it")


def _pair() -> tuple[str, str]:
    from clicklab import connect

    with contextlib.suppress(OSError):
        if all(servers.usable(name) for name in ("kafka", "datanode")):
            connect.belong_together()
            return "ready", "topics and table belong together"
    return "stopped", "not known while Kafka and HDFS are down"


CHECKS = {
    "python": _python, "packages": _packages, "java": _java, "jars": _jars,
    "jekyll": lambda: _program("jekyll", shutil.which("jekyll")),
    "chromium": lambda: _program("chromium", bootstrap.chromium()),
    "spark": _spark, "font": _font, "memory": _memory, "disk": _disk, "ports": _ports, "servers": _servers, "sink": _sink, "pair": _pair,
}
