"""Register the sink, wait for its tasks, read its dead letters, guard it. Notebook 04 calls it."""

from __future__ import annotations

import itertools
import json
import re
import time
from datetime import datetime
from typing import NamedTuple

import hdfs_native
import requests
from clickstream_ingest import events

from clicklab import Trouble, hdfs, servers, topics

SINK = "clickstream-hdfs-sink"
CONFIG = servers.ROOT / "connect_configs" / f"{SINK}.json"
PAIR = "/clickstream-pair.json"  # in HDFS: the Kafka topics that the table was made from
GUARD_EVERY_S = 5
GUARD_PATIENCE_S = 600


def config(interval_ms: int | None = None) -> dict[str, str]:
    """The sink's configuration as it is registered: the file, with another commit interval when one is asked for.

    Parameters
    ----------
    interval_ms : int
        Milliseconds between two commits. Default: the setting COMMIT_INTERVAL_MS.
    """
    chosen = json.loads(CONFIG.read_text())
    chosen["iceberg.control.commit.interval-ms"] = str(interval_ms or servers.setting("COMMIT_INTERVAL_MS"))
    return chosen


def register(interval_ms: int | None = None) -> None:
    """Register the sink as notebook 04 does, and wait until its tasks run; nothing happens when it is there already."""
    wanted = config(interval_ms)
    place = f"{servers.url('connect')}/connectors/{SINK}/config"
    present = requests.get(place, timeout=10)
    if present.status_code != 200 or present.json() != {"name": SINK, **wanted}:
        answer = requests.put(place, json=wanted, timeout=30)
        if not answer.ok:
            raise Trouble("Connect refuses the sink's configuration.", answer.json().get("message", answer.text),
                          f"look at {CONFIG.relative_to(servers.ROOT)}")
    wait_for_tasks()
    note_pair()


def tasks(name: str = SINK) -> list[tuple[str, str, str]]:
    """(what, state, cause) of a connector and of each of its tasks; [] when it is not registered.

    A connector can be RUNNING with its task FAILED, so both are listed.
    """
    answer = requests.get(f"{servers.url('connect')}/connectors/{name}/status", timeout=10)
    if answer.status_code == 404:
        return []
    answer.raise_for_status()
    status = answer.json()
    parts = [("connector", status["connector"]), *((f"task {t['id']}", t) for t in status["tasks"])]
    return [(what, part["state"], part.get("trace", "").split("\n\tat ")[0]) for what, part in parts]


def worker_of_task(name: str = SINK) -> str:
    """`host:port` of the worker that has the connector's first task."""
    return requests.get(f"{servers.url('connect')}/connectors/{name}/status", timeout=10).json()["tasks"][0]["worker_id"]


def coordinators(name: str = SINK) -> int:
    """How many coordinators the sink has: members of their consumer group. More than one for long is a zombie.

    A coordinator that should have stopped may commit what another has committed already (apache/iceberg#16016).
    """
    group, client = f"connect-{name}-coord", topics.admin()
    try:
        return len(client.describe_groups([group])[group]["members"])
    finally:
        client.close()


def wait_for_one_coordinator(name: str = SINK, timeout_s: float = 60) -> None:
    """Wait until the sink has one coordinator: a killed one is a member of their group until its session ends."""
    servers.wait_for(f"one coordinator of {name}",
                     lambda: "" if (there := coordinators(name)) == 1 else f"there are {there}", timeout_s, quiet=True,
                     next="end the zombie by restarting Connect:  make down up, then python -m clicklab ledger")


def wait_for_tasks(name: str = SINK, timeout_s: float = 60) -> None:
    """Wait until a connector and at least one task of it say RUNNING."""
    def problem() -> str:
        found = tasks(name)
        bad = [f"{what} is {state}{': ' + cause if cause else ''}" for what, state, cause in found if state != "RUNNING"]
        return "; ".join(bad) or ("" if len(found) > 1 else f"{name} has no task yet")

    servers.wait_for(f"sink {name}", problem, timeout_s, next="make status, then look into .state/logs/connect.log")


def dead_letters(since_ms: int = 0) -> dict[tuple[int, int], str]:
    """What the converter could not read: (Kafka partition, offset) of the record → the reason Connect gives."""
    found = {}
    for record in topics.records(topics.DEAD_LETTERS, since_ms):
        said = {key: value.decode(errors="replace") for key, value in record.headers if value is not None}
        place = int(said["__connect.errors.partition"]), int(said["__connect.errors.offset"])
        reason = said.get("__connect.errors.exception.message", "no reason given").rstrip()
        if reason.endswith(":"):  # Connect's own words end where the converter's begin
            causes = re.findall(r"^Caused by: [\w.$]*?(\w+: .*)$", said.get("__connect.errors.exception.stacktrace", ""), re.MULTILINE)
            reason = f"{reason} {causes[0] if causes else 'no cause given'}"
        found[place] = reason
    return found


