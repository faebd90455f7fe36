"""Says which step of how many runs, for how long, and, while one task takes long, what it is busy with."""

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
short_description: step n of m with times, and a heartbeat during long tasks
description:
  - Prints a line at the start of every play (which of how many, its name, time so far).
  - While one task runs longer than the interval, prints what is running, with the builds of the artifact store.
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
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def v2_playbook_on_start(self, playbook: Any) -> None:
        self._plays = len(playbook.get_plays())
        self._thread = threading.Thread(target=self._heartbeat, daemon=True)
        self._thread.start()

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self._play += 1
        so_far = duration(time.monotonic() - self._began)
        self._display.display(f"\n== {self._play} of {self._plays} · {play.get_name().strip()} · {so_far} so far")

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self._task = task.get_name().strip()
        self._task_began = time.monotonic()

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        self.v2_playbook_on_task_start(task, False)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self._stop.set()
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
