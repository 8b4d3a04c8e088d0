"""Starts the tritonserver that nvidia-pytriton carries, without a container. It has the Python backend only.

    python scripts/triton_server.py .venv-triton MODEL_REPOSITORY... [--http-port 8000] [--grpc-port 8001] [FLAG]...

Other flags go to tritonserver.
`make .venv-triton/server.stamp` makes the environment. This process becomes the server: what ends it ends the server.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import shutil
import signal
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def main() -> None:
    parser = argparse.ArgumentParser(description="Starts the tritonserver of nvidia-pytriton.")
    parser.add_argument("environment", type=Path)
    parser.add_argument("repository", type=Path, nargs="+")
    parser.add_argument("--http-port", type=int, default=8000)
    parser.add_argument("--grpc-port", type=int, default=8001)
    given, others = parser.parse_known_args()
    (packages,) = given.environment.resolve().glob("lib/python3.*/site-packages")
    server = packages / "pytriton" / "tritonserver"
    backends = server / "backends"
    # The process that runs a model is linked with one version of Python; there is one for each.
    stub = server / "python_backend_stubs" / packages.parent.name.removeprefix("python") / "triton_python_backend_stub"
    if not (backends / "python" / stub.name).exists():
        shutil.copy(stub, backends / "python")
    environment = {
        **os.environ,
        "PATH": f"{given.environment.resolve() / 'bin'}{os.pathsep}{os.environ['PATH']}",  # finds the Python there
        "LD_LIBRARY_PATH": str(packages / "nvidia_pytriton.libs"),
    }
    command = [
        str(server / "bin" / "tritonserver"),
        *(f"--model-repository={path.resolve()}" for path in given.repository),
        f"--backend-directory={backends}",
        *(f"--{kind}-address=127.0.0.1" for kind in ("http", "grpc")),
        f"--http-port={given.http_port}",
        f"--grpc-port={given.grpc_port}",
        "--allow-metrics=false",
        "--exit-timeout-secs=3",
        *others,
    ]
    # Whoever started it and is killed leaves no server behind.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    os.execve(command[0], command, environment)


if __name__ == "__main__":
    main()
