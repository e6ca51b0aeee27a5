"""The HTTP API gateway, played on this machine: makes payload 2.0 events of requests to /ingest and calls the handler.

Run it with `python -m uvicorn dev_server:app --app-dir lambda_src`. Settings are the handler's (see `delivery`, `handler`)
and LEDGER_DIR: the folder where clicks that nobody else enters are entered into the ledger.
"""

import asyncio
import base64
import os
import random
import time
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

os.environ.setdefault("COLLECTOR", "dev")  # before the handler reads it

from anyio import CapacityLimiter, to_thread
from clickstream_ingest import delivery, events
from clickstream_ingest.handler import awaiting_handler, try_again
from fastapi import FastAPI, Request, Response
from lambda_function import lambda_handler

# What the gateway takes; the handler's own limit is smaller, and its answer to more than that is 413.
MAX_BODY_BYTES = 10 * 1024 * 1024
# As many requests at once as may wait for Kafka. AWS has such a limit too, and the same answer beyond it.
CONCURRENCY = 256
METHODS = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"]  # ANY, to the gateway
TEXT_TYPES = ("text/", "application/json", "application/javascript", "application/xml")


@asynccontextmanager
async def lifespan(app: FastAPI):
    delivery.prepare()  # a mistyped setting stops the server here and not each request
    app.state.under_way = CapacityLimiter(CONCURRENCY)
    yield
    delivery.close()


app = FastAPI(title="clickstream-ingest", lifespan=lifespan, openapi_url=None)


async def ingest(request: Request) -> Response:
    """Let the handler answer."""
    event = payload(request, await read(request))
    _ledger.set(ledger_file(request))
    under_way = request.app.state.under_way
    if under_way.available_tokens < 1:
        answer = try_again(event)
    elif delivery.sink() in delivery.AWAITED:
        under_way.acquire_on_behalf_of_nowait(request)  # `async with` goes once around the loop: a quarter of a request
        try:
            answer = await awaiting_handler(event)
        finally:
            under_way.release_on_behalf_of(request)
    else:
        answer = await to_thread.run_sync(lambda_handler, event, None, limiter=under_way)
    return Response(answer.get("body"), answer["statusCode"], answer["headers"])


# Not @app.api_route: this route hands raw requests on, and FastAPI's reading of parameters costs a fifth of each.
app.add_route("/ingest", ingest, methods=METHODS)


@app.get("/health")
async def health() -> dict[str, str]:
    """Say that this server answers, where clicks go, and whether the broker's port does."""
    state = {"status": "ok", "sink": delivery.sink()}
    if state["sink"] != "log":
        state["broker"] = "reachable" if await is_broker_reachable() else "unreachable"
    return state


async def read(request: Request) -> bytes:
    """Return the body, cut soon after it is longer than the handler takes.

    The rest is read and thrown away: a client that is still sending would not see the answer.
    """
    body, size = bytearray(), 0
    async for chunk in request.stream():
        size += len(chunk)
        if len(body) <= events.MAX_BODY_BYTES:
            body += chunk
        if size > MAX_BODY_BYTES:
            break
    return bytes(body)


def payload(request: Request, body: bytes) -> dict[str, Any]:
    """Make the event an HTTP API gives to a Lambda (payload format 2.0)."""
    scope, now = request.scope, time.time()
    path, query = scope["path"], scope["query_string"].decode("latin-1")
    headers: dict[str, str] = {}
    for name, value in request.headers.items():
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    cookies = headers.pop("cookie", None)
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": "ANY /ingest",
        "rawPath": path,
        "rawQueryString": query,
        "headers": headers,
        "requestContext": {
            "accountId": "000000000000",
            "apiId": "local",
            "domainName": headers.get("host", ""),
            "domainPrefix": "local",
            "http": {
                "method": scope["method"],
                "path": path,
                "protocol": f"HTTP/{scope['http_version']}",
                "sourceIp": scope["client"][0] if scope["client"] else "",
                "userAgent": headers.get("user-agent", ""),
            },
            "requestId": f"{random.getrandbits(64):016x}",
            "routeKey": "ANY /ingest",
            "stage": "$default",
            "time": time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(now)),
            "timeEpoch": int(now * 1000),
        },
        "isBase64Encoded": False,
    }
    if cookies:
        event["cookies"] = cookies.split("; ")
    if query:
        event["queryStringParameters"] = {
            name: ",".join(request.query_params.getlist(name)) for name in request.query_params
        }
    if body:
        event["body"], event["isBase64Encoded"] = as_text(body, headers.get("content-type", ""))
    return event


def as_text(body: bytes, content_type: str) -> tuple[str, bool]:
    """Return the body as the gateway hands it over, and whether that is base64.

    The gateway goes by the type alone: forms and bodies without a type come as base64.
    """
    if content_type.lower().startswith(TEXT_TYPES):
        try:
            return body.decode(), False
        except UnicodeDecodeError:
            pass  # base64 keeps the bytes, and the handler says what is wrong with them
    return base64.b64encode(body).decode(), True


async def is_broker_reachable() -> bool:
    """Try the port of each bootstrap server for half a second."""
    for address in delivery.BOOTSTRAP_SERVERS:
        host, _, port = address.rpartition(":")
        try:
            _, writer = await asyncio.wait_for(asyncio.open_connection(host, int(port)), timeout=0.5)
        except OSError:  # TimeoutError is one
            continue
        writer.close()
        return True
    return False


# The ledger. The handler delivers as everywhere; here the delivery also leaves lines for what it was given.

_ledger: ContextVar[Path | None] = ContextVar("ledger", default=None)


def ledger_file(request: Request) -> Path | None:
    """Return the ledger file for this request, None where nothing is to be entered."""
    folder = os.environ.get("LEDGER_DIR")
    if not folder or delivery.sink() == "log" or "x-ledger-run" in request.headers:  # with a run, its client enters
        return None
    return Path(folder, "browser.jsonl" if "origin" in request.headers else "curl.jsonl")


@contextmanager
def entered(good: list[events.Click], bad: list[events.Rejected]) -> Iterator[None]:
    """Enter around a delivery, so that the ledger knows each click before the topic can hold it."""
    if (file := _ledger.get()) is None:
        yield
        return
    enter(file, "posted", good)
    try:
        yield
    except Exception:
        enter(file, "unknown", good)
        raise
    enter(file, "acknowledged", good)
    enter(file, "refused", [row for row in bad if row.event_id])


def enter(file: Path, state: str, rows: list) -> None:
    """Add a line to the ledger for each click or refused row."""
    if rows:
        at = time.time_ns() // 1_000_000
        prints = [events.fingerprint(row) if state == "posted" else None for row in rows]
        events.append(
            file,
            [
                events.LedgerLine(row.event_id, file.stem, state, at, fingerprint)
                for row, fingerprint in zip(rows, prints, strict=True)
            ],
        )


def send(good: list[events.Click], bad: list[events.Rejected], deliver=delivery.send) -> None:
    with entered(good, bad):
        deliver(good, bad)


async def sent(good: list[events.Click], bad: list[events.Rejected], deliver=delivery.sent) -> None:
    with entered(good, bad):
        await deliver(good, bad)


delivery.send, delivery.sent = send, sent
