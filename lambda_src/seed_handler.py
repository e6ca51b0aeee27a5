"""The handler this course started from, in behavior: it trusts every body, answers 200 always, and keeps a log line."""

import json
import logging

logger = logging.getLogger("seed_handler")
logger.setLevel(logging.INFO)


def lambda_handler(event, context):
    """Log the body and send it back; what is not JSON comes back as {"raw": …}."""
    body = event.get("body", "{}")
    try:
        received = json.loads(body)
    except json.JSONDecodeError:
        received = {"raw": body}
    logger.info(f"Received click event: {received}")
    return {
        "statusCode": 200,
        "headers": {"Content-Type": "application/json"},
        "body": json.dumps({"status": "ok", "received": received}),
    }
