"""Says which step of how many runs, what a task that takes long is busy with, and how long each step took."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: progress
type: aggregate
short_description: step n of m with times, a heartbeat during long tasks, and a table of times
description:
  - Prints a line at the start of every play (which of how many, its name, time so far).
  - While one task runs longer than the interval, prints what is running, with the builds of the artifact store.
  - At the end of a run of several playbooks, prints how long each of them took, and its roles that took long.
options:
  interval:
    description: Seconds of silence after which a long task is named.
    type: int
    default: 30
    env: [{name: SLIPWAY_PROGRESS_INTERVAL}]
  progress_file:
    description: What the artifact store writes about its builds.
    type: path
    default: ~/.cache/slipway/progress.json
    env: [{name: SLIPWAY_PROGRESS_FILE}]
"""


ROLE_SECONDS = 5


def duration(seconds: float) -> str:
    """Return seconds as people read them: 7s, 2m05s, 1h02m."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def describe_builds(path: Path, now: float) -> str:
    """Return what the artifact store is building, or an empty string where it builds nothing or its file is old."""
    try:
        progress = json.loads(path.read_text())
        running = progress["running"]
        parts = [
            f"{item['name']} for {duration(now - item['started_at'])} (usually {duration(item['typical_seconds'])})"
            for item in running
        ]
        return (
            f"artifacts {progress['done']} of {progress['total']} done, building " + ", ".join(parts) if parts else ""
        )
    except (OSError, ValueError, KeyError, TypeError):
        return ""


class Times:
    """How long each part of a run took: a playbook, and in it the roles that plays name themselves."""

    def __init__(self) -> None:
        self._seconds: dict[str, dict[str, float]] = {}
        self._part = ("", "")
        self._since = 0.0

    def enter(self, playbook: str, role: str, now: float) -> None:
        """From now on it is the part of this role, or of none, in this playbook."""
        before, inside = self._part
        if before:
            roles = self._seconds.setdefault(before, {})
            roles[inside] = roles.get(inside, 0.0) + now - self._since
        self._part, self._since = (playbook, role), now

    def table(self) -> list[str]:
        """One line for each playbook in the order of their beginning, below it its roles; the last is for all."""
        if len(self._seconds) < 2:
            return []
        rows = []
        for playbook, roles in self._seconds.items():
            rows.append((playbook, sum(roles.values())))
            long = [(f"  {role}", seconds) for role, seconds in roles.items() if role and seconds >= ROLE_SECONDS]
            rows += long if len(roles) > 2 else []
        rows.append(("all", sum(seconds for name, seconds in rows if not name.startswith(" "))))
        return [f"   {name:24} {duration(seconds):>8}" for name, seconds in rows]


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Callback plugin `progress`."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "progress"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._began = time.monotonic()
        self._plays = 0
        self._play = 0
        self._task = ""
        self._task_began = self._began
        self._playbook = self._role = ""
        self._times = Times()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def v2_playbook_on_start(self, playbook: Any) -> None:
        self._plays = len(playbook.get_plays())
        self._thread = threading.Thread(target=self._heartbeat, daemon=True)
        self._thread.start()

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self._play += 1
        so_far = duration(time.monotonic() - self._began)
        self._playbook = Path(play.get_path().rpartition(":")[0]).stem
        self._role = ""
        self._times.enter(self._playbook, "", time.monotonic())
        self._display.display(f"\n== {self._play} of {self._plays} · {play.get_name().strip()} · {so_far} so far")

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self._task = task.get_name().strip()
        self._task_began = time.monotonic()
        role = task._role
        # A role that another one includes is that one's work.
        if role is None or not role.get_parents():
            self._role = role.get_name() if role else ""
        self._times.enter(self._playbook, self._role, self._task_began)

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        self.v2_playbook_on_task_start(task, False)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self._stop.set()
        self._times.enter("", "", time.monotonic())
        for line in self._times.table():
            self._display.display(line)
        self._display.display(f"== done after {duration(time.monotonic() - self._began)}")

    def _heartbeat(self) -> None:
        interval = self.get_option("interval")
        path = Path(self.get_option("progress_file"))
        while not self._stop.wait(interval):
            silent = time.monotonic() - self._task_began
            if silent < interval:
                continue
            builds = describe_builds(path, time.time())
            self._display.display(f"   still at: {self._task} ({duration(silent)})" + (f"; {builds}" if builds else ""))
