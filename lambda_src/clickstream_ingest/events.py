"""The event contract: what a click is, what the collector accepts, and what it makes of it.

`Click` is the only definition. The JSON Schema for the snippet, the Connect schema for the sink and the table of columns
in the notebooks are derived from it, below.
"""

import base64
import errno
import json
import os
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import blake2b
from math import isinf
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

import msgspec
from msgspec import Meta, Struct

SCHEMA_VERSION = 1
MAX_CLICKS = 20
MAX_BODY_BYTES = 64 * 1024
MAX_NESTING = 50  # levels; the contract is flat, and what is deeper would exhaust the stack when it is written again
KEPT_PAYLOAD_BYTES = 2048

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
_DAY_MS = 86_400_000
OLDEST_MS = (datetime(2000, 1, 1, tzinfo=UTC) - _EPOCH) // _MS

# The types of the fields; `extra` names those of the topic and the table. Ranges are checked here, because Kafka Connect
# makes a 0 of what does not fit, without a word.
_UUID = "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"
Text = Annotated[str, Meta(max_length=2000)]
Text128 = Annotated[str, Meta(max_length=128)]
Text64 = Annotated[str, Meta(max_length=64)]
Language = Annotated[str, Meta(max_length=35)]
Uuid = Annotated[str, Meta(pattern=_UUID, max_length=36, extra={"type": "uuid"})]  # "$" alone lets a line break through
Instant = Annotated[int, Meta(ge=OLDEST_MS, extra={"type": "instant"})]
Pixels = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1, extra={"type": "int32"})]
Count = Annotated[int, Meta(ge=0, le=2**31 - 1, extra={"type": "int32"})]
Minutes = Annotated[int, Meta(ge=-(2**15), le=2**15 - 1, extra={"type": "int16"})]
Percent = Annotated[int, Meta(ge=0, le=100, extra={"type": "int8"})]
Button = Annotated[int, Meta(ge=0, le=127, extra={"type": "int8"})]
EventName = Literal["click", "page_view", "engagement"]
Collector = Literal["lambda", "dev", "replay"]
COLLECTORS = get_args(Collector)


def _means(text: str, **limits: int) -> Meta:
    return Meta(description=text, **limits)


class Click(Struct, kw_only=True, frozen=True, omit_defaults=True, gc=False):
    """One event, as it stands in the topic. A field without a default is required forever; new fields are optional."""

    path: Annotated[Text, _means("Path of the page, `location.pathname`", min_length=1)]
    tag: Annotated[Text64, _means("Name of the element clicked itself, as the DOM gives it; empty for a page view")]
    id: Annotated[Text128 | None, _means("DOM id of that element")] = None
    timestamp: Annotated[Instant, _means("Client clock at the event, ms since 1970 UTC")]
    event_id: Annotated[Uuid, _means("Made in the browser; the ledger's key")]
    event_name: Annotated[EventName, _means("What happened: click, page_view or engagement")]
    page_view_id: Annotated[Uuid | None, _means("One per page view")] = None
    seq: Annotated[Count | None, _means("0, 1, 2 … within a page view; a gap is a loss")] = None
    session_id: Annotated[Uuid | None, _means("One per browser tab, kept without a cookie")] = None
    hostname: Annotated[Text | None, _means("Host of the page")] = None
    referrer: Annotated[Text | None, _means("The page before; without its query when on another site")] = None
    title: Annotated[Text | None, _means("Title of the page")] = None
    link_url: Annotated[Text | None, _means("Absolute target of the nearest enclosing link")] = None
    outbound: Annotated[bool | None, _means("Whether that link leads to another host")] = None
    button: Annotated[Button | None, _means("Mouse button: 0 main, 1 middle")] = None
    x: Annotated[Pixels | None, _means("Distance from the page's left edge, CSS px")] = None
    y: Annotated[Pixels | None, _means("Distance from the page's top, CSS px")] = None
    page_width: Annotated[Count | None, _means("Width of the whole page, CSS px")] = None
    page_height: Annotated[Count | None, _means("Height of the whole page, CSS px")] = None
    viewport_width: Annotated[Count | None, _means("Width of its visible part, CSS px")] = None
    viewport_height: Annotated[Count | None, _means("Height of its visible part, CSS px")] = None
    scroll_pct: Annotated[Percent | None, _means("Deepest point seen, % of the page")] = None
    engaged_ms: Annotated[Count | None, _means("Time the page was visible and focused, ms")] = None
    language: Annotated[Language | None, _means("Language of the browser, BCP 47")] = None
    zone_offset_min: Annotated[Minutes | None, _means("Time zone, min; east of UTC is positive")] = None
    sent_at: Annotated[
        Instant | None, _means("Client clock when sent, ms since 1970 UTC; later than timestamp on a retry")
    ] = None
    queue_dropped: Annotated[Count | None, _means("Events this tab had to drop")] = None
    is_webdriver: Annotated[bool | None, _means("An automated browser says so itself")] = None
    schema_version: Annotated[Count, _means("Version of this contract")]
    tracker_version: Annotated[Text64 | None, _means("Version of the snippet")] = None
    received_at: Annotated[
        Instant, _means("Server clock, ms since 1970 UTC; partitions the table and is the Kafka timestamp")
    ]
    corrected_at: Annotated[
        Instant,
        _means("received_at − (sent_at − timestamp), ms since 1970 UTC: the client's clock error removed; "
               "received_at when sent_at is missing"),
    ]  # fmt: skip
    request_id: Annotated[Text64, _means("The gateway's id of the request that brought it")]
    collector: Annotated[Collector, _means("The program that took it in: lambda, dev or replay")]
    user_agent: Annotated[Text | None, _means("What the browser calls itself")] = None
    is_bot: Annotated[bool, _means("Not a person, as far as user_agent and is_webdriver tell; marked, not dropped")]


