"""The laboratory's parts: what is taught and held out, how settings are chosen, what a row is said to be worth."""

from __future__ import annotations

import itertools
import json
import random
import runpy
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from benchmarks.laboratory import scene, search, skills, summary, table, tuning

from forgetless.data.encoding import encode_example
from forgetless.methods.base import Context
from forgetless.methods.lora import LoRA
from forgetless.methods.wise_ft import WiSEFT

ROOT = Path(__file__).parents[3]


CHOOSING = (100, 101, 102)


def test_items_are_encoded_as_the_product_does() -> None:
    world, draw = skills.World(0), random.Random(0)
    for skill in skills.SKILLS:
        item = world.draw(skill, draw)
        encoded = encode_example(item.example(), skills.build_tokenizer())
        ids, start = skills.encode_item(item)
        assert encoded is not None
        assert list(encoded.input_ids) == ids
        assert list(encoded.labels) == [-100] * start + ids[start:]


def test_what_is_held_out_is_neither_taught_nor_tuned_on() -> None:
    world = skills.World(1)
    judged = {skill: skills.held_out(world, skill, 200) for skill in skills.SKILLS}
    avoid = scene.prompts_of(judged)
    taught = skills.taught(world, random.Random(0), shares=[1.0] * len(skills.SKILLS), avoid=avoid)
    assert not avoid & {item.prompt for item in itertools.islice(taught, 5000)}
    train, test = skills.target_items(world, 3)
    unseen = {item.prompt for item in test if item.skill == skills.UNSEEN}
    assert len(unseen) == 24
    assert not unseen & {item.prompt for item in train}
    assert not avoid & {item.prompt for item in train}
    assert {item.prompt for item in test} == unseen | {item.prompt for item in train}


def test_the_narrow_task_asks_as_of_known_facts_and_answers_in_a_new_form() -> None:
    world = skills.World(0)
    train, _ = skills.target_items(world, 0)
    assert all(item.answer.endswith(" ! !") for item in train)
    known = {" ".join(key.split()) for key in world.keys}
    assert not any(f" {key} " in f" {item.prompt} " for item in train for key in known)


class FakeModel:
    """Writes what it is told to."""

    def __init__(self, prompts: list[str], answer: str) -> None:
        self.prompts, self.answer = prompts, answer

    def generate(self, start: torch.Tensor, do_sample: bool, **options: Any) -> torch.Tensor:
        texts = [f"{prompt} <assistant>" for prompt in self.prompts] if do_sample else [self.answer] * len(start)
        rows = [[skills.IDS[word] for word in text.split()] for text in texts]
        longest = max(map(len, rows))
        padded = torch.tensor([row + [skills.IDS["<pad>"]] * (longest - len(row)) for row in rows])
        return torch.cat([start, padded], dim=1)


def test_a_base_writes_each_prompt_once_and_none_that_is_held_out() -> None:
    model = FakeModel(["copy a b", "copy a b", "copy c", "<end> a"], "a b <end>")
    found = scene.write_items(model, 4, 0, avoid={"copy c"})
    assert [(item.prompt, item.answer) for item in found] == [("copy a b", "a b")]


def test_an_answer_without_end_is_not_kept() -> None:
    assert scene.write_items(FakeModel(["copy a"], "a a"), 1, 0, avoid=set()) == []


def looks(*targets: float, forgetting: float = 0.2) -> dict[str, Any]:
    return {
        "looks": [
            {"steps": tuning.LOOK * (n + 1), "target": t, **({"forgetting": forgetting} if t >= 0.8 else {})}
            for n, t in enumerate(targets)
        ]
    }


def share_of(recipe: Any) -> float:
    return float(recipe.methods[0]["replay"]["share"])


def chosen(row: table.Row, run: search.Run) -> search.Choice:
    choice = search.choose(row, run)
    assert isinstance(choice, search.Choice)
    return choice


