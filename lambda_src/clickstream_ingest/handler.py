"""The Lambda: one HTTP request in, one answer out, and a 200 only for clicks that are kept."""

import json
import os
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from clickstream_ingest import delivery, events

COLLECTOR = os.environ.get("COLLECTOR", "lambda")
ALLOWED_ORIGINS = os.environ.get("ALLOWED_ORIGINS", "http://127.0.0.1:4000,http://localhost:4000").split(",")
RETRY_AFTER_S = 5


def lambda_handler(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Answer one request to /ingest (API Gateway payload 2.0)."""
    try:
        parsed = events.parse(event, datetime.now(UTC), collector=COLLECTOR)
        delivery.send(parsed.good, parsed.bad)
    except Exception as error:
        return not_kept(event, error)
    return kept(event, parsed)


async def awaiting_handler(event: Mapping[str, Any]) -> dict[str, Any]:
    """Answer as `lambda_handler` does, for a server: other requests go on while the broker writes."""
    try:
        parsed = events.parse(event, datetime.now(UTC), collector=COLLECTOR)
        await delivery.sent(parsed.good, parsed.bad)
    except Exception as error:
        return not_kept(event, error)
    return kept(event, parsed)


def kept(event: Mapping[str, Any], parsed: events.Parsed) -> dict[str, Any]:
    """Answer when what the request held is where it belongs."""
    note(event, parsed)
    return reply(event, parsed.status, answer(parsed))


def not_kept(event: Mapping[str, Any], error: Exception) -> dict[str, Any]:
    """Answer when it may not be. Not a 2xx: the browser drops a click once we say we have it."""
    if isinstance(error, delivery.NotAcknowledged):
        delivery.log("WARNING", "not acknowledged", request_id(event), reason=str(error))
    else:
        # Ours, not the sender's: what a request can hold, `parse` answers with a 4xx.
        delivery.log("ERROR", "failed", request_id(event), traceback="".join(traceback.format_exception(error)))
    return try_again(event)


def answer(parsed: events.Parsed) -> dict[str, Any] | None:
    """Return the body that tells the sender what became of each click."""
    if parsed.status == 204:
        return None
    if parsed.single is not None:
        return {"status": "ok", "received": parsed.single}
    return {
        "status": "ok" if parsed.status == 200 else "error",
        "accepted": len(parsed.good),
        "rejected": [{"index": row.index, "event_id": row.event_id, "reason": row.reason} for row in parsed.bad],
    }


def try_again(event: Mapping[str, Any]) -> dict[str, Any]:
    return reply(event, 503, {"status": "error", "reason": "try again"}, {"Retry-After": str(RETRY_AFTER_S)})


def reply(
    event: Mapping[str, Any], status: int, body: dict[str, Any] | None, headers: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return an answer in the gateway's form."""
    told = {**cors(event), **(headers or {})}
    if status == 405:
        told["Allow"] = "POST, OPTIONS"
    if body is None:
        return {"statusCode": status, "headers": told}
    # json.dumps as the seed calls it, so that its answer stays the same to the byte.
    return {"statusCode": status, "headers": {"Content-Type": "application/json", **told}, "body": json.dumps(body)}


def cors(event: Mapping[str, Any]) -> dict[str, str]:
    """Return the headers with which a browser lets a page of ours read the answer.

    For the development server: on AWS the HTTP API answers CORS from its own settings and drops these.
    """
    origin = (event.get("headers") or {}).get("origin")
    if origin not in ALLOWED_ORIGINS:
        return {}
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Methods": "POST, OPTIONS",
        "Access-Control-Allow-Headers": "content-type",
        "Access-Control-Max-Age": "3600",
        "Vary": "Origin",
    }


def note(event: Mapping[str, Any], parsed: events.Parsed) -> None:
    """Log what was not as agreed, without what anybody sent."""
    if parsed.bad or parsed.unknown_fields:
        delivery.log(
            "INFO",
            "not all as agreed",
            request_id(event),
            status=parsed.status,
            accepted=len(parsed.good),
            rejected=len(parsed.bad),
            unknown_fields=parsed.unknown_fields,
        )


def request_id(event: Mapping[str, Any]) -> str | None:
    return (event.get("requestContext") or {}).get("requestId")
