"""The artifact store: keys, atomic entries, one build for many askers, lanes, pruning, stopping."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from artifact_engine import Engine, Job, Queue
from artifact_entries import Store
from artifact_recipe import LIBRARY, ArtifactError, Catalog, Request

ROOT = Path(__file__).parents[2]


class Project:
    """A source tree with recipes of its own and the project's library."""

    def __init__(self, root: Path) -> None:
        self.source = root / "source"
        self.recipes = self.source / "images"
        self.cache = root / "cache"
        self.library = self.source / "library"
        self.versions: dict[str, Any] = {"tool_version": "1.2.3"}
        self.go_version = "go1.26.6"
        self.library.mkdir(parents=True)
        for name in LIBRARY:
            (self.library / name).write_text(f"# {name}\n")

    def recipe(self, name: str, script: str = 'echo made >"$OUT/result"', **fields: Any) -> Path:
        directory = self.recipes / name
        directory.mkdir(parents=True, exist_ok=True)
        data = {"outputs": ["result"], "lane": "light", "seconds": 1, **fields}
        (directory / "recipe.yml").write_text(yaml.safe_dump(data))
        (directory / "build.sh").write_text(script + "\n")
        return directory

    def catalog(self) -> Catalog:
        return Catalog([self.recipes], self.source, self.library, self.versions, self.go_version)

    def engine(self, **options: Any) -> Engine:
        return Engine(Store(self.cache), self.catalog(), **options)

    def key(self, name: str = "tool") -> str:
        catalog = self.catalog()
        return catalog.key(catalog.request(name))

    def build(self, *names: str) -> tuple[dict[str, Any], list[str]]:
        engine = self.engine()
        return engine.ensure([engine.catalog.request(name) for name in names])


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


# -- keys


def change_script(project: Project) -> None:
    project.recipe("tool", "echo other", version="tool_version", needs=["base"], paths=["code/*"], lane="go")


def change_base(project: Project) -> None:
    project.recipe("base", "echo other")


def add_file(project: Project) -> None:
    (project.recipes / "tool/go.mod").write_text("module tool\n")


def make_executable(project: Project) -> None:
    (project.recipes / "tool/helper").chmod(0o755)


def change_version(project: Project) -> None:
    project.versions["tool_version"] = "1.2.4"


def change_path(project: Project) -> None:
    (project.source / "code/main.py").write_text("other")


def add_path(project: Project) -> None:
    (project.source / "code/more.py").write_text("")


def change_library(project: Project) -> None:
    (project.library / "lib.sh").write_text("# other\n")


def change_go(project: Project) -> None:
    project.go_version = "go1.27.0"


def write_inputs(project: Project) -> None:
    project.recipe("base")
    directory = project.recipe("tool", version="tool_version", needs=["base"], paths=["code/*"], lane="go")
    (directory / "helper").write_text("")
    (project.source / "code").mkdir()
    (project.source / "code/main.py").write_text("")


CHANGES = [
    change_script,
    change_base,
    add_file,
    make_executable,
    change_version,
    change_path,
    add_path,
    change_library,
    change_go,
]


@pytest.mark.parametrize("change", CHANGES)
def test_any_changed_input_changes_the_key(project: Project, change: Callable[[Project], None]) -> None:
    write_inputs(project)
    before = project.key()
    assert project.key() == before
    change(project)
    assert project.key() != before


def test_what_is_no_input_leaves_the_key(project: Project) -> None:
    write_inputs(project)
    before = project.key()
    project.versions["other_version"] = "9"
    (project.source / "code/__pycache__").mkdir()
    (project.source / "code/__pycache__/main.pyc").write_text("")
    (project.library / "oci_image.py").write_text("# build.sh does not use it\n")
    (project.recipes / "tool/build.sh").touch()
    assert project.key() == before


def test_a_recipe_that_writes_images_depends_on_how_they_are_written(project: Project) -> None:
    project.recipe("tool", "oci_image tool.tar.zst")
    before = project.key()
    (project.library / "oci_image.py").write_text("# other\n")
    assert project.key() != before


