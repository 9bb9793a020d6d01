"""Every method on ten seeds of a small world: what is learned, and what is forgotten, at equal learning.

    python benchmarks/laboratory/laboratory.py run --work DIR [--processes 2] [--rows plain,lora] [--seeds 10]
    python benchmarks/laboratory/laboratory.py summarise --work DIR     # writes laboratory.json beside this script

Small Llama models know five skills (`skills.py`, `base_models.py`) and are tuned on a narrow task that conflicts with
one of them, through the product's own training stage and method classes. For each row, every setting of its grid is
tried on a validation seed, and stopped at the first look at which the target accuracy has reached 95 %; of the settings
that reach it, the one that forgets least is run on the ten seeds for that number of steps. A base model and a draw of
the task belong to a seed; all rows share them, so that differences between rows are paired.

`run` keeps each result as a line in DIR and goes on where it was stopped. Times are processor seconds of one thread.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import multiprocessing
import os
import random
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from base_models import NUM_HELD_OUT, accuracy, are_right, pretrain
from skills import SKILLS, Item, World, build_tokenizer, held_out, taught, target_items
from transformers import TrainerCallback

from forgetless.config import TrainingConfig
from forgetless.data.encoding import encode_examples
from forgetless.errors import ConfigError
from forgetless.methods import METHODS
from forgetless.methods.base import Context, Method, build_method
from forgetless.train.trainer import train_model

HERE = Path(__file__).parent
GOAL = 0.95
VALIDATION, NUM_BASES = 100, 3
BATCH, LOOK, LONGEST = 16, 10, 400  # examples a step; steps between looks; most steps
NUM_GENERAL = 300  # general examples, drawn from what the base was taught
FULL, ADAPTER = 1e-3, 4e-3  # learning rates of plain fine-tuning and of adapters


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        name: Its name.
        methods: Lines of a config; `{}` in an option stands for a value of the grid.
        grid: Values that are tried for `{}`.
        rates: Learning rates that are tried.
        goal: Target accuracy at which a run stops.
        longest: Most steps.
        family: For the table.
    """

    name: str
    methods: Sequence[Any] = ()
    grid: Sequence[Any] = (None,)
    rates: Sequence[float] = (FULL,)
    goal: float = GOAL
    longest: int = LONGEST
    family: str = ""


LORA = {"lora": {"rank": 8}}
LOWER = (FULL / 2, FULL / 5, FULL / 10)


def _full(name: str, spec: Any, grid: Sequence[Any] = (None,), *, family: str, **options: Any) -> Row:
    return Row(name, [spec], grid, **{"rates": (FULL, FULL / 3), "family": family, **options})