FIELDS = Click.__struct_fields__
FROM_SEED = ("path", "tag", "id", "timestamp")
FROM_HANDLER = ("received_at", "corrected_at", "request_id", "collector", "user_agent", "is_bot")
FROM_CLIENT = tuple(field for field in FIELDS if field not in FROM_HANDLER)
TAUGHT_FIRST = (*FROM_SEED, "event_id", "event_name", "page_view_id", "seq", "session_id", "link_url",
                "received_at", "corrected_at")  # fmt: skip
_FROM_CLIENT = frozenset(FROM_CLIENT)
_REQUIRED_IN_REQUEST = ("path", "tag", "timestamp")


# JSON can spell half of an emoji ("\ud83d"), UTF-8 and Parquet can not.
_HALF = "a string holds half of a surrogate pair"

_encoder = msgspec.json.Encoder()


class ContractError(ValueError):
    """A click breaks the contract; the text says which field and how."""


class Rejected(Struct, kw_only=True):
    """A row of the rejected topic: what was refused, and why."""

    received_at: int  # ms since 1970 UTC
    request_id: str
    reason: str
    index: int | None  # place in the request's array; None when the body as a whole was refused
    event_id: str | None
    collector: str
    payload: str  # the first 2 KB; empty when there was no body


class Parsed(Struct, kw_only=True):
    """What a request turned out to be."""

    status: int  # HTTP: 200, 204, 400, 405 or 413
    good: list[Click] = []
    bad: list[Rejected] = []
    single: dict | None = None  # the one good click as the client sent it: the seed echoes it
    unknown_fields: int = 0  # dropped from the good clicks


