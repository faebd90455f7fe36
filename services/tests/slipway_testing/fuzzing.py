"""schemathesis as its users run it: a process that reads an OpenAPI document and tries everything in it."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from slipway_testing import openapi_checks

# Per operation, after the examples of the document and the systematic cases (each keyword of each schema, once).
EXAMPLES = 10
SECONDS = 120
CHECKS = (
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "missing_required_header",
    "unsupported_method",
    "use_after_free",
    "ensure_resource_availability",
    "ignored_auth",
    "failure_is_told",
    "error_is_a_problem",
    "nobody_gets_nothing",
)


def fuzz(
    url: str,
    folder: Path,
    headers: Mapping[str, str],
    *,
    nobody: bool = False,
    headers_of: Mapping[str, Mapping[str, str]] | None = None,
    method_unchecked: Sequence[str] = (),
) -> None:
    """Run every phase against the service at `url`; nothing is random, so that a failure comes again.

    `headers_of` has other headers for single paths; `method_unchecked` are paths where a method that the document
    does not name there means something else than 405. Raises AssertionError with the report, whose end says what failed
    and has a curl command that shows it.
    """
    checks: dict[str, Any] = {"enabled": False} | {name: {"enabled": True} for name in CHECKS}
    # 413 too: a body is refused by its size before anybody looks at what is in it.
    checks["negative_data_rejection"]["expected-statuses"] = [400, 401, 403, 404, 405, 409, 413, 415, 422, 429, 503]
    configuration = {
        "color": False,
        "base-url": url,
        # In the file, not on the command line: they carry tokens.
        "headers": dict(headers),
        "continue-on-failure": True,
        "generation": {
            "deterministic": True,
            "max-examples": EXAMPLES,
            "database": "none",
            "no-shrink": True,
        },
        "checks": checks,
        # Where every answer should be the same 401 the systematic cases are enough.
        "phases": {"fuzzing": {"enabled": not nobody}, "stateful": {"enabled": not nobody}},
        "warnings": False,
        "output": {"truncation": {"enabled": True}},
        "operations": [
            *({"include-path": path, "headers": {**headers, **own}} for path, own in (headers_of or {}).items()),
            *(
                {"include-path": path, "checks": {"unsupported_method": {"enabled": False}}}
                for path in method_unchecked
            ),
        ],
    }
    file = folder / "schemathesis.toml"
    file.write_text(toml(configuration))
    environment = os.environ | {
        "SCHEMATHESIS_HOOKS": openapi_checks.__name__,
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    environment |= {openapi_checks.NOBODY: "1"} if nobody else {}
    command = [Path(sys.executable).with_name("schemathesis"), "--config-file", file, "run", f"{url}/openapi.json"]
    done = subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    report = done.stdout[-12_000:] + done.stderr[-2_000:]
    assert done.returncode == 0, report


def toml(value: Mapping[str, Any]) -> str:
    """The configuration as schemathesis reads it: its keys in quotes, and every table in one line."""
    return "".join(f"{json.dumps(name)} = {_inline(each)}\n" for name, each in value.items())


def _inline(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(name)} = {_inline(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    # Strings, numbers and truth values look the same in TOML.
    return json.dumps(value)