ROWS = {
    row.name: row
    for row in (
        Row("plain", family="reference"),
        Row("lower_rate", rates=LOWER, longest=2 * LONGEST, family="reference"),
        Row("fewer_steps", goal=GOAL - 0.02, family="reference"),
        Row("lora", [{"lora": {"rank": "{}"}}], (4, 8, 16), (ADAPTER, ADAPTER / 3), family="adapters"),
        Row("rslora", [{"lora": {"rank": 8, "variant": "rslora"}}], rates=(ADAPTER, ADAPTER / 3), family="adapters"),
        Row("dora", [{"lora": {"rank": 8, "variant": "dora"}}], rates=(ADAPTER, ADAPTER / 3), family="adapters"),
        Row("corda", [{"corda": {"rank": 8}}], rates=(FULL, FULL / 3), family="adapters"),
        Row("osf", ["osf"], rates=(FULL, FULL / 3), family="adapters"),
        Row("null_space", [{"null_space": {"rank": "{}"}}], (8, 32), (ADAPTER, ADAPTER / 3), family="adapters"),
        _full("replay", {"replay": {"share": "{}"}}, (0.1, 0.3, 0.5), family="data"),
        _full("replay_self", {"replay": {"share": "{}", "source": "self"}}, (0.1, 0.3, 0.5), family="data"),
        _full("kl", {"kl": {"data": "general", "strength": "{}", "batch_size": 8}}, (1.0, 10.0), family="loss"),
        _full("kl_self", {"kl": {"data": "self", "strength": "{}", "batch_size": 8}}, (1.0, 10.0), family="loss"),
        _full("kl_domain", {"kl": {"data": "domain", "strength": "{}"}}, (0.1, 1.0), family="loss"),
        _full("mask_target", {"kl": {"data": "domain", "mask_target": True, "strength": "{}"}}, (1, 10), family="loss"),
        _full("flow", {"flow": {"strength": "{}"}}, (0.3, 1.0), family="loss"),
        _full("stm", {"stm": {"threshold": "{}"}}, (2.5, 20.0, 1000.0), family="loss"),
        _full("eaft", {"eaft": {"exponent": "{}"}}, (0.5, 1.0), family="loss"),
        _full("talr", {"talr": {"strength": "{}"}}, (0.5, 1.0), family="loss"),
        _full("l2_sp", {"l2_sp": {"strength": "{}"}}, (0.01, 0.1, 1.0), family="anchoring"),
        _full("ewc", {"ewc": {"strength": "{}"}}, (0.1, 1.0, 10.0), family="anchoring"),
        _full("ewc_self", {"ewc": {"strength": "{}", "data": "self"}}, (0.1, 1.0, 10.0), family="anchoring"),
        _full("mas", {"mas": {"strength": "{}"}}, (1e-4, 1e-3, 1e-2), family="anchoring"),
        Row("ewc_lora", [LORA, {"ewc": {"strength": "{}"}}], (0.1, 1.0, 10.0), (ADAPTER,), family="anchoring"),
        _full("freeze_bottom", {"freeze_bottom": {"fraction": "{}"}}, (0.34, 0.67), family="partial"),
        _full("half", "half", family="partial"),
        _full("mofo", {"mofo": {"fraction": "{}"}}, (0.05, 0.15), family="partial"),
        _full("layer_rates", {"layer_rates": {"decay": "{}"}}, (0.3, 0.6), family="partial"),
        _full("a_gem", {"a_gem": {"batch_size": 8}}, family="partial"),
        Row("lora_replay", [LORA, {"replay": {"share": "{}"}}], (0.3, 0.5), (ADAPTER,), family="together"),
        Row(
            "lora_replay_self_kl_self",
            [LORA, {"replay": {"share": 0.3, "source": "self"}}, {"kl": {"data": "self", "strength": "{}", "batch_size": 8}}],
            (1.0, 10.0),
            (ADAPTER,),
            family="together",
        ),
        _full(
            "replay_kl",
            {"replay": {"share": 0.3}},
            family="together",
        ),
    )
}
ROWS["replay_kl"] = replace(
    ROWS["replay_kl"],
    methods=[{"replay": {"share": 0.3}}, {"kl": {"data": "general", "strength": "{}", "batch_size": 8}}],
    grid=(1.0, 10.0),
)


def fill(spec: Any, value: Any) -> Any:
    """Puts a value of the grid where `{}` stands."""
    if isinstance(spec, Mapping):
        return {key: fill(inner, value) for key, inner in spec.items()}
    return value if spec == "{}" else spec


@dataclass
class Scene:
    """What a seed brings: a base model, its world, the narrow task and the general examples.

    Attributes:
        seed: The seed.
        base: The base model, never trained.
        world: Its world.
        train: Items of the narrow task to train on.
        test: Items that test it.
        questions: Held-out questions of each skill.
        general: Items like those that the base was taught, none of them held out.
        known: Which held-out questions the base answers.
    """

    seed: int
    base: Any
    world: World
    train: list[Item]
    test: list[Item]
    questions: dict[str, list[Item]]
    general: list[Item]
    known: dict[str, list[bool]] = field(default_factory=dict)

    def forgetting(self, model: Any) -> dict[str, float]:
        """Returns how far the accuracy of each skill has fallen, in [-1, 1]."""
        if not self.known:
            self.known = {skill: are_right(self.base, items) for skill, items in self.questions.items()}
        before = {skill: sum(right) / len(right) for skill, right in self.known.items()}
        return {skill: before[skill] - accuracy(model, items) for skill, items in self.questions.items()}


