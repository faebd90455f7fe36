"""The log: one JSON object a line whoever writes it, with the ids of the request, and without secrets."""

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from typing import Any

import pytest
import structlog
from slipway_kit.logs import configure_logging

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def output() -> io.StringIO:
    """Stands for standard output; loggers keep what that was when they were made."""
    return io.StringIO()


@pytest.fixture
def lines(output: io.StringIO) -> Iterator[Lines]:
    """Configures the log as a service does, and undoes it. All lines so far."""
    before = structlog.get_config()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    quiet = {name: logging.getLogger(name).level for name in ("python_multipart", "urllib3", "PIL", "asyncio")}
    with redirect_stdout(output):
        configure_logging("probe", "1a2b3c", "info")
    structlog.contextvars.clear_contextvars()
    yield lambda: [json.loads(line) for line in output.getvalue().splitlines()]
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, number in quiet.items():
        logging.getLogger(name).setLevel(number)
    structlog.contextvars.clear_contextvars()
    structlog.configure(**before)


def test_own_lines_and_those_of_libraries_look_alike(lines: Lines) -> None:
    with structlog.contextvars.bound_contextvars(request_id="r-1", trace_id="t-1"):
        structlog.get_logger().info("something", count=3)
        logging.getLogger("uvicorn.error").warning("Shutting %s", "down")
    own, library = lines()
    common = {"service": "probe", "version": "1a2b3c", "request_id": "r-1", "trace_id": "t-1"}
    assert own | common | {"event": "something", "count": 3, "level": "info"} == own
    assert library | common | {"event": "Shutting down", "level": "warning", "logger": "uvicorn.error"} == library
    for line in (own, library):
        assert line["time"].endswith("Z")


@pytest.mark.parametrize(
    "key", ["password", "new_password", "refresh_token", "Authorization", "COOKIE", "client_secret", "auth_signing_key"]
)
def test_what_is_called_a_secret_is_not_shown(lines: Lines, key: str) -> None:
    structlog.get_logger().info("something", **{key: "hunter2"})
    logging.getLogger("somebody").info("something", extra={key: "hunter2"})
    own, library = lines()
    assert own[key] == "[redacted]"
    assert "hunter2" not in json.dumps([own, library])


def test_nobody_can_write_a_line_of_their_own(lines: Lines) -> None:
    evil = 'x\n{"event": "login", "user": "root"}\r\x1b[2J\u2028'
    structlog.get_logger().info("something", path=evil)
    logging.getLogger("somebody").info(evil)
    own, library = lines()
    assert own["path"] == evil
    assert library["event"] == evil


def test_levels(lines: Lines) -> None:
    structlog.get_logger().debug("too much")
    logging.getLogger("somebody").debug("too much")
    for name in ("python_multipart", "urllib3", "PIL", "asyncio"):
        logging.getLogger(name).warning("of a request that has its own line")
    assert lines() == []
    logging.getLogger("asyncio").error("a real mistake")
    assert [line["event"] for line in lines()] == ["a real mistake"]


def test_exceptions_are_one_line(lines: Lines) -> None:
    try:
        raise RuntimeError("two\nlines")
    except RuntimeError:
        structlog.get_logger().exception("failed")
        logging.getLogger("somebody").exception("failed")
    for line in lines():
        assert line["level"] == "error"
        assert "RuntimeError: two\nlines" in line["exception"]


def test_warnings_of_python_are_lines_too(lines: Lines) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.warn("old ways", DeprecationWarning, stacklevel=1)
    (line,) = lines()
    assert "DeprecationWarning: old ways" in line["event"]


def test_for_people(lines: Lines, output: io.StringIO) -> None:
    with redirect_stdout(output):
        configure_logging("probe", "dev", "info", "console")
    structlog.get_logger().info("something", count=3)
    out = output.getvalue()
    assert "something" in out
    assert "count=3" in out
    assert "\x1b" not in out
