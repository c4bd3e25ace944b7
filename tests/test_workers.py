"""Work spread over processes: the same results whatever their number, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import NETWORKS, ROOT

from isorobust.attacks import settings
from isorobust.attacks.perturb import Problem, perturb
from isorobust.common.workers import spread
from isorobust.errors import UserError
from isorobust.networks.zoo import build


@pytest.mark.parametrize("count", [1, 2, 3])
def test_results_come_in_order_from_as_many_processes_as_threads(threads, count):
    threads(count)

    def work(item):
        time.sleep(0.3 if item == 0 else 0.05)
        return item * 10, os.getpid(), torch.get_num_threads()

    results = list(spread(work, range(8)))
    assert [value for value, _, _ in results] == [0, 10, 20, 30, 40, 50, 60, 70]
    processes = {process for _, process, _ in results}
    assert len(processes) == count and (os.getpid() in processes) == (count == 1)
    assert {inside for _, _, inside in results} == {1} and torch.get_num_threads() == count


def test_one_piece_needs_no_process_and_none_no_work(threads):
    threads(2)
    assert list(spread(lambda item: os.getpid(), ["alone"])) == [os.getpid()]
    assert list(spread(lambda item: 1 / 0, [])) == []


def test_images_do_not_depend_on_the_number_of_processes(threads):
    """Bit for bit, though this process has run forward and backward passes on several threads before."""
    network = build(NETWORKS["tanh-mlp"], (1, 8, 8), 5, seed=0).eval()
    images, labels = torch.rand(64, 1, 8, 8), torch.arange(64) % 5
    made = []
    for count in (1, 2, 4):
        threads(count)
        torch.nn.functional.cross_entropy(network(images.clone().requires_grad_()), labels).backward()

        def attack(seed):
            problem = Problem(network, images, labels, "linf", 0.1, seed, 5)
            return perturb("pgd", problem, settings.PGD(steps=5)).images.numpy().tobytes()

        made.append(list(spread(attack, range(4))))
    assert made[0] == made[1] == made[2] and len(set(made[0])) == 4


@pytest.mark.parametrize("error", [UserError("data: found 1; allowed: 2"), ValueError("bad")], ids=["user", "other"])
@pytest.mark.parametrize("count", [1, 2])
def test_an_error_of_the_work_is_raised_here(threads, count, error):
    threads(count)

    def work(item):
        if item == 2:
            raise error
        return item

    with pytest.raises(type(error), match=str(error)):
        list(spread(work, range(5)))
    assert torch.get_num_threads() == count
    assert list(spread(abs, [-1, -2])) == [1, 2], "the next ones start afresh"


def test_a_process_that_the_system_ends_is_told(threads):
    threads(2)
    with pytest.raises(UserError, match="one of 2 processes was ended by the system, mostly for lack of memory"):
        list(spread(lambda item: os.kill(os.getpid(), signal.SIGKILL) if item else item, range(4)))
    assert torch.get_num_threads() == 2


SLEEPERS = """
import os, signal, sys, time, torch
from pathlib import Path
from isorobust.common.workers import spread

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a script started behind it, and inherited

def work(item):
    (Path(sys.argv[1]) / str(os.getpid())).touch()
    time.sleep(60)

torch.set_num_threads(3)
list(spread(work, range(6)))
"""


@pytest.mark.parametrize(
    "stop",
    [lambda pid: os.kill(pid, signal.SIGKILL), lambda pid: os.killpg(pid, signal.SIGINT)],
    ids=["killed alone", "Ctrl-C in a terminal"],
)
def test_processes_end_with_their_parent(tmp_path, stop):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    parent = subprocess.Popen(
        [sys.executable, "-c", SLEEPERS, str(tmp_path)], env=environment, start_new_session=True, stderr=subprocess.PIPE
    )
    wait_until(lambda: len(list(tmp_path.iterdir())) == 3)
    stop(parent.pid)
    assert b"Process" not in parent.communicate(timeout=20)[1], "one traceback at most, the parent's"
    assert parent.returncode != 0
    wait_until(lambda: not any(alive(int(file.name)) for file in tmp_path.iterdir()))


def alive(process):
    """Whether it runs; one that has ended and that nobody has asked after yet does not."""
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8") as line:
            return line.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(there, seconds=60):
    end = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < end, f"not so after {seconds} seconds"
        time.sleep(0.05)
