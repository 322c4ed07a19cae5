"""What every test gets: one thread, no telemetry, no network, and the shared data where there is any."""

import gc
import ipaddress
import multiprocessing
import os
import socket
from pathlib import Path

import pytest
from hypothesis import settings

QUIET = {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TRL_EXPERIMENTAL_SILENCE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
for name, value in QUIET.items():  # before any test module imports torch; worker processes inherit them
    os.environ.setdefault(name, value)

# No deadline: a busy machine is not a failing test. Examples are the same on every run of the same code.
settings.register_profile("workbench", deadline=None, derandomize=True)
settings.load_profile("workbench")

# A run has one fork server, which loads what is named before it starts and nothing afterwards: so it is named once, here.
multiprocessing.set_forkserver_preload(["tests.preloaded"])

SHARED = Path(os.environ.get("WORKBENCH_SHARED", Path(__file__).parents[2] / "shared"))


def is_outside(address: object) -> bool:
    """Whether a socket address is a host beyond this machine and its own network (Ray talks over the latter)."""
    if not isinstance(address, tuple):
        return False  # a Unix socket
    try:
        return ipaddress.ip_address(str(address[0]).split("%")[0]).is_global
    except ValueError:
        return address[0] not in ("", "localhost", socket.gethostname())


def pytest_collection_finish() -> None:
    """What the test modules imported stays: the full collections of every training do not look through it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """A test that reaches for another machine fails with the address it wanted."""
    connect = socket.socket.connect

    def guarded(self, address):
        # a datagram socket "connects" without sending anything: the usual way to learn one's own address
        if self.type == socket.SOCK_STREAM and is_outside(address):
            raise PermissionError(f"a test tried to connect to {address}; tests run without network")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(scope="session")
def shared():
    """Finds a file or folder of the shared data, or skips the test: `shared("hh-rlhf")`."""

    def find(name: str) -> Path:
        path = SHARED / "data" / name
        if not path.exists():
            pytest.skip(f"shared data not present: {name}")
        return path

    return find