def why_not_landed() -> str:
    """The likeliest reason why a click of the topic is not in the table, with the next command."""
    for name in ("connect", "datanode"):
        if not servers.usable(name):
            return f"{name} is down. Next: make up"
    found = tasks()
    if not found:
        return "the sink is not registered. Next: run notebook 04"
    for what, state, cause in found:
        if state != "RUNNING":
            if state == "PAUSED":
                return f"{what} of the sink is PAUSED. Next: curl -X PUT {servers.url('connect')}/connectors/{SINK}/resume"
            return f"{what} of the sink is {state}: {cause or 'no cause given'}. Next: make status"
    return f"the sink runs and commits every {servers.setting('COMMIT_INTERVAL_MS')} ms. Next: wait for one interval"


def schema(write: bool, put: bool = False) -> None:
    """Compare the schema in the sink's file with the event contract, and say what kind of change each difference is.

    Parameters
    ----------
    write : bool
        Put the contract's into the file, if every change reaches the table without loss.
    put : bool
        Then give it to the sink, too, and wait until its task runs.

    Raises
    ------
    Trouble
        They differ, and `write` is False; or a change would lose clicks or values, whatever `write` is.
    """
    chosen = json.loads(CONFIG.read_text())
    present, wanted = json.loads(chosen["value.converter.schema.content"]), events.connect_schema()
    changes = schema_changes(present, wanted)
    for change in changes:
        print(change.says)
    if refused := [change for change in changes if change.way]:
        raise Trouble("The event contract was changed in a way that loses clicks or values; nothing is written.",
                      "\n      ".join(change.says for change in refused), "; ".join(dict.fromkeys(change.way for change in refused)))
    text = json.dumps(wanted, separators=(",", ":"))
    if chosen["value.converter.schema.content"] == text:
        print("the sink's schema is the event contract's")
    elif not write:
        raise Trouble(f"The schema in {CONFIG.name} is not the event contract's.", "events.py was changed, the file was not",
                      "python -m clicklab schema --write")
    else:
        chosen["value.converter.schema.content"] = text
        CONFIG.write_text(json.dumps(chosen, indent=2) + "\n")
        print(f"wrote {CONFIG.relative_to(servers.ROOT)}. Next: python -m clicklab schema --put, and only then deploy the handler: "
              "what a new handler sends before the sink knows the field would land without it")
    if put:
        register()
        print("the sink has it; the table gets its new columns with the next click. Now deploy the handler")


class Change(NamedTuple):
    """A difference between two schemas: what it is and does, and the way around it; no way where it is fine as it is."""

    field: str
    says: str
    way: str = ""


# Of each pair the table's column takes the second without a loss; int8 to int32 are one kind of column.
_WIDER = {*itertools.combinations(("int8", "int16", "int32", "int64"), 2), ("float32", "float64")}


def schema_changes(old: dict, new: dict) -> list[Change]:
    """What changes from one Connect schema to another, field by field, in the order of the new one.

    Parameters
    ----------
    old, new : dict
        As `value.converter.schema.content` holds them.
    """
    before, after = ({field["field"]: field for field in each["fields"]} for each in (old, new))
    changes = []
    for name, field in after.items():
        is_optional, kind = field.get("optional", False), _kind(field)
        if name not in before:
            changes.append(Change(name, f"{name}: new, {kind}, optional; old rows are null") if is_optional else Change(
                name, f"{name}: new and required, but no record in the topic has it: each would be a dead letter", f"make {name} optional"))
            continue
        was, was_optional = _kind(before[name]), before[name].get("optional", False)
        if (was, kind) in _WIDER:
            changes.append(Change(name, f"{name}: widened from {was} to {kind}; the rows stay"))
        elif was != kind:
            harm = ("what no longer fits becomes another number without a sign" if (kind, was) in _WIDER else
                    "the column keeps its type, so the sink fails at the first value that does not fit, or turns it into 0 or null")
            changes.append(Change(name, f"{name}: {was} becomes {kind}; {harm}", f"put {name} back and add an optional field of another name"))
        if is_optional != was_optional:
            changes.append(Change(name, f"{name}: {'required' if was_optional else 'optional'} becomes "
                                  f"{'optional' if is_optional else 'required'}; records already in the topic, and readers, rely on it",
                                  f"put {name} back as it was"))
    for name in before.keys() - after.keys():
        harm = "what is still sent in it is dropped without a sign" if before[name].get("optional") else (
            "the column is required, so the sink fails at the first click")
        changes.append(Change(name, f"{name}: removed; {harm}", f"put {name} back; an optional field may stay empty"))
    return changes


