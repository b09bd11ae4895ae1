"""Payload logging: what was asked and answered, to an HTTP sink and to Parquet files, off the path of predictions.

The server keeps requests and replies as the bytes they came in, in a bounded queue, and hands them to a process of its
own, the writer, over a socket. Everything else, from JSON to uploads, happens there. What cannot be kept is dropped and
counted; a prediction never waits for it and never fails by it.
"""

from serving.payloads.exchange import Exchange
from serving.payloads.log import PayloadLog

__all__ = ["Exchange", "PayloadLog"]
