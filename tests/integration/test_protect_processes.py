"""Two processes that each see half a batch take the same steps as one that sees all of it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from integration.protect_script import RUNS, main
from trainers import largest_difference

ROOT = Path(__file__).parents[2]


def launch(directory: Path, kind: str) -> None:
    """Runs the script on two CPU processes that talk over gloo.

    `accelerate launch --cpu` starts a second process through MPI only; `--multi_gpu` starts both itself, and the
    variable keeps them on the CPU.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    script = Path(__file__).with_name("protect_script.py")
    flags = ["--multi_gpu", "--num_processes=2", "--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no"]
    arguments = [f"--main_process_port={port}", str(script), str(directory), kind]
    environment = os.environ | {
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")]),
    }
    done = subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", *flags, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process made."""
    directory = tmp_path_factory.mktemp("alone")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main(directory, "alone")
    return directory


def outcome(path: Path) -> tuple[dict[str, torch.Tensor], list[dict[str, float]], str]:
    weights, logs, wrapper = torch.load(path)
    return weights, logs, wrapper


@pytest.mark.parametrize(("kind", "wrapper"), [("spread", "DistributedDataParallel"), ("sharded", "FSDP")])
def test_two_processes_take_the_steps_of_one(kind: str, wrapper: str, alone: Path, tmp_path: Path) -> None:
    launch(tmp_path, kind)
    for name in RUNS:
        weights, logs, found = outcome(tmp_path / f"{kind}-{name}-0.pt")
        others, _, _ = outcome(tmp_path / f"{kind}-{name}-1.pt")
        single, expected, _ = outcome(alone / f"alone-{name}-0.pt")
        assert found.startswith(wrapper)
        assert largest_difference(weights, others) == 0.0, name
        assert largest_difference(weights, single) < 1e-4, name
        for record, wanted in zip(logs, expected, strict=True):
            for key, value in wanted.items():
                if key in {"loss", "grad_norm", "entropy"} or key.startswith("penalty/"):
                    assert record[key] == pytest.approx(value, rel=1e-3, abs=1e-5), (name, key)
                if key.startswith("share/") and kind == "spread":  # shards give no gradient of a part of the loss
                    assert record[key] == pytest.approx(value, rel=1e-3, abs=1e-5), (name, key)
