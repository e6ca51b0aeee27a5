"""What AWS calls: `lambda_function.lambda_handler`."""

from clickstream_ingest.handler import lambda_handler

__all__ = ["lambda_handler"]
