"""Waiting for what other threads and processes do."""

import time
from collections.abc import Callable
from urllib.error import URLError

import pytest


def eventually(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            if true():
                return
        except (URLError, ConnectionError):
            pass
        time.sleep(0.02)
    pytest.fail("it didn't become true within 30 seconds")