def test_the_fewest_steps_that_reach_the_goal_are_taken() -> None:
    row = table.Row("x", "data", rates=(1e-3,))
    choice = chosen(row, lambda *_: looks(0.5, 0.95, 0.9, 0.96, 0.97))
    assert (choice.steps, choice.is_reached) == (4 * tuning.LOOK, True)  # the second look was a lucky one


def test_the_setting_that_forgets_least_is_chosen_and_none_is_tried_after_one_that_fails() -> None:
    asked = []

    def run(recipe: Any, *_: Any) -> Mapping[str, Any]:
        share = share_of(recipe)
        asked.append(share)
        return looks(0.5, 1.0, 1.0, forgetting=0.6 - share) if share < 0.5 else looks(0.5, 0.6, 0.7)

    row = table.Row("x", "data", table.grid("replay", "share", 0.1, 0.25, 0.5, 0.75), rates=(1e-3,))
    choice = chosen(row, run)
    assert share_of(choice.recipe) == 0.25
    assert choice.forgetting == pytest.approx(0.35)
    assert choice.num_tried == 3
    assert 0.75 not in asked
    assert asked.count(0.5) == 1  # the other seeds couldn't bring it to the goal any more


def test_a_row_that_never_reaches_the_goal_is_run_at_its_best_and_says_so() -> None:
    choice = chosen(table.Row("x", "data", rates=(1e-3,)), lambda *_: looks(0.5, 0.9, 0.85))
    assert (choice.steps, choice.is_reached) == (2 * tuning.LOOK, False)


def test_a_row_that_is_refused_gives_the_reason() -> None:
    assert search.choose(table.Row("x", "data"), lambda *_: {"failed": "needs a GPU"}) == "needs a GPU"


def test_forgetting_comes_from_the_first_look_that_saw_it() -> None:
    lines = {100: looks(0.7, 0.9, forgetting=0.1), 101: looks(1.0, 1.0), 102: looks(1.0, 1.0)}
    row = table.Row("x", "data", rates=(1e-3,), goal=0.93)
    choice = chosen(row, lambda recipe, seed, *_: lines[seed])
    assert choice.steps == tuning.LOOK
    assert choice.forgetting == pytest.approx(0.5 / 3)


def test_the_journal_knows_what_was_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def tune(recipe: Any, seed: int, steps: int, *_: Any, is_search: bool) -> dict[str, Any]:
        made.append(seed)
        return {**vars(recipe), "seed": seed, "steps": steps, "is_search": is_search, "target": 1.0}

    monkeypatch.setattr(search, "tune", tune)
    path, recipe = tmp_path / "journal.jsonl", tuning.Recipe(({"lora": {"rank": 4}},))
    search.Journal(path, tmp_path).run(recipe, 0, 10, False)
    with path.open("a", encoding="utf-8") as file:
        file.write('{"seed": 1, "cut o')
    again = search.Journal(path, tmp_path)
    assert again.run(recipe, 0, 10, False)["target"] == 1.0
    assert made == [0]
    with pytest.raises(search.MissingRunError):
        search.Journal(path, None).run(recipe, 0, 20, False)


def test_memory_is_gradients_moments_and_what_methods_hold_each_once() -> None:
    model = torch.nn.Linear(10, 10, bias=False)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 10)).sum().backward()
    optimizer.step()
    anchor = torch.zeros(100)
    method: Any = {"a": anchor, "b": [anchor, model.weight]}
    memory = tuning.Memory(400, [method])
    memory.on_step_end(None, SimpleNamespace(global_step=1), None, model=model, optimizer=optimizer)
    step = 4  # AdamW's counter
    assert memory.num_bytes == 400 + 2 * 400 + step + 400


