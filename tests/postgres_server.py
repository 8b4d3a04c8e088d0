"""A PostgreSQL server of its own for a test, from the system's package, which must not run as root."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Postgres:
    """bin: folder of its programs. data: its files. user: who runs it, "" for this one."""

    bin: Path
    data: Path
    user: str
    port: int

    @property
    def url(self) -> str:
        """For SQLAlchemy."""
        return f"postgresql+psycopg://scrfd@127.0.0.1:{self.port}/postgres"

    def call(self, program: str, *words: str) -> None:
        command = [str(self.bin / program), *words]
        if self.user:
            command = ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups", *command]
        log = self.data.parent / "calls.log"
        with log.open("ab") as file:  # no pipe, which a server that it starts would keep open
            done = subprocess.run(command, check=False, stdout=file, stderr=file, cwd="/", timeout=60)
        assert done.returncode == 0, log.read_text()

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
        self.call("pg_ctl", "-D", str(self.data), "-l", str(self.data / "log"), "-w", "-o", options, "start")

    def stop(self) -> None:
        """Every connection is cut."""
        self.call("pg_ctl", "-D", str(self.data), "-m", "immediate", "-w", "stop")


def _programs() -> Path | None:
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    found = places[-1] if places else shutil.which("pg_ctl")
    return Path(found).parent if found else None


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    programs = _programs()
    if programs is None:
        pytest.skip("needs PostgreSQL: apt-get install postgresql")
    if find_spec("psycopg") is None:
        pytest.skip("needs a driver: pip install 'psycopg[binary]'")
    user = ""
    if os.getuid() == 0:
        user = "postgres"
        try:
            number = pwd.getpwnam(user).pw_uid
        except KeyError:
            pytest.skip("needs the user postgres, as the server does not run as root")
    with tempfile.TemporaryDirectory(prefix="scrfd-postgres-") as place:
        data = Path(place) / "data"
        data.mkdir(mode=0o700)
        if user:
            Path(place).chmod(0o755)
            os.chown(data, number, -1)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        server = Postgres(programs, data, user, port)
        server.call("initdb", "-D", str(data), "-U", "scrfd", "--auth=trust", "--no-sync")
        server.start()
        try:
            yield server
        finally:
            server.stop()
