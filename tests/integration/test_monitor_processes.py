"""Two processes with a monitor decide alike, and end with the same weights."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]


def test_two_processes_decide_alike(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    flags = ["--multi_gpu", "--num_processes=2", "--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no"]
    script = Path(__file__).with_name("monitor_script.py")
    environment = os.environ | {
        "ACCELERATE_USE_CPU": "true",  # keeps both on the CPU
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")]),
    }
    done = subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", *flags, f"--main_process_port={port}", script, tmp_path],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for policy in ("rollback", "adapt"):
        one, other = (torch.load(tmp_path / f"{policy}-{number}.pt") for number in (0, 1))
        assert one[3] == "DistributedDataParallel"
        assert all(torch.equal(one[0][name], tensor) for name, tensor in other[0].items())
        assert one[1:3] == other[1:3]
        assert one[2], policy  # something was done