def _kind(field: dict) -> str:
    return "instant" if field.get("name", "").endswith(".Timestamp") else field["type"]


# --- Topics and table belong together ------------------------------------------------------------------------------------

def wait_for_pair() -> None:
    """Wait until Kafka and HDFS are usable (compose/serve calls it before it starts Connect)."""
    for name in ("kafka", "namenode", "datanode"):
        servers.wait_for(name, servers.SERVERS[name].usable, servers.START_TIMEOUT_S)


def note_pair() -> None:
    """Note in HDFS which topics the table is made from, once, so that another pair is refused."""
    if noted_pair() is None:
        options = hdfs_native.WriteOptions(overwrite=False)
        with hdfs.client().create(PAIR, options) as file:
            file.write(json.dumps(topics.ids()).encode())


def noted_pair() -> dict | None:
    """The Kafka cluster and topic ids that the table was made from; None before the sink was first registered."""
    try:
        with hdfs.client().read(PAIR) as file:
            return json.loads(file.read())
    except FileNotFoundError:
        return None


def belong_together() -> None:
    """Refuse topics and a table that do not belong together: a sink started over them loses clicks without a sign.

    Raises
    ------
    Trouble
        Names which side is new, and the cure.
    """
    noted, present = noted_pair(), topics.ids()
    if noted is None:
        # Without a note nothing has been landed here. Then the sink must not have worked over these topics either.
        if not hdfs.version() and not sum(topics.end_offsets(topics.CONTROL).values()):
            return
        why = ("HDFS is new, but the sink has already landed from these topics: it would go on behind the clicks it landed, "
               "and the table would lack all of them.")
    elif noted == present:
        return
    elif noted["cluster"] != present["cluster"]:
        why = "Kafka is new and the table in HDFS is of an earlier one: offsets would start again at 0 under the old rows."
    else:
        changed = [name for name in (topics.CLICKS, topics.CONTROL) if noted[name] != present[name]]
        why = f"{' and '.join(changed)} {'was' if len(changed) == 1 else 'were'} removed or made anew since the table was made."
    raise Trouble("Topics and table do not belong together.", why,
                  "make clean  (removes both, with all clicks), then make up. To keep the clicks, put the missing side back.")


# --- The guard -----------------------------------------------------------------------------------------------------------

def guard() -> None:
    """Restart failed tasks, for ever: Connect never does it by itself.

    Every 5 s it reads the states. Where one is FAILED it asks for a restart and logs that; after 10 min without success
    it logs the cause and the next command, and goes on once a minute.
    """
    failing_since: float | None = None
    print(f"{_now()} guard: looks at {servers.url('connect')} every {GUARD_EVERY_S} s", flush=True)
    while True:
        pause = GUARD_EVERY_S
        try:
            base = f"{servers.url('connect')}/connectors"
            for name in requests.get(base, timeout=10).json():
                failed = [(what, cause) for what, state, cause in tasks(name) if state == "FAILED"]
                if not failed:
                    if failing_since:
                        print(f"{_now()} guard: {name} runs again", flush=True)
                    failing_since = None
                    continue
                failing_since = failing_since or time.monotonic()
                for what, cause in failed:
                    print(f"{_now()} guard: {name}, {what} FAILED: {cause[:300]}; asking for a restart", flush=True)
                requests.post(f"{base}/{name}/restart?includeTasks=true&onlyFailed=true", timeout=10)
                if time.monotonic() - failing_since > GUARD_PATIENCE_S:
                    pause = 60
                    print(f"{_now()} guard: {name} fails for over {GUARD_PATIENCE_S // 60} min. Next: make doctor, then look "
                          f"into {servers.log_file('connect')}", flush=True)
        except (requests.RequestException, ValueError) as cause:
            # Connect is down or starting: supervisor's job. Said, so that a silent guard is never a mystery.
            print(f"{_now()} guard: Connect does not answer ({type(cause).__name__})", flush=True)
        time.sleep(pause)


def _now() -> str:
    return f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S%z}"