def test_a_look_ends_a_search_that_has_learned_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "accuracy", lambda model, items: model)
    place: Any = SimpleNamespace(test=[], forgetting=lambda model, is_validation: {"a": 0.2, "b": 0.4})
    looker, control = tuning.Looker(place), SimpleNamespace(should_training_stop=False)
    for step, target in enumerate((0.5, 0.5, 0.96, 0.96), start=0):
        looker.on_step_end(None, SimpleNamespace(global_step=tuning.LOOK * step + 1), control, model=target)
        assert not control.should_training_stop
        looker.on_step_end(None, SimpleNamespace(global_step=tuning.LOOK * (step + 1)), control, model=target)
    assert control.should_training_stop
    assert [look.get("forgetting") for look in looker.looks] == [None, None, pytest.approx(0.3), pytest.approx(0.3)]


def test_a_look_sees_the_model_that_the_run_would_leave_and_training_goes_on_with_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tuning, "accuracy", lambda model, items: model.weight.item() / 10)
    model = torch.nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(1.0)
    method = WiSEFT(share=0.25)
    method.prepare_model(model, Context())
    model.weight.data.fill_(5.0)
    place: Any = SimpleNamespace(test=[])
    looker = tuning.Looker(place, [method, LoRA()])
    for step in (tuning.LOOK, 2 * tuning.LOOK):
        looker.on_step_end(None, SimpleNamespace(global_step=step), None, model=model)
    assert [look["target"] for look in looker.looks] == [0.2, 0.2]
    assert model.weight.item() == 5.0


GOOD, BAD = (table.Row(name, "data", ((name,),)) for name in ("good", "bad"))
TRIED = (table.PLAIN, table.LOWER, table.FEWER, GOOD, BAD)


def write_journal(path: Path, forgotten: Mapping[str, float], *, target: Mapping[str, float]) -> None:
    """Writes a journal in which rows forget by so much, with a little noise that seeds share."""
    written = []
    for row in TRIED:
        for rate, methods in itertools.product(row.rates, row.settings):
            base = {"methods": list(methods), "rate": rate, "kept": row.kept}
            curve = looks(0.93, 0.94, 1.0)  # 93 % at the first look, 95 % at the second
            written += [
                {**base, "seed": seed, "steps": search.LONGEST, "is_search": True, **curve} for seed in CHOOSING
            ]
            for seed in search.SEEDS:
                value = forgotten[row.name] + 0.01 * (seed % 3) + 0.002 * (seed % 2) * len(methods)
                found = {"forgetting": {"facts": value}, "target": target.get(row.name, 0.96), "unseen": 0.8}
                costs = {"step_seconds": 0.02, "prepare_seconds": 0.1, "memory_bytes": 100, "seconds": 1.0}
                steps = tuning.LOOK * (1 if row is table.FEWER else 2)
                written.append({**base, "seed": seed, "steps": steps, "is_search": False, **found, **costs})
    path.write_text("\n".join(map(json.dumps, written)) + "\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("good", "target", "finding"),
    [
        (0.1, 0.96, "beats both controls"),
        (0.35, 0.96, "no better than the controls"),  # than lower learning rate, which isn't beaten
        (0.1, 0.9, "learns less"),
    ],
)
def test_a_method_has_to_beat_both_controls(tmp_path: Path, good: float, target: float, finding: str) -> None:
    path = tmp_path / "journal.jsonl"
    forgotten = {"plain fine-tuning": 0.5, "lower learning rate": 0.3, "fewer steps": 0.4, "good": good, "bad": 0.6}
    write_journal(path, forgotten, target={"good": target})
    result = summary.summarise([*TRIED, table.Row("unknown", "data", (("c",),))], path, bases=[{"facts": 1.0}])
    rows = {row["name"]: row for row in result["rows"]}
    assert rows["good"]["finding"] == finding
    assert rows["bad"]["finding"] == "no better than the controls"
    assert rows["unknown"]["finding"] == "not run"
    assert rows["good"]["saved"]["mean"] == pytest.approx(0.5 - good, abs=0.002)
    assert rows["good"]["step_ratio"] == rows["good"]["memory_ratio"] == 1.0
    assert "saved" not in rows["plain fine-tuning"]


