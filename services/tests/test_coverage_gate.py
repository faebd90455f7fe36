"""What the coverage gate measures: all of it, by branches, and what is left out says why."""

import re
import tomllib
from pathlib import Path

from scripts.run_tests import stages

ROOT = Path(__file__).parents[2]
SOURCES = sorted(ROOT.glob("services/*/src/slipway_*"))
PRAGMA = re.compile(r"#\s*pragma")
# `# pragma: no cover - the reason`
WITH_REASON = re.compile(r"# pragma: no (cover|branch) - \S.{9,}$")


def test_the_gate() -> None:
    coverage = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["coverage"]
    assert coverage["run"]["branch"] is True
    assert sorted(coverage["run"]["source_pkgs"]) == sorted(source.name for source in SOURCES)
    assert coverage["report"]["fail_under"] >= 90
    # Nothing is taken out by name or by pattern.
    assert not {"omit", "include"} & {*coverage["run"], *coverage["report"]}
    assert not {"exclude_lines", "exclude_also"} & set(coverage["report"])


def test_the_stage_measures() -> None:
    (stage,) = [stage for stage in stages() if stage.name == "services"]
    assert "--cov" in stage.command


def test_every_pragma_has_a_reason() -> None:
    files = [path for source in SOURCES for path in source.rglob("*.py")]
    assert len(files) > 50
    for path in files:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            assert not PRAGMA.search(line) or WITH_REASON.search(line), f"{path.relative_to(ROOT)}:{number}: {line}"


def test_what_is_a_reason() -> None:
    assert WITH_REASON.search("    raise  # pragma: no cover - only on systems without fork")
    for line in ("x  # pragma: no cover", "x  # pragma: no cover - so", "x  # pragma: nocover because of that"):
        assert PRAGMA.search(line)
        assert not WITH_REASON.search(line)
