"""The artifact store: builds or downloads what the hosts will need, once per set of inputs, and remembers it.

    store/<name>/<key>/          the artifact's files and manifest.json; appears whole or not at all
    store/.tmp/, store/.locks/   work in progress, and the locks that keep two processes from doing the same work
    logs/<name>-<key>.log        what the build printed
    progress.json                what is being built now, for whoever shows it

The Ansible module `artifact` uses this; `python plugins/module_utils/artifact_store.py --help` is for developers.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

if not __package__:  # the command line and the tests
    from artifact_recipe import ArtifactError, Catalog, Request, sha256_of
    from artifact_release import Release, fetch, load_lock, refresh
else:  # packed by Ansible
    from .artifact_recipe import (  # type: ignore[import-not-found,no-redef,unused-ignore]
        ArtifactError,
        Catalog,
        Request,
        sha256_of,
    )
    from .artifact_release import (  # type: ignore[import-not-found,no-redef,unused-ignore]
        Release,
        fetch,
        load_lock,
        refresh,
    )

LOG_TAIL = 30
MANIFEST = "manifest.json"
GRACE_SECONDS = 10.0


@dataclasses.dataclass(frozen=True)
class Artifact:
    """A finished entry of the store, or (with no sums) the place where one would be."""

    label: str
    key: str
    version: str
    path: Path
    sha256: Mapping[str, str]
    outputs: tuple[str, ...]

    def as_result(self) -> dict[str, Any]:
        return {
            "path": str(self.path),
            "key": self.key,
            "version": self.version,
            "sha256": dict(self.sha256),
            "files": {name: str(self.path / name) for name in self.outputs},
        }


class Store:
    """Finished artifacts on disk."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.root = cache / "store"
        self.logs = cache / "logs"

    def path(self, name: str, key: str) -> Path:
        return self.root / name / key

    def find(self, request: Request, key: str) -> Artifact | None:
        """The artifact, if it is there and none of its files was removed or cut short."""
        path = self.path(request.name, key)
        try:
            manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
            outputs = manifest["outputs"]
            if any((path / name).stat().st_size != entry["size"] for name, entry in outputs.items()):
                return None
        except (OSError, ValueError, KeyError):
            return None
        with contextlib.suppress(OSError):
            os.utime(path / MANIFEST)  # prune goes by the last use
        sums = {name: entry["sha256"] for name, entry in outputs.items()}
        return Artifact(request.label, key, manifest["version"], path, sums, tuple(outputs))

    @contextlib.contextmanager
    def lock(self, name: str, key: str, wait: bool = True) -> Iterator[int]:
        """Hold the right to make one artifact; gives the descriptor. The system releases it if the holder dies."""
        locks = self.root / ".locks"
        locks.mkdir(parents=True, exist_ok=True)
        with (locks / f"{name}-{key}").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            yield file.fileno()

    @contextlib.contextmanager
    def workspace(self, name: str, key: str) -> Iterator[Path]:
        """A directory for one build, empty at first, gone at the end. Call it under the lock."""
        path = self.root / ".tmp" / f"{name}-{key}"
        remove_tree(path)
        path.mkdir(parents=True)
        try:
            yield path
        finally:
            remove_tree(path)

    def adopt(
        self, request: Request, key: str, made: Path, facts: Mapping[str, Any], outputs: Sequence[str]
    ) -> Artifact:
        """Move what was made to its place in the store, in one step."""
        entries = {
            name: {"sha256": sha256_of(made / name), "size": (made / name).stat().st_size} for name in sorted(outputs)
        }
        manifest = {"name": request.name, "params": dict(request.params), "key": key, **facts, "outputs": entries}
        (made / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        made.chmod(0o755)
        final = self.path(request.name, key)
        final.parent.mkdir(parents=True, exist_ok=True)
        remove_tree(final)  # only ever one that `find` did not accept
        made.rename(final)
        artifact = self.find(request, key)
        if artifact is None:
            raise ArtifactError(f"{final}: cannot be read back after it was written")
        return artifact

    def entries(self) -> Iterator[Path]:
        return (found.parent for found in self.root.glob(f"[!.]*/*/{MANIFEST}"))

    def damaged(self) -> list[str]:
        """Files whose content is not what their manifest says."""
        bad = []
        for entry in self.entries():
            manifest = json.loads((entry / MANIFEST).read_text(encoding="utf-8"))
            for name, wanted in manifest["outputs"].items():
                if not (entry / name).is_file() or sha256_of(entry / name) != wanted["sha256"]:
                    bad.append(str(entry / name))
        return bad

    def prune(self, days: float) -> list[str]:
        """Remove what nobody used for so many days; an artifact in the making is left alone."""
        before = time.time() - days * 86400
        removed = []
        for entry in list(self.entries()):
            if (entry / MANIFEST).stat().st_mtime < before:
                with contextlib.suppress(BlockingIOError), self.lock(entry.parent.name, entry.name, wait=False):
                    remove_tree(entry)
                    removed.append(f"{entry.parent.name}/{entry.name}")
        for left in (self.root / ".tmp").glob("*"):
            name, _, key = left.name.rpartition("-")
            with contextlib.suppress(BlockingIOError), self.lock(name, key, wait=False):
                remove_tree(left)
        for directory in (self.logs, self.cache / "apt"):
            for file in directory.glob("*"):
                if file.is_file() and file.stat().st_mtime < before:
                    file.unlink()
        return sorted(removed)


def remove_tree(path: Path) -> None:
    """Remove a directory whatever its modes are (the Go module cache, for one, makes its directories read-only)."""
    if not path.exists():
        return
    for directory, _, _ in os.walk(path):
        Path(directory).chmod(0o700)
    shutil.rmtree(path)


class Progress:
    """Keeps progress.json: `{pid, total, done, running: [{number, name, started_at, typical_seconds, log}]}`."""

    def __init__(self, file: Path, total: int, say: Callable[[str], None]) -> None:
        self.file = file
        self.total = total
        self.say = say
        self.started = 0
        self.done = 0
        self.running: dict[str, dict[str, Any]] = {}
        self.mutex = threading.Lock()

    @contextlib.contextmanager
    def step(self, label: str, seconds: int, log: Path | None) -> Iterator[None]:
        with self.mutex:
            self.started += 1
            number, begin = self.started, time.time()
            self.running[label] = {
                "number": number,
                "name": label,
                "started_at": round(begin, 1),
                "typical_seconds": seconds,
                "log": str(log) if log else "",
            }
            self._write()
        self.say(f"{number} of {self.total}: {label} (typically {seconds} s)")
        try:
            yield
            self.say(f"{number} of {self.total}: {label} done after {time.time() - begin:.0f} s")
        finally:
            with self.mutex:
                del self.running[label]
                self.done += 1
                self._write()

    def _write(self) -> None:
        running = sorted(self.running.values(), key=lambda step: step["number"])
        state = {"pid": os.getpid(), "total": self.total, "done": self.done, "running": running}
        fresh = self.file.with_suffix(f".{os.getpid()}")
        fresh.write_text(json.dumps(state) + "\n", encoding="utf-8")
        fresh.replace(self.file)

    def close(self) -> None:
        self.file.unlink(missing_ok=True)


@dataclasses.dataclass(frozen=True)
class Job:
    """One artifact that is not in the store yet."""

    request: Request
    key: str
    lane: str
    seconds: int
    needs: tuple[str, ...]
    release: Release | None = None


class Engine:
    """Makes artifacts exist."""

    def __init__(
        self,
        store: Store,
        catalog: Catalog,
        lock: Path | None = None,
        go: str = "go",
        say: Callable[[str], None] = lambda line: None,
        keep_going: Callable[[], bool] = lambda: True,
    ) -> None:
        self.store = store
        self.catalog = catalog
        self.releases = load_lock(lock) if lock else {}
        self.go = go
        self.say = say
        self.keep_going = keep_going
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._mutex = threading.Lock()
        self._stopped = threading.Event()

    # -- what there is to do

    def plan(self, requests: Iterable[Request], provider: str) -> tuple[dict[str, Artifact], list[Job]]:
        """What each request gives, and the jobs that have to be done first."""
        artifacts: dict[str, Artifact] = {}
        jobs: dict[str, Job] = {}
        for request in requests:
            release = self.releases.get(request.label) if provider == "release" else None
            if release:
                artifacts[request.label] = self._plan_release(request, release, jobs)
            elif provider == "release" and not self.catalog.has(request.name):
                raise ArtifactError(
                    f"artifact '{request.name}': not in the release lock and no recipe makes it here;"
                    f" pin it: python plugins/module_utils/artifact_store.py refresh {request.name}"
                )
            else:
                artifacts[request.label] = self._plan_build(request, jobs)
        return artifacts, list(jobs.values())

    def _plan_release(self, request: Request, release: Release, jobs: dict[str, Job]) -> Artifact:
        wanted = self.catalog.versions.get(f"{release.name}_version", release.version)
        if release.version != str(wanted):
            raise ArtifactError(
                f"artifact '{release.name}': the release lock pins {release.version}, versions.yml wants {wanted};"
                f" run python plugins/module_utils/artifact_store.py refresh {release.name}"
            )
        found = self.store.find(request, release.key)
        if found:
            return found
        jobs[request.label] = Job(request, release.key, "light", 60, (), release)
        files = {item.file: item.sha256 for item in release.files}
        path = self.store.path(request.name, release.key)
        return Artifact(request.label, release.key, release.version, path, files, tuple(files))

    def _plan_build(self, request: Request, jobs: dict[str, Job]) -> Artifact:
        recipe = self.catalog.recipe(request.name)
        key = self.catalog.key(request)
        found = self.store.find(request, key)
        if found:
            return found
        needs = self.catalog.needs(request)
        for need in needs:
            self._plan_build(need, jobs)
        jobs.setdefault(
            request.label, Job(request, key, recipe.lane, recipe.seconds, tuple(need.label for need in needs))
        )
        version = self.catalog.version(request)
        return Artifact(request.label, key, version, self.store.path(request.name, key), {}, recipe.outputs)

    # -- doing it

    def ensure(self, requests: Iterable[Request], provider: str = "build") -> tuple[dict[str, Artifact], list[str]]:
        """Make every request exist; gives the artifacts and the labels of those that had to be made."""
        wanted = list(requests)
        _, jobs = self.plan(wanted, provider)
        if jobs:
            progress = Progress(self.store.cache / "progress.json", len(jobs), self.say)
            self.store.cache.mkdir(parents=True, exist_ok=True)
            try:
                self._run(jobs, progress)
            finally:
                progress.close()
        artifacts, left = self.plan(wanted, provider)
        if left:
            raise ArtifactError(f"artifact '{left[0].request.label}': its inputs changed while it was built; run again")
        return artifacts, [job.request.label for job in jobs]

    def _run(self, jobs: Sequence[Job], progress: Progress) -> None:
        """Two lanes side by side: compilers keep the processors busy while Debian's packages come over the network."""
        queue = Queue(jobs)
        errors: list[BaseException] = []

        def work(lanes: tuple[str, ...]) -> None:
            try:
                while not self._stopped.is_set() and (job := queue.take(lanes)):
                    self._make(job, progress)
                    queue.finish(job)
            except BaseException as error:  # a thread's error has to reach the caller
                errors.append(error)
                queue.stop()

        threads = [threading.Thread(target=work, args=(lanes,)) for lanes in (("go",), ("debian", "light"))]
        for thread in threads:
            thread.start()
        try:
            while any(thread.is_alive() for thread in threads) and not errors and self.keep_going():
                time.sleep(0.1)
            if errors or any(thread.is_alive() for thread in threads):
                self.abort()
        except BaseException:
            self.abort()
            raise
        finally:
            queue.stop()
            for thread in threads:
                thread.join()
        if errors:
            raise errors[0]
        if self._stopped.is_set():
            raise ArtifactError("stopped before everything was built")

    def abort(self) -> None:
        """Stop every build and wait until none is left."""
        self._stopped.set()
        for number in (signal.SIGTERM, signal.SIGKILL):
            with self._mutex:
                running = list(self._processes)
            for process in running:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
            limit = time.monotonic() + GRACE_SECONDS
            while any(process.poll() is None for process in running) and time.monotonic() < limit:
                time.sleep(0.05)

    def _make(self, job: Job, progress: Progress) -> None:
        name, key = job.request.name, job.key
        log = self.store.logs / f"{job.request.label.replace(':', '-')}-{key[:12]}.log"
        with (
            progress.step(job.request.label, job.seconds, None if job.release else log),
            self.store.lock(name, key) as descriptor,
        ):
            if self.store.find(job.request, key):
                return  # another process made it while this one waited for the lock
            with self.store.workspace(name, key) as work:
                if job.release:
                    self._download(job, job.release, work)
                else:
                    self._build(job, work, log, descriptor)

    def _download(self, job: Job, release: Release, work: Path) -> None:
        begin = time.monotonic()
        for item in release.files:
            fetch(item, work / item.file)
            (work / item.file).chmod(0o755)
        facts = {**_facts("release", release.version, begin), "urls": {item.file: item.url for item in release.files}}
        self.store.adopt(job.request, job.key, work, facts, [item.file for item in release.files])

    def _build(self, job: Job, work: Path, log: Path, descriptor: int) -> None:
        request = job.request
        recipe = self.catalog.recipe(request.name)
        out, recipe_copy, scratch = work / "out", work / "recipe", work / "scratch"
        shutil.copytree(recipe.directory, recipe_copy, symlinks=True)
        out.mkdir()
        scratch.mkdir()
        log.parent.mkdir(parents=True, exist_ok=True)
        environment = self._environment(job, out, scratch)
        begin = time.monotonic()
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["nice", "bash", "-euo", "pipefail", str(recipe_copy / "build.sh")],
                cwd=recipe_copy,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(descriptor,),  # should this process be killed, the lock stays as long as the build lives
                umask=0o022,
            )
            with self._mutex:
                self._processes.add(process)
            if self._stopped.is_set():
                os.killpg(process.pid, signal.SIGTERM)
            code = process.wait()
            with self._mutex:
                self._processes.discard(process)
        if self._stopped.is_set():
            raise ArtifactError(f"artifact '{request.label}': stopped")
        took = f"{time.monotonic() - begin:.0f} s"
        if code:
            raise ArtifactError(
                f"artifact '{request.label}': build.sh ended with code {code} after {took}; its whole log: {log}",
                tail(log),
            )
        found = sorted(path.name for path in out.iterdir())
        if found != sorted(recipe.outputs):
            raise ArtifactError(
                f"artifact '{request.label}': build.sh left {', '.join(found) or 'nothing'},"
                f" recipe.yml promises {', '.join(sorted(recipe.outputs))}; its log: {log}"
            )
        self.catalog.forget()
        if self.catalog.key(request) != job.key:
            raise ArtifactError(f"artifact '{request.label}': its inputs changed while it was built; run again")
        facts = {**_facts("build", self.catalog.version(request), begin), "inputs": self.catalog.inputs(request)}
        self.store.adopt(request, job.key, out, facts, recipe.outputs)

    def _environment(self, job: Job, out: Path, scratch: Path) -> dict[str, str]:
        """What build.sh sees beside the environment of the caller (proxies, mirrors)."""
        cache, catalog, request = self.store.cache, self.catalog, job.request
        versions = catalog.recipe_versions(request)
        environment = {
            **os.environ,
            "OUT": str(out),
            "WORK": str(scratch),
            "TMPDIR": str(scratch),
            "KEY": job.key,
            "VERSION": catalog.version(request),
            "SOURCE": str(catalog.source),
            "LIB": str(catalog.library / "lib.sh"),
            "SLIPWAY_CACHE": str(cache),
            "PYTHON": sys.executable,
            "UV": tool("uv"),
            "GO": self.go,
            "GOCACHE": str(cache / "go-build"),
            "GOMODCACHE": str(cache / "go-mod"),
            "GOFLAGS": "-mod=readonly",
            "GOTOOLCHAIN": "local",
            "GOWORK": "off",
            "CGO_ENABLED": "0",
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
            "SOURCE_DATE_EPOCH": "0",
        }
        environment |= {key.upper(): value for key, value in versions.items()}
        environment |= {f"PARAM_{variable(key)}": value for key, value in request.params}
        for need in catalog.needs(request):
            environment[f"NEED_{variable(need.name)}"] = str(self.store.path(need.name, catalog.key(need)))
        return environment