def parse(event: Mapping[str, Any], received_at: datetime, *, collector: str) -> Parsed:
    """Judge one request (API Gateway payload 2.0), whatever it holds.

    The body is JSON as Python's `json` reads it: of a key given twice the last one counts, but NaN and Infinity are
    refused. Each click of an array is judged alone, so a bad one does not take the good ones with it.

    Parameters
    ----------
    received_at : datetime
        Aware. Instants from 2000 to a day after it are accepted.
    collector : str
        One of `COLLECTORS`. Another one raises ValueError: our mistake, and never a reason to refuse a click.
    """
    if collector not in COLLECTORS:
        raise ValueError(f"collector is {collector!r}, not one of {COLLECTORS}")
    context = event.get("requestContext") or {}
    request_id = _fitting(context.get("requestId"), 64) or str(uuid.uuid4())
    user_agent = _fitting((event.get("headers") or {}).get("user-agent"), 2000)
    raw, broken = _body(event)

    def rejected(reason: str, payload: str, index: int | None = None, event_id: str | None = None) -> Rejected:
        return Rejected(
            received_at=_milliseconds(received_at),
            request_id=request_id,
            reason=reason,
            index=index,
            event_id=event_id,
            collector=collector,
            payload=payload,
        )

    def refused(status: int, reason: str) -> Parsed:
        return Parsed(status=status, bad=[rejected(reason, raw[:KEPT_PAYLOAD_BYTES].decode(errors="replace"))])

    method = (context.get("http") or {}).get("method", "POST")  # absent when the function is invoked without a gateway
    if method == "OPTIONS":
        return Parsed(status=204)
    if method != "POST":
        return refused(405, "clicks are sent with POST")
    if broken:
        return refused(400, broken)
    if len(raw) > MAX_BODY_BYTES:
        return refused(413, f"the body is larger than {MAX_BODY_BYTES:,} bytes")
    if not raw:
        return refused(400, "the body is empty")
    try:
        body = _decode(raw)
    except (ValueError, RecursionError) as error:
        return refused(400, f"not JSON: {error}")
    items = body if isinstance(body, list) else [body]
    if not 1 <= len(items) <= MAX_CLICKS:
        return refused(400, f"an array holds 1 to {MAX_CLICKS} clicks, this one {len(items)}")

    parsed = Parsed(status=200)
    for index, item in enumerate(items):
        try:
            click = normalize(item, received_at, request_id=request_id, collector=collector, user_agent=user_agent)
        except ContractError as error:
            parsed.status = 400
            payload = json.dumps(item, ensure_ascii=False).encode(errors="replace")[:KEPT_PAYLOAD_BYTES]
            parsed.bad.append(rejected(str(error), payload.decode(errors="ignore"), index, _event_id(item)))
        else:
            parsed.good.append(click)
            parsed.unknown_fields += len(item.keys() - _FROM_CLIENT)
    if body is not items and parsed.good:
        parsed.single = body
    return parsed


def normalize(
    click: Any,
    received_at: datetime,
    *,
    request_id: str = "",
    collector: str = "replay",
    user_agent: str | None = None,
) -> Click:
    """Make the record of the topic from a click as a client sends it.

    Instants become ms, ids lower case; null counts as absent, unknown fields and those only the handler may set are
    dropped; a missing event_id is made here.

    Raises
    ------
    ContractError
        The click breaks the contract.
    """
    if not isinstance(click, dict):
        raise ContractError("a click is a JSON object")
    record = {name: value for name in FROM_CLIENT if (value := click.get(name)) is not None}
    now_ms = _milliseconds(received_at)
    for name in ("timestamp", "sent_at"):
        if name in record:
            record[name] = _instant(name, record[name], now_ms)
    for name in ("event_id", "page_view_id", "session_id"):
        if isinstance(value := record.get(name), str):
            record[name] = value.lower()  # else one uuid, written in two ways, would be two ids
    if "event_id" not in record:
        record["event_id"] = str(uuid.uuid4())
    record.setdefault("event_name", "click")
    record.setdefault("schema_version", SCHEMA_VERSION)
    record["received_at"] = record["corrected_at"] = now_ms
    if "timestamp" in record and "sent_at" in record:
        corrected_ms = now_ms - (record["sent_at"] - record["timestamp"])
        record["corrected_at"] = max(OLDEST_MS, min(corrected_ms, now_ms + _DAY_MS))
    record["request_id"] = request_id
    record["collector"] = collector
    record["user_agent"] = user_agent
    record["is_bot"] = is_bot(user_agent, record.get("is_webdriver"))
    try:
        made = msgspec.convert(record, Click)
        encode(made)
    except msgspec.ValidationError as error:
        raise ContractError(str(error)) from error
    except UnicodeEncodeError as error:
        raise ContractError(_HALF) from error
    return made


_BOT = re.compile(
    r"(?<!cu)bot|crawl|spider|slurp|headless|preview|monitor|curl|wget|python|java/|httpclient|okhttp|go-http|axios",
    re.IGNORECASE,
)


def is_bot(user_agent: str | None, is_webdriver: bool | None) -> bool:
    """Say whether a program rather than a person clicked, going by what it tells about itself.

    Who hides is not found. A browser always names itself, so no name means a program; Cubot is a telephone.
    """
    return is_webdriver is True or not user_agent or _names_a_program(user_agent)


