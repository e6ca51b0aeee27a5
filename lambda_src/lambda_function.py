"""What AWS calls: `lambda_function.lambda_handler`."""

from clickstream_ingest import delivery
from clickstream_ingest.handler import lambda_handler

delivery.prepare()  # now, because AWS gives a start more processor than a request

__all__ = ["lambda_handler"]
