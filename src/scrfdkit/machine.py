"""The machine that this runs on: its cores, its memory, its name."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("scrfdkit", "numpy", "onnxruntime", "opencv-python-headless", "simplejpeg", "pillow", "torch")
_MOST_JOBS = 64  # a thread each, and two pictures in memory


def usable_cores() -> int:
    """Cores that this process may run on, which a container or `taskset` can make fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share_cores(jobs: int | None, items: int) -> tuple[int, int]:
    """Items at a time, and threads of the network for each; together one a core, or as many as there are `jobs`.

    More jobs than cores help where items come from far away; more threads of a network than cores never do.
    """
    cores = usable_cores()
    workers = max(1, min(jobs or cores, items, max(_MOST_JOBS, cores)))
    return workers, max(1, min(jobs or cores, cores) // workers)


def cpu_name() -> str:
    """The processor's own name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def machine() -> dict[str, Any]:
    """Processor, cores, system and package versions, ready for JSON."""
    return {
        "cpu": cpu_name(),
        "cores": usable_cores(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: version for name in _PACKAGES if (version := package_version(name))},
    }


def package_version(name: str) -> str | None:
    """The installed version, None if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def resident_bytes() -> int:
    """Memory of this process that is in RAM now; where the system does not tell that, the most that ever was."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