@lru_cache(maxsize=256)  # the clicks of one request share it, and those of many requests
def _names_a_program(user_agent: str) -> bool:
    return _BOT.search(user_agent) is not None


def encode(click: Click) -> bytes:
    """Write the record's value: JSON without the fields that are absent, which Connect's converter reads as null."""
    return _encoder.encode(click)


def key(click: Click) -> bytes:
    """Return the record's key. Order holds within a Kafka partition, so the events of a page view share one."""
    return (click.page_view_id or click.event_id).encode()


def headers(click: Click) -> list[tuple[str, bytes]]:
    """Return the record's headers: enough to trace it without reading its value."""
    return [("event_id", click.event_id.encode()), ("schema_version", str(click.schema_version).encode())]


def fingerprint(record: Click | Mapping[str, Any]) -> str:
    """Digest what the client told, so that a change on the way to the table shows.

    Fields made by the handler and absent ones (None) do not count, so later optional fields change no fingerprint.

    Parameters
    ----------
    record : Click or mapping
        A mapping is the decoded value of a topic record, or a row of the table with int, str, bool and None in it
        (instants in ms since 1970 UTC).

    Returns
    -------
    str
        16 hexadecimal digits.
    """
    if isinstance(record, Click):
        record = msgspec.structs.asdict(record)
    told = {name: value for name in FROM_CLIENT if (value := record.get(name)) is not None}
    return blake2b(_encoder.encode(told), digest_size=8).hexdigest()


class LedgerLine(Struct, omit_defaults=True):
    """A line of the ledger: one thing that is known about one event."""

    event_id: str
    source: str  # who sent it
    state: Literal["posted", "acknowledged", "refused", "unknown", "removed"]
    at: int  # ms since 1970 UTC
    fingerprint: str | None = None  # of what was sent; on `posted` only


_ledger_line = msgspec.json.Decoder(LedgerLine)


def append(path: Path, lines: Iterable[LedgerLine]) -> None:
    """Add lines to a ledger file, made with its folder when absent; read them with `read_lines`.

    One write to a file opened for appending, so lines of several processes stay whole.

    Raises
    ------
    OSError
        The disk is full or the file cannot be written; a part of the lines may be there.
    """
    # A kill may cut a write anywhere, so each begins on a line of its own instead of where that one ended.
    data = b"\n" + b"".join(_encoder.encode(line) + b"\n" for line in lines)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab", buffering=0) as file:
        if file.write(data) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def read_lines(data: bytes) -> list[LedgerLine]:
    """Decode what `append` wrote, without the lines that a kill cut off: what they said was not known for sure.

    Raises
    ------
    msgspec.DecodeError, msgspec.ValidationError
        A whole line, with its closing brace, is none of the ledger's.
    """
    return [_ledger_line.decode(line) for line in data.split(b"\n") if line.endswith(b"}")]


class Column(NamedTuple):
    """A row of the table of columns the notebooks show."""

    field: str
    type: str
    meaning: str
    source: str  # first script (the series' own), browser or handler
    is_taught_first: bool


def columns() -> list[Column]:
    """List the fields of a click in the contract's order, for people."""
    return [
        Column(
            field=name,
            type=kind if limit is None else f"{kind} ≤ {limit:,}",
            meaning=meaning,
            source="first script" if name in FROM_SEED else "handler" if name in FROM_HANDLER else "browser",
            is_taught_first=name in TAUGHT_FIRST,
        )
        for name, kind, limit, meaning, _ in _described()
    ]


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a click as a client sends it."""
    of_record = msgspec.json.schema(Click)["$defs"]["Click"]["properties"]
    properties = {name: of_record[name] for name in FROM_CLIENT}
    for name, kind, _, meaning, _ in _described():
        if kind == "instant" and name in properties:
            properties[name] = {
                "description": meaning.replace("ms since 1970 UTC", "ISO 8601 with a zone, or ms since 1970 UTC"),
                "anyOf": [{"type": "string", "format": "date-time"}, {"type": "integer", "minimum": OLDEST_MS}],
            }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Click",
        "description": "One event as a browser sends it; unknown fields are dropped, null counts as absent",
        "type": "object",
        "properties": properties,
        "required": list(_REQUIRED_IN_REQUEST),
    }


def connect_schema() -> dict[str, Any]:
    """Return the schema of the record for Kafka Connect's JsonConverter (`value.converter.schema.content`)."""
    plain = {"uuid": "string", "bool": "boolean"}
    fields = []
    for name, kind, _, _, is_required in _described():
        field: dict[str, Any] = {"field": name, "type": plain.get(kind, kind), "optional": not is_required}
        if kind == "instant":
            field |= {"type": "int64", "name": "org.apache.kafka.connect.data.Timestamp", "version": 1}
        fields.append(field)
    return {"type": "struct", "name": "click", "fields": fields}