class Queue:
    """Jobs in an order that their needs allow; the one with the longest way behind it comes first."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.waiting = {job.request.label: job for job in jobs}
        self.unfinished = set(self.waiting)
        self.stopped = False
        self.changed = threading.Condition()
        self.weight: dict[str, int] = {}
        for label in self.waiting:
            self._weigh(label)

    def _weigh(self, label: str) -> int:
        if label not in self.weight:
            after = [self._weigh(other) for other, job in self.waiting.items() if label in job.needs]
            self.weight[label] = self.waiting[label].seconds + max(after, default=0)
        return self.weight[label]

    def take(self, lanes: tuple[str, ...]) -> Job | None:
        """The next job of these lanes; waits for one to become possible; None when there is none left."""
        with self.changed:
            while not self.stopped:
                mine = [job for job in self.waiting.values() if job.lane in lanes]
                if not mine:
                    return None
                ready = [job for job in mine if not self.unfinished.intersection(job.needs)]
                if ready:
                    best = max(ready, key=lambda job: self.weight[job.request.label])
                    return self.waiting.pop(best.request.label)
                self.changed.wait()
            return None

    def finish(self, job: Job) -> None:
        with self.changed:
            self.unfinished.discard(job.request.label)
            self.changed.notify_all()

    def stop(self) -> None:
        with self.changed:
            self.stopped = True
            self.changed.notify_all()


def _facts(provider: str, version: str, begin: float) -> dict[str, Any]:
    return {
        "provider": provider,
        "version": version,
        "seconds": round(time.monotonic() - begin, 1),
        "built_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def variable(name: str) -> str:
    return name.upper().replace("-", "_")


def tail(log: Path) -> str:
    with log.open(encoding="utf-8", errors="replace") as file:
        return "\n".join(line.rstrip() for line in file.readlines()[-LOG_TAIL:])


def tool(name: str) -> str:
    """A program of the virtual environment that runs this, else the one on the PATH."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else shutil.which(name) or name


