"""Policies served from a workspace: on Ray as in process, and started and stopped together with the page."""

import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import torch

from preference_data.records import Prompt
from tests.tiny_model import build_tiny_model
from workbench import assembly
from workbench.config import NumericsSettings
from workbench.speaking import SpeakJob
from workbench.workspace import Workspace


@pytest.fixture(scope="module")
def ws(tmp_path_factory):
    base = build_tiny_model(tmp_path_factory.mktemp("base") / "model")
    return Workspace.init(tmp_path_factory.mktemp("ws"), base=base)


def job(ws, seed=0):
    policy = ws.registry.ref(ws.registry.resolve("base"))
    return SpeakJob(policy, Prompt.of("hello"), 8, 1.0, 1.0, seed, NumericsSettings())


def test_pieces_may_be_asked_for_from_any_thread(ws):
    with (
        assembly.speaking("here", count=1, threads=1) as here,
        ThreadPoolExecutor(1) as first,
        ThreadPoolExecutor(1) as second,
    ):
        expected = list(here(job(ws)))
        pieces, found = here(job(ws)), list[str]()
        for thread in itertools.cycle((first, second)):
            if (piece := thread.submit(next, pieces, None).result(timeout=30)) is None:
                break
            found.append(piece)
            assert not thread.submit(torch.is_inference_mode_enabled).result(timeout=30)
    assert len(expected) > 2
    assert found == expected


def test_an_answer_that_is_given_up_holds_nobody_up(ws):
    with assembly.speaking("here", count=1, threads=1) as here:
        expected = list(here(job(ws)))
        given_up = here(job(ws, seed=1))
        next(given_up)
        given_up.close()
        assert list(here(job(ws))) == expected


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_workers_on_ray_say_what_this_process_says(ws):
    with assembly.speaking("here", count=1, threads=1) as here:
        expected = ["".join(here(job(ws, seed))) for seed in range(3)]
    with assembly.speaking("ray", count=2, threads=1) as workers:
        streams = [workers(job(ws, seed)) for seed in range(3)]
        assert ["".join(pieces) for pieces in streams] == expected
        assert len(list(workers(job(ws)))) > 1  # in pieces, not at once


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as one:
        return one.getsockname()[1]


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_page_and_runner_start_and_stop_together(ws, stop):
    port = free_port()
    command = [sys.executable, "-m", "workbench", "up", "--port", str(port), "--workers", "here", "-w", str(ws.root)]
    running = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)
    urls = [f"http://127.0.0.1:{port}/healthz", f"http://127.0.0.1:{port + 1}/healthz"]
    end = time.monotonic() + 90
    try:
        while not all(map(answers, urls)):
            assert running.poll() is None
            assert time.monotonic() < end, "page and runner did not start"
            time.sleep(0.1)
        assert httpx.get(f"http://127.0.0.1:{port}/api/me").json()["arena"]
        assert httpx.get(f"http://127.0.0.1:{port + 1}/v1/models").status_code == 401  # the page alone has the key
    finally:
        running.send_signal(stop)
        running.wait(30)
    assert not any(map(answers, urls))


def answers(url):
    try:
        return httpx.get(url).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