def set_scene(seed: int, work: Path) -> Scene:
    """Returns what belongs to a seed."""
    number = seed % NUM_BASES
    world = World(number)
    questions = {skill: held_out(world, skill, NUM_HELD_OUT) for skill in SKILLS}
    avoid = {item.prompt for items in questions.values() for item in items}
    stream = taught(world, random.Random(f"general {seed}"), shares=[1.0] * len(SKILLS), avoid=avoid)
    general = list(itertools.islice(stream, NUM_GENERAL))
    train, test = target_items(world, seed)
    base = pretrain(number, work, log=lambda line: print(f"base {number}: {line}", flush=True))
    return Scene(seed, base, world, train, test, questions, general)


class Looker(TrainerCallback):
    """Looks at the target accuracy now and then, and stops a training that has reached its goal."""

    def __init__(self, scene: Scene, goal: float | None) -> None:
        self.scene, self.goal = scene, goal
        self.reached: int | None = None
        self.seconds = 0.0
        self.held_bytes = 0

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        started = time.process_time()
        if state.global_step == LOOK // 2:
            self.held_bytes = held_bytes()
        if self.goal is not None and state.global_step % LOOK == 0:
            if accuracy(model, self.scene.test) >= self.goal:
                self.reached = state.global_step
                control.should_training_stop = True
        self.seconds += time.process_time() - started


def held_bytes() -> int:
    """Returns the bytes of all tensors that are alive."""
    storages = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for thing in gc.get_objects():
            try:
                if isinstance(thing, torch.Tensor):
                    storage = thing.untyped_storage()
                    storages[storage.data_ptr()] = storage.nbytes()
            except (ReferenceError, RuntimeError, NotImplementedError):
                continue
    return sum(storages.values())


def tune(
    scene: Scene, row: Row, value: Any, rate: float, *, steps: int, goal: float | None, work: Path
) -> dict[str, Any]:
    """Tunes a copy of the base by a row at one setting, and says what came of it."""
    import copy

    methods: list[Method] = [build_method(METHODS.load, fill(spec, value)) for spec in row.methods]
    tokenizer = build_tokenizer()
    base = copy.deepcopy(scene.base)
    domain = [item.example() for item in scene.train]
    context = Context(
        seed=scene.seed,
        general=[item.example("general") for item in scene.general],
        tokenizer=tokenizer,
        max_tokens=64,
        directory=work / "kept" / f"{scene.seed}",
        domain=domain,
        model=base,
        writer=_writer(base, tokenizer) if "self" in json.dumps(row.methods) else None,
        can_write=True,
    )
    mixture: Sequence[Any] = domain
    for method in methods:
        mixture = method.prepare_data(mixture, context)
    sequences = encode_examples(mixture, tokenizer, max_tokens=64)
    context = replace(context, sequences=sequences)
    model: Any = base
    started = time.process_time()
    for method in methods:
        model = method.prepare_model(model, context)
    prepared = time.process_time() - started
    looker = Looker(scene, goal)
    config = TrainingConfig(
        max_steps=steps, batch_size=BATCH, warmup_ratio=0.0, scheduler="constant", logging_steps=50, save_steps=10**6
    )
    with tempfile.TemporaryDirectory() as directory:
        started = time.process_time()
        trained, summary = train_model(
            model,
            tokenizer,
            sequences,
            methods=methods,
            config=config,
            learning_rate=rate,
            seed=scene.seed,
            directory=Path(directory),
            callbacks=[looker],
        )
        seconds = time.process_time() - started - looker.seconds
    forgetting = scene.forgetting(trained)
    return {
        "steps": summary.num_steps,
        "reached": looker.reached,
        "target": accuracy(trained, scene.test),
        "forgetting": forgetting,
        "mean_forgetting": sum(forgetting.values()) / len(forgetting),
        "step_ms": 1000 * seconds / summary.num_steps,
        "prepare_seconds": prepared,
        "held_mib": looker.held_bytes / 2**20,
    }