def test_parameters_choose_paths_and_keys(project: Project) -> None:
    for service in ("auth", "api"):
        (project.source / "services" / service).mkdir(parents=True)
        (project.source / "services" / service / "main.py").write_text(service)
    project.recipe("service", 'echo "$PARAM_SERVICE" >"$OUT/result"', paths=["services/{service}/*"])
    catalog = project.catalog()
    auth = catalog.request("service:auth")
    assert auth == catalog.request({"name": "service", "params": {"service": "auth"}})
    assert auth.label == "service:auth"
    assert catalog.key(auth) != catalog.key(catalog.request("service:api"))
    made, _ = project.build("service:auth")
    assert (made["service:auth"].path / "result").read_text() == "auth\n"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"output": ["x"]}, "unknown field 'output', did you mean 'outputs'?"),
        ({"lane": "fast"}, "lane is 'fast', must be one of go, debian, light"),
        ({"outputs": ["a/b"]}, "outputs must list plain file names, for example [traefik.tar.zst]"),
        ({"seconds": "long"}, "seconds must be the typical cold build time, for example 90"),
        ({"needs": [1]}, "needs must be a list of strings, found [1]"),
        ({"version": "tol_version"}, "version 'tol_version' is not in versions.yml"),
        ({"paths": ["nothing/*"]}, "path 'nothing/*' matches no file"),
        ({"needs": ["tool"]}, "recipes need each other in a circle: tool -> tool"),
    ],
)
def test_a_mistake_in_a_recipe_is_named(project: Project, fields: dict[str, Any], message: str) -> None:
    project.recipe("tool", **fields)
    with pytest.raises(ArtifactError) as caught:
        project.key()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("treafik", "no recipe of that name in"),
        ("treafik", "did you mean 'traefik'?"),
        ("traefik:auth", "recipe 'traefik' takes 0 parameters"),
        ({"name": "traefik", "params": {"a": "b"}}, "found parameters a, wanted none"),
        (7, "must be a name or"),
    ],
)
def test_a_mistake_in_a_name_is_named(project: Project, name: Any, message: str) -> None:
    project.recipe("traefik")
    with pytest.raises(ArtifactError, match=message.replace("?", r"\?")):
        catalog = project.catalog()
        catalog.key(catalog.request(name))


# -- building


def test_a_build_sees_its_environment_and_leaves_a_manifest(project: Project) -> None:
    project.recipe("base-image")
    project.recipe(
        "tool",
        'test "$VERSION" = 1.2.3; test "$TOOL_VERSION" = 1.2.3; test "$GOFLAGS" = -mod=readonly\n'
        'test -d "$WORK"; cat "$NEED_BASE_IMAGE/result" >"$OUT/result"; echo "$KEY" >>"$OUT/result"',
        version="tool_version",
        needs=["base-image"],
    )
    made, labels = project.build("tool")
    artifact = made["tool"]
    assert labels == ["base-image", "tool"]
    assert (artifact.path / "result").read_text() == f"made\n{artifact.key}\n"
    assert artifact.path == project.cache / "store/tool" / artifact.key
    manifest = json.loads((artifact.path / "manifest.json").read_text())
    assert manifest["provider"] == "build"
    assert manifest["version"] == "1.2.3"
    assert manifest["outputs"]["result"]["sha256"] == artifact.sha256["result"]
    assert project.build("tool") == (made, [])
    assert not (project.cache / "progress.json").exists()


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ('echo half >"$OUT/result"; echo reason; exit 3', "build.sh ended with code 3 after 0 s"),
        ('false; echo made >"$OUT/result"', "build.sh ended with code 1"),
        ("true", "build.sh left nothing, recipe.yml promises result"),
        ('touch "$OUT/result" "$OUT/extra"', "build.sh left extra, result, recipe.yml promises result"),
    ],
)
def test_a_failed_build_leaves_nothing_but_its_log(project: Project, script: str, message: str) -> None:
    project.recipe("tool", script)
    with pytest.raises(ArtifactError) as caught:
        project.build("tool")
    assert message in str(caught.value)
    logs = list((project.cache / "logs").iterdir())
    assert [log.name for log in logs] == [f"tool-{project.key()[:12]}.log"]
    assert str(logs[0]) in str(caught.value)
    assert not (project.cache / "store/tool").exists()
    assert list((project.cache / "store/.tmp").iterdir()) == []
    project.recipe("tool")
    assert project.build("tool")[1] == ["tool"]


def test_an_error_ends_with_the_last_lines_of_the_log(project: Project) -> None:
    project.recipe("tool", "seq 100; exit 1")
    with pytest.raises(ArtifactError) as caught:
        project.build("tool")
    assert str(caught.value).splitlines()[1:] == [str(number) for number in range(71, 101)]


def test_inputs_that_change_during_the_build_are_noticed(project: Project) -> None:
    (project.source / "code").mkdir()
    (project.source / "code/main.py").write_text("old")
    project.recipe("tool", 'echo new >"$SOURCE/code/main.py"; echo made >"$OUT/result"', paths=["code/*"])
    with pytest.raises(ArtifactError, match="its inputs changed while it was built; run again"):
        project.build("tool")
    assert project.build("tool")[1] == ["tool"]


def test_a_damaged_entry_is_built_again(project: Project) -> None:
    project.recipe("tool")
    made, _ = project.build("tool")
    file = made["tool"].path / "result"
    file.write_text("flipped bit and same size"[:5])
    assert Store(project.cache).damaged() == [str(file)]
    file.write_text("")
    assert project.build("tool")[1] == ["tool"]
    assert file.read_text() == "made\n"
    assert Store(project.cache).damaged() == []