def make_engine(
    source: Path,
    cache: Path,
    recipe_paths: Iterable[Path],
    versions: Mapping[str, Any],
    lock: Path | None,
    say: Callable[[str], None] = lambda line: None,
    keep_going: Callable[[], bool] = lambda: True,
) -> Engine:
    go = tool("go")
    try:
        answer = subprocess.run(
            [go, "env", "GOVERSION"],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "GOTOOLCHAIN": "local"},
        )
        go_version = answer.stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        raise ArtifactError(f"cannot run {go}: {error}; 'make up' installs it into the virtual environment") from error
    catalog = Catalog(recipe_paths, source, source / "roles/artifacts/files", versions, go_version)
    return Engine(Store(cache), catalog, lock, go, say, keep_going)


def main(arguments: Sequence[str] | None = None) -> int:
    source = Path(__file__).resolve().parents[2]
    files = source / "roles/artifacts/files"
    parser = argparse.ArgumentParser(prog="artifact_store.py", description="Build, download, list and prune artifacts.")
    parser.add_argument("--recipes", action="append", type=Path, help="recipe path; default: images, molecule/recipes")
    parser.add_argument("--cache", type=Path, default=os.environ.get("SLIPWAY_CACHE", "~/.cache/slipway"))
    parser.add_argument("--lock", type=Path, default=files / "release.lock.yml")
    actions = parser.add_subparsers(dest="action", required=True)
    for action, text in (
        ("build", "make artifacts exist"),
        ("plan", "show what build would do"),
        ("key", "print keys"),
    ):
        sub = actions.add_parser(action, help=text)
        sub.add_argument("names", nargs="+", metavar="name", help="a recipe's name, with parameters as in service:auth")
        sub.add_argument("--provider", choices=("build", "release"), default="build")
    actions.add_parser("list", help="list every recipe")
    actions.add_parser("verify", help="compare every stored file with its recorded SHA-256")
    actions.add_parser("prune", help="remove what nobody used lately").add_argument("--days", type=float, default=30)
    actions.add_parser("refresh", help="pin a release anew from upstream's checksums").add_argument("names", nargs="+")
    options = parser.parse_args(arguments)
    try:
        return _act(options, source, files)
    except ArtifactError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; run the same command again to go on", file=sys.stderr)
        return 130


