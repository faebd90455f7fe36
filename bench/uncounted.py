"""A service that counts nothing: what its metrics cost is what it lacks. `python -m bench.uncounted MODULE`

Its metrics are there and stay at 0. No setting of a service does that: nobody who runs one should.
"""

import runpy
import sys
from typing import Any

from prometheus_client import Counter, Gauge, Histogram

# What changes a value, of each kind.
CHANGES: tuple[tuple[type, tuple[str, ...]], ...] = (
    (Counter, ("inc",)),
    (Gauge, ("inc", "dec", "set")),
    (Histogram, ("observe",)),
)


def count_nothing() -> None:
    """From here on no metric of this process changes."""

    def nothing(*_: Any, **__: Any) -> None:
        """Take what a metric takes."""

    for kind, names in CHANGES:
        for name in names:
            setattr(kind, name, nothing)


if __name__ == "__main__":
    [module] = sys.argv[1:]
    count_nothing()
    sys.argv = [module]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