def test_many_askers_get_one_build(project: Project, tmp_path: Path) -> None:
    project.recipe("tool", f'echo x >>"{tmp_path}/builds"; sleep 0.3; echo made >"$OUT/result"')
    program = f"""
import sys
sys.path.insert(0, {str(ROOT / "plugins/module_utils")!r})
from pathlib import Path
from artifact_recipe import Catalog
from artifact_engine import Engine
from artifact_entries import Store
source = Path({str(project.source)!r})
catalog = Catalog([source / "images"], source, source / "library", {{}}, "go1.26.6")
engine = Engine(Store(Path({str(project.cache)!r})), catalog)
print(engine.ensure([catalog.request("tool")])[0]["tool"].path)
"""
    askers = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    paths = {asker.communicate(timeout=60)[0].strip() for asker in askers}
    assert [asker.returncode for asker in askers] == [0] * 4
    assert len(paths) == 1
    assert (tmp_path / "builds").read_text() == "x\n"


def test_the_lock_of_a_dead_holder_is_free(project: Project) -> None:
    project.recipe("tool")
    program = f"""
import os, sys
sys.path.insert(0, {str(ROOT / "plugins/module_utils")!r})
from pathlib import Path
from artifact_entries import Store
with Store(Path({str(project.cache)!r})).lock("tool", {project.key()!r}):
    os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGKILL
    assert project.build("tool")[1] == ["tool"]


def test_lanes_run_side_by_side(project: Project) -> None:
    meet = (
        'touch "$SLIPWAY_CACHE/{mine}"; until [ -e "$SLIPWAY_CACHE/{other}" ]; do sleep 0.02; done; touch "$OUT/result"'
    )
    project.recipe("compiled", meet.format(mine="a", other="b"), lane="go")
    project.recipe("packaged", meet.format(mine="b", other="a"), lane="debian")
    assert sorted(project.build("compiled", "packaged")[1]) == ["compiled", "packaged"]


def test_the_longest_way_comes_first() -> None:
    def job(name: str, seconds: int, *needs: str) -> Job:
        return Job(Request(name), name, "go", seconds, needs)

    queue = Queue([job("short", 5), job("base", 10), job("long", 100), job("top", 200, "base")])
    order = []
    while found := queue.take(("go",)):
        order.append(found.request.name)
        queue.finish(found)
    assert order == ["base", "top", "long", "short"]


def test_a_failure_stops_the_other_lane(project: Project, tmp_path: Path) -> None:
    project.recipe("slow", f'echo $$ >"{tmp_path}/pid"; sleep 60', lane="go")
    project.recipe("broken", f'until [ -s "{tmp_path}/pid" ]; do sleep 0.02; done; exit 1', lane="light")
    begin = time.monotonic()
    with pytest.raises(ArtifactError, match=r"'broken': build\.sh ended with code 1"):
        project.build("slow", "broken")
    assert time.monotonic() - begin < 30
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_nobody_waits_any_more_so_the_build_stops(project: Project) -> None:
    project.recipe("slow", "sleep 60")
    running = threading.Event()
    engine = project.engine(say=lambda line: running.set(), keep_going=lambda: not running.is_set())
    begin = time.monotonic()
    with pytest.raises(ArtifactError, match="stopped"):
        engine.ensure([engine.catalog.request("slow")])
    assert time.monotonic() - begin < 30


def test_progress_tells_what_runs(project: Project) -> None:
    project.recipe("tool", 'cp "$SLIPWAY_CACHE/progress.json" "$OUT/result"', seconds=77)
    made, _ = project.build("tool")
    progress = json.loads((made["tool"].path / "result").read_text())
    assert (progress["total"], progress["done"], progress["pid"]) == (1, 0, os.getpid())
    (step,) = progress["running"]
    assert (step["number"], step["name"], step["typical_seconds"]) == (1, "tool", 77)
    assert abs(step["started_at"] - time.time()) < 60


def test_only_what_is_missing_is_planned(project: Project) -> None:
    project.recipe("base")
    project.recipe("tool", needs=["base"])
    engine = project.engine()
    request = engine.catalog.request("tool")
    _, jobs = engine.plan([request], "build")
    assert [job.request.label for job in jobs] == ["base", "tool"]
    assert not project.cache.exists()
    made, _ = project.build("tool", "base")
    for file in made["base"].path.iterdir():
        file.unlink()
    assert engine.plan([request], "build")[1] == []


def test_prune_keeps_what_was_used(project: Project) -> None:
    project.recipe("old")
    project.recipe("used")
    made, _ = project.build("old", "used")
    long_ago = time.time() - 40 * 86400
    for artifact in made.values():
        os.utime(artifact.path / "manifest.json", (long_ago, long_ago))
    project.build("used")
    store = Store(project.cache)
    left = project.cache / "store/.tmp/old-key"
    left.mkdir()
    assert store.prune(30) == [f"old/{made['old'].key}"]
    assert not left.exists()
    assert made["used"].path.exists()
    assert store.prune(30) == []