def _described() -> Iterator[tuple[str, str, int | None, str, bool]]:
    """Yield (name, type, longest string or None, meaning, whether required) for each field of a click."""
    for field in msgspec.inspect.type_info(Click).fields:
        meaning, of = field.type.extra_json_schema["description"], field.type
        if isinstance(of.type, msgspec.inspect.UnionType):
            of = of.type.types[0]
        plain = getattr(of, "type", of)
        kind = (getattr(of, "extra", None) or {}).get("type") or (
            "bool" if isinstance(plain, msgspec.inspect.BoolType) else "string"
        )
        limit = getattr(plain, "max_length", None) if kind == "string" else None
        yield field.name, kind, limit, meaning, field.required


def _body(event: Mapping[str, Any]) -> tuple[bytes, str | None]:
    """Return the body's bytes, and what is wrong with how they were handed over, if anything."""
    body = event.get("body")
    if body is None:
        return b"", None
    if not isinstance(body, str):
        return b"", "the body is not text"
    if event.get("isBase64Encoded"):
        try:
            return base64.b64decode(body, validate=True), None
        except ValueError:
            return body.encode(errors="replace"), "the body is not base64, though the gateway says so"
    return body.encode(errors="surrogatepass"), None


def _decode(raw: bytes) -> Any:
    try:
        body = msgspec.json.decode(raw)
    except (msgspec.DecodeError, ValueError, RecursionError):
        # What msgspec reads, `json` reads as the same, in three times the time. But `json` reads more, such as half a
        # surrogate pair in one click of twenty, and its words for what is wrong are the ones that people search for.
        body = _decoder.decode(raw.decode())
    # Counting is cheap, walking is not: hardly any body has enough brackets to be that deep.
    if raw.count(b"[") + raw.count(b"{") > MAX_NESTING and _is_deeper(body, MAX_NESTING):
        raise ValueError(f"nested deeper than {MAX_NESTING} levels")
    return body


def _is_deeper(value: Any, levels: int) -> bool:
    if not isinstance(value, (dict, list)):
        return False
    inside = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deeper(each, levels - 1) for each in inside)


def _finite(text: str) -> float:
    number = float(text)
    if isinf(number):
        _refuse(text[:20])
    return number


def _refuse(text: str) -> None:
    raise ValueError(f"{text} is no finite number")


_decoder = json.JSONDecoder(parse_float=_finite, parse_constant=_refuse)


def _instant(name: str, value: Any, now_ms: int) -> int:
    """Return ms since 1970 UTC, from ISO 8601 text or from ms."""
    if isinstance(value, str):
        try:
            at = msgspec.convert(value, datetime)
        except msgspec.ValidationError as error:
            raise ContractError(f"{name}: {error}") from error
        except UnicodeEncodeError as error:
            raise ContractError(f"{name}: {_HALF}") from error
        if at.tzinfo is None:
            raise ContractError(f"{name}: say the zone, by Z or an offset")
        value = _milliseconds(at)
    elif type(value) is not int:  # isinstance would take true for 1
        raise ContractError(f"{name}: neither ISO 8601 text nor whole milliseconds")
    if not OLDEST_MS <= value <= now_ms + _DAY_MS:
        raise ContractError(f"{name}: not between 2000 and a day from now")
    return value


def _milliseconds(at: datetime) -> int:
    return (at - _EPOCH) // _MS


def _event_id(item: Any) -> str | None:
    """Return the id a refused click claims, where it can be one."""
    claimed = item.get("event_id") if isinstance(item, dict) else None
    return claimed.lower() if isinstance(claimed, str) and re.fullmatch(_UUID, claimed) else None


def _fitting(value: Any, longest: int) -> str | None:
    """Cut what the gateway tells to the contract's size: nobody's click is refused for a long header."""
    return value[:longest].encode(errors="replace").decode() if isinstance(value, str) else None