def _writer(model: Any, tokenizer: Any) -> Any:
    from forgetless.evaluate.writer import ModelWriter
    from forgetless.models import LoadedModel

    return ModelWriter(LoadedModel(model=model, tokenizer=tokenizer, name="laboratory"))


def settings(row: Row) -> Iterator[tuple[Any, float]]:
    """Yields every setting of a row: a value of its grid and a learning rate."""
    yield from itertools.product(row.grid, row.rates)


def do(job: tuple[str, int, Any, float, int, float | None, Path]) -> dict[str, Any]:
    """Runs one training of one row; what it can't do is its result."""
    name, seed, value, rate, steps, goal, work = job
    torch.set_num_threads(1)
    record = {"row": name, "seed": seed, "value": value, "rate": rate}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return record | tune(_scene(seed, work), ROWS[name], value, rate, steps=steps, goal=goal, work=work)
    except ConfigError as error:
        return record | {"error": str(error)}


_SCENES: dict[int, Scene] = {}


def _scene(seed: int, work: Path) -> Scene:
    if seed not in _SCENES:
        _SCENES[seed] = set_scene(seed, work)
    return _SCENES[seed]


def choose(records: Sequence[dict[str, Any]], row: Row) -> dict[str, Any] | None:
    """Returns the setting that reaches the goal on the validation seed and forgets least; None where none does."""
    found = [record for record in records if record.get("reached")]
    return min(found, key=lambda record: record["mean_forgetting"], default=None)


def run(names: Sequence[str], *, num_seeds: int, processes: int, work: Path) -> None:
    """Does what isn't done yet: the grids first, then the ten seeds of every row that reaches its goal."""
    journal = work / "journal.jsonl"
    known = [json.loads(line) for line in journal.read_text().splitlines()] if journal.exists() else []
    for number in range(NUM_BASES):
        pretrain(number, work, log=lambda line, number=number: print(f"base {number}: {line}", flush=True))
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(processes) as pool, journal.open("a") as file:

        def work_off(jobs: list[Any]) -> None:
            for record in pool.imap_unordered(do, jobs):
                known.append(record)
                file.write(json.dumps(record) + "\n")
                file.flush()
                shown = {k: round(v, 3) if isinstance(v, float) else v for k, v in record.items() if k != "forgetting"}
                print(json.dumps(shown), flush=True)

        done = {(r["row"], r["seed"], r["value"], r["rate"]) for r in known}
        work_off(
            [
                (name, VALIDATION, value, rate, ROWS[name].longest, ROWS[name].goal, work)
                for name in names
                for value, rate in settings(ROWS[name])
                if (name, VALIDATION, value, rate) not in done
            ]
        )
        jobs = []
        for name in names:
            tried = [r for r in known if r["row"] == name and r["seed"] == VALIDATION]
            best = choose(tried, ROWS[name])
            if best is None:
                print(f"{name}: no setting reaches the goal", flush=True)
                continue
            jobs += [
                (name, seed, best["value"], best["rate"], best["steps"], None, work)
                for seed in range(num_seeds)
                if (name, seed, best["value"], best["rate"]) not in done
            ]
        work_off(sorted(jobs, key=lambda job: job[1]))


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["run", "summarise"])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    names = arguments.rows.split(",")
    if arguments.action == "run":
        run(names, num_seeds=arguments.seeds, processes=arguments.processes, work=arguments.work)


if __name__ == "__main__":
    main()