def _act(options: argparse.Namespace, source: Path, files: Path) -> int:
    versions = yaml.safe_load((source / "group_vars/all/versions.yml").read_text(encoding="utf-8")) or {}
    cache = Path(options.cache).expanduser().resolve()
    if options.action == "refresh":
        for name in options.names:
            release = refresh(name, files / "release.sources.yml", options.lock, versions)
            print(f"{name}: pinned at {release.version} in {options.lock}")
        return 0
    if options.action == "prune":
        print("\n".join(Store(cache).prune(options.days)) or "nothing to prune")
        return 0
    if options.action == "verify":
        bad = Store(cache).damaged()
        print("\n".join(f"damaged: {path}" for path in bad) or "every stored file is what its manifest says")
        return 1 if bad else 0
    recipe_paths = options.recipes or [source / "images", source / "molecule/recipes"]
    say = _say if options.action == "build" else (lambda line: None)
    engine = make_engine(source, cache, recipe_paths, versions, options.lock, say)
    catalog = engine.catalog
    if options.action == "list":
        for name in catalog.names():
            recipe = catalog.recipe(name)
            print(f"{name:26} {recipe.lane:7} {recipe.seconds:4} s  {recipe.description}")
        return 0
    requests = [catalog.request(name) for name in options.names]
    if options.action == "key":
        for request in requests:
            print(f"{catalog.key(request)}  {request.label}")
    elif options.action == "plan":
        artifacts, jobs = engine.plan(requests, options.provider)
        todo = {job.request.label for job in jobs}
        for label in dict.fromkeys([*todo, *artifacts]):
            print(f"{'make' if label in todo else 'have'}  {label}")
    else:
        artifacts, _ = engine.ensure(requests, options.provider)
        for artifact in artifacts.values():
            print(artifact.path)
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def stop_on_signal() -> None:
    """Turn a polite request to end into the exception that stops the builds."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)


if __name__ == "__main__":
    stop_on_signal()
    sys.exit(main())
