"""Making artifacts: what has to be done, in which order, in two lanes; and progress.json for whoever shows it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

if not __package__:  # the command line and the tests
    from artifact_entries import Artifact, Store
    from artifact_recipe import ArtifactError, Catalog, Request
    from artifact_release import Release, fetch, load_lock
else:  # packed by Ansible
    from .artifact_entries import Artifact, Store  # type: ignore[import-not-found,no-redef,unused-ignore]
    from .artifact_recipe import ArtifactError, Catalog, Request  # type: ignore[import-not-found,no-redef,unused-ignore]
    from .artifact_release import Release, fetch, load_lock  # type: ignore[import-not-found,no-redef,unused-ignore]

LOG_TAIL = 30
GRACE_SECONDS = 10.0


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