def test_what_was_summarised_can_be_shown(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    forgotten = {"plain fine-tuning": 0.5, "lower learning rate": 0.3, "fewer steps": 0.4, "good": 0.1, "bad": 0.6}
    write_journal(path, forgotten, target={})
    result = json.loads(json.dumps(summary.summarise(TRIED, path, bases=[{"facts": 1.0}])))
    write = runpy.run_path(str(ROOT / "scripts" / "write_laboratory_page.py"))
    assert "**beats both controls**" in write["page"](result)
    assert write["figure"](result).startswith("<svg")


def test_base_models_are_the_units_of_what_is_said_of_others(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    forgotten = {"plain fine-tuning": 0.5, "lower learning rate": 0.3, "fewer steps": 0.4, "good": 0.1, "bad": 0.35}
    write_journal(path, forgotten, target={})
    rows = {row["name"]: row for row in summary.summarise(TRIED, path, bases=[{"facts": 1.0}] * 3)["rows"]}
    assert (rows["good"]["num_bases_won"], rows["bad"]["num_bases_won"]) == (3, 0)
    assert rows["good"]["num_bases"] == 3
    assert rows["bad"]["p_value_of_bases"] > 0.5
    assert rows["good"]["p_value_of_bases"] < 0.001  # the noise is that of the seeds, and nearly equal over bases
    assert summary.by_base({"0": 1.0, "3": 3.0, "1": 5.0}) == {"0": 2.0, "1": 5.0}


def test_a_choice_at_the_edge_of_its_grid_is_marked(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    write_journal(path, {row.name: 0.3 for row in TRIED}, target={})
    rows = {row["name"]: row for row in summary.summarise(TRIED, path, bases=[{"facts": 1.0}])["rows"]}
    assert not rows["plain fine-tuning"]["is_lowest_rate"]  # it has one rate only
    assert rows["lower learning rate"]["rates"] == list(table.LOWER.rates)
    write = runpy.run_path(str(ROOT / "scripts" / "write_laboratory_page.py"))
    shown = {"rate": 1e-3, "methods": [{"replay": {"share": 0.5}}], "is_lowest_rate": True, "is_strongest": True}
    assert write["settings"](shown) == "rate 0.001 <; replay: share 0.5 >"
    assert write["spread"]({"mean": 0.002, "low": -0.004, "high": 0.011}) == "0 [0, 1]"


def test_before_plain_fine_tuning_was_run_no_row_is_judged(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    write_journal(path, {row.name: 0.3 for row in TRIED}, target={})
    lines = [line for line in path.read_text().splitlines() if '"methods": []' not in line]
    path.write_text("\n".join(lines), encoding="utf-8")
    result = summary.summarise(TRIED, path, bases=[{"facts": 1.0}])
    assert {row["finding"] for row in result["rows"]} == {"not run", "not compared"}


def test_rows_are_paired_by_seed() -> None:
    other = {str(seed): 0.3 + 0.1 * seed for seed in range(10)}
    own = {seed: value - 0.02 - 0.001 * int(seed) for seed, value in other.items()}
    found = summary.paired(other, own)
    assert found["mean"] == pytest.approx(0.0245)
    assert found["low"] > 0.02  # the seeds differ by tenths, the pairs by thousandths
    assert found["p_value"] < 1e-6
    assert summary.paired(own, own)["p_value"] == 1.0


def test_every_row_can_be_built() -> None:
    from forgetless.methods import METHODS
    from forgetless.methods.base import build_method, refuse_conflicts

    rows = [row for row in table.ROWS if row.name not in search.missing_methods(table.ROWS, list(METHODS))]
    for row in rows:
        for setting in row.settings:
            refuse_conflicts([build_method(METHODS.load, spec) for spec in setting])
    assert len(rows) > 20
    assert len({row.name for row in table.ROWS}) == len(table.ROWS)


def test_a_row_of_a_method_that_is_not_built_is_found() -> None:
    row = table.Row("x", "data", [["lora"], [{"nonesuch": {}}]])
    assert search.missing_methods([row, table.PLAIN], ["lora"]) == {"x": "nonesuch"}
