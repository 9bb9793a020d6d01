"""The retention monitor: a callback that looks at what a model keeps while it is trained, and acts on a budget."""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from transformers import TrainerCallback
from transformers.trainer_callback import CallbackHandler, ExportableState

from forgetless.data.encoding import Encoded, encode_example
from forgetless.data.sources import GeneralData, as_examples
from forgetless.errors import ConfigError, RunError, did_you_mean
from forgetless.mechanisms.adapters import is_base_behind_adapter
from forgetless.train.looks import OVER, Look, bounds, judge, level_of_look
from forgetless.train.pace import FEWEST_EXAMPLES, Pace
from forgetless.train.policies import POLICIES, Moment
from forgetless.train.probe import Probe, Reading, same_randomness

if TYPE_CHECKING:
    from forgetless.methods.base import Method

Policy = Literal["warn", "stop", "rollback", "adapt"]
Measure = Literal["kl", "cross_entropy"]
MEASURES: dict[str, str] = {"kl": "KL to the base", "cross_entropy": "cross-entropy above the base's"}
_SAMPLED_ROWS = 16  # training rows whose length tells what a step costs
_logger = logging.getLogger("forgetless")


class RetentionMonitor(TrainerCallback, ExportableState):
    """Asks the model in training about general examples every so often, and acts when a budget is exceeded.

    trainer.add_callback(RetentionMonitor(general="general.jsonl", budget=0.05, policy="stop", every=20))

    Args:
        general: Examples that stand for what is to be kept: the path of a file, examples, or rows.
        budget: Largest rise of the measure over the base that is tolerated, in nats per token.
        policy: warn = say so, stop = end the training, rollback = end it and go back to the last weights within the
            budget, adapt = raise the strength of methods that hold the model, or lower the learning rate.
        every: Optimizer steps from one look to the next.
        measure: What has the budget: kl = KL(base || model), cross_entropy = its rise on the examples' answers.
        num_examples: General examples of a look, at most; drawn once.
        max_tokens: Longest of them, in tokens; what is longer loses its end.
        alpha: Chance of any false alarm over all looks of a training, at most, in (0, 1).
        max_share: Largest share of the training time that looks may take, in (0, 1]; 1 = no limit.
        methods: Methods that hold the model, for policy adapt: those that were given to `protect`.
        seed: Seed of the draw.
        tokenizer: Where the trainer has none.
        log: File that a JSON line is added to at each look; None = the trainer's own log alone.
        tell: Takes what the user should know; None = a warning in the log of Python.

    Raises:
        ConfigError: An option is out of bounds.
        DataError: The examples can't be read.
    """

    def __init__(
        self,
        general: GeneralData = (),
        *,
        budget: float = 0.05,
        policy: Policy = "warn",
        every: int = 20,
        measure: Measure = "kl",
        num_examples: int = 64,
        max_tokens: int = 128,
        alpha: float = 0.05,
        max_share: float = 0.05,
        methods: Sequence[Method] = (),
        seed: int = 0,
        tokenizer: Any = None,
        log: Path | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        _refuse_unknown("policy", policy, get_args(Policy))
        _refuse_unknown("measure", measure, get_args(Measure))
        _refuse_out_of_bounds(budget=budget, every=every, num_examples=num_examples, alpha=alpha, max_share=max_share)
        self.examples = as_examples(general, origin="general")
        self.budget, self.measure, self.alpha = budget, measure, alpha
        self.num_examples, self.max_tokens, self.seed = num_examples, max_tokens, seed
        self.tokenizer, self.log, self._tell = tokenizer, log, tell
        self._new_pace = lambda: Pace(every=every, num_examples=num_examples, max_share=max_share)
        self._new_policy = lambda: POLICIES[policy](describe=self._describe, budget=budget, methods=methods)
        self._begin_anew()

    def _begin_anew(self) -> None:
        """Forgets an earlier training."""
        self.pace, self.policy = self._new_pace(), self._new_policy()
        self.looks: list[Look] = []
        self.actions: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self._spent_alpha = 0.0
        self._probe: Probe | None = None
        self._said_pace = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Draws the probe, and asks the base about it where it won't be there later."""
        self._refuse_engine(args)
        self._begin_anew()
        if state.global_step:
            self._restore(state.stateful_callbacks.get(type(self).__name__))
        state.stateful_callbacks.setdefault(type(self).__name__, self.state())
        moment = self._moment(args, state, control, kwargs)
        with same_randomness():
            with self.pace.spending():
                self._probe = self._draw(self.tokenizer or kwargs["processing_class"], args)
                self.policy.start(moment)
            self._ask_base(args, state, kwargs, moment)
        self.pace.begin()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Takes a look where one is due, and one at the end."""
        step = state.global_step
        is_last = step >= state.max_steps or control.should_training_stop
        if self._probe is None or not (is_last or self.pace.is_due(step)):
            return
        self.pace.pause()
        with same_randomness():
            plan = self.pace.replan(
                step, state.max_steps, num_tokens=self._probe.num_tokens, num_asked=self._probe.num_asked
            )
            # The clocks of processes differ; that of the first one counts.
            self.pace.num_examples, self.pace.every = _from_main(plan)
            if is_last or self.pace.is_due(step):
                self._say_pace(state)
                self._look(args, state, control, kwargs)
        self.pace.begin()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Completes a checkpoint."""
        with self._aside():
            self.policy.save(self._moment(args, state, control, kwargs))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Restores weights where the policy wants it."""
        with self._aside():
            self.policy.finish(self._moment(args, state, control, kwargs))
        self.pace.pause()

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """Counts a time as the monitor's, not the training's."""
        self.pace.pause()
        with self.pace.spending():
            yield
        self.pace.begin()

    def state(self) -> dict[str, Any]:
        """Returns what a checkpoint keeps of the monitor; it takes it back itself when a training is resumed."""
        self.pace.pause()
        known = {
            "looks": [vars(look) for look in self.looks],
            "actions": list(self.actions),
            "notes": list(self.notes),
            "spent_alpha": self._spent_alpha,
            "pace": self.pace.state(),
            "policy": self.policy.state(),
        }
        if self._probe is not None:
            self.pace.begin()
        return {"args": {}, "attributes": {"known": known}}

    def _restore(self, saved: Any) -> None:
        if saved is None:  # the monitor came to the training after that checkpoint
            return
        known = (saved[0] if isinstance(saved, list) else saved)["attributes"]["known"]
        self.looks = [Look(**look) for look in known["looks"]]
        self.actions, self.notes = list(known["actions"]), list(known["notes"])
        self._spent_alpha = known["spent_alpha"]
        self.pace.restore(known["pace"])
        self.policy.restore(known["policy"])
        if self.policy.ends_training and self.looks and self.looks[-1].status == OVER:
            self.pace.last_step = -self.pace.every  # looks again after the next step, under the budget of now

    def summary(self) -> dict[str, Any]:
        """Returns what a manifest says of the monitor."""
        last = self.looks[-1] if self.looks else None
        return {
            "policy": self.policy.name,
            "measure": self.measure,
            "budget": self.budget,
            "alpha": self.alpha,
            "num_looks": len(self.looks),
            "num_examples": last.num_examples if last else 0,
            "every": self.pace.every,
            "status": last.status if last else None,
            "estimate": self._estimate(last) if last else None,
            "low": last.low if last else None,
            "share_of_time": round(self.pace.share, 4),
            "seconds": round(self.pace.spent_seconds, 2),
            "actions": list(self.actions),
            "notes": list(self.notes),
        }

    def _refuse_engine(self, args: Any) -> None:
        if self.policy.name == "rollback" and (getattr(args, "fsdp", None) or getattr(args, "deepspeed", None)):
            raise ConfigError(
                "policy 'rollback' needs whole weights, which FSDP and DeepSpeed spread over processes: take stop"
            )

    def _draw(self, tokenizer: Any, args: Any) -> Probe:
        """Draws the examples in an order that is fixed by the seed, and encodes as many as are wanted."""
        if not self.examples:
            raise ConfigError(
                "the retention monitor has no general examples: pass general=... (forgetless.generate_replay writes "
                "some), and leave restore_callback_states_from_checkpoint off: the monitor restores its own state"
            )
        tokenizer = getattr(tokenizer, "tokenizer", tokenizer)  # of a processor
        found: list[Encoded] = []
        for index in np.random.default_rng(self.seed).permutation(len(self.examples)):
            sequence = encode_example(self.examples[index], tokenizer, max_tokens=self.max_tokens)
            if sequence.num_supervised:
                found.append(sequence)
            if len(found) == self.num_examples:
                break
        if len(found) < FEWEST_EXAMPLES:
            raise ConfigError(
                f"{len(found)} of {len(self.examples)} general examples have an answer within {self.max_tokens} tokens "
                f"and the retention monitor needs {FEWEST_EXAMPLES}: give it more of them, or raise its max_tokens"
            )
        self.pace.limit = len(found)
        return Probe(found, padding=getattr(tokenizer, "pad_token_id", None))

    def _ask_base(self, args: Any, state: Any, kwargs: dict[str, Any], moment: Moment) -> None:
        """Asks the base about a few examples where it stays at hand, about all that are needed where it doesn't."""
        assert self._probe is not None
        path = moment.directory / "base.safetensors"
        is_at_hand = is_base_behind_adapter(moment.model)
        if state.global_step and not is_at_hand:
            self._probe.load(path)
            self.pace.limit = self._probe.num_asked
            return
        num = FEWEST_EXAMPLES
        if not is_at_hand:
            tokens = _tokens_per_step(args, kwargs.get("train_dataloader"), default=self._mean_tokens)
            num = self.pace.limit = self.pace.size_at_start(state.max_steps, tokens, self._probe.num_tokens)
        with self.pace.spending(self._probe.num_tokens(num)):
            self._probe.ask(moment.model, num)
        if not is_at_hand and moment.is_main:
            self._probe.save(path)

    @property
    def _mean_tokens(self) -> float:
        assert self._probe is not None
        return self._probe.num_tokens(len(self._probe.sequences)) / len(self._probe.sequences)

    def _look(self, args: Any, state: Any, control: Any, kwargs: dict[str, Any]) -> None:
        assert self._probe is not None
        step, num, before = state.global_step, self.pace.num_examples, self.pace.spent_seconds
        moment = self._moment(args, state, control, kwargs)
        new = max(self._probe.num_tokens(num) - self._probe.num_tokens(self._probe.num_asked), 0)
        with self.pace.spending(self._probe.num_tokens(num) + new):
            self._probe.ask(moment.model, num)
            reading = _from_main(self._probe.look(moment.model, num))
        with self.pace.spending():
            level = level_of_look(
                self.alpha, spent=self._spent_alpha, num_left=self.pace.num_looks(step, state.max_steps)
            )
            self._spent_alpha += level
            self.pace.last_step = step
            look = self._read(reading, step, level)
            look = self.policy.act(look, self._estimate(look), moment)
        look = Look(**{**vars(look), "seconds": self.pace.spent_seconds - before})
        self.looks.append(look)
        self._log(look, args, state, control)

    def _read(self, reading: Reading, step: int, level: float) -> Look:
        rises = reading.cross_entropy - reading.base_cross_entropy
        values, is_positive = (reading.kl, True) if self.measure == "kl" else (rises, False)
        low, high = bounds(values, level, is_positive=is_positive)
        return Look(
            step=step,
            cross_entropy=float(reading.cross_entropy.mean()),
            rise=float(rises.mean()),
            kl=float(reading.kl.mean()),
            low=low,
            high=high,
            status=judge(float(values.mean()), low, self.budget),
            num_examples=len(values),
            seconds=0.0,
        )

    def _estimate(self, look: Look) -> float:
        return look.kl if self.measure == "kl" else look.rise

    def _describe(self, look: Look) -> str:
        """Says in one clause where a look stands."""
        least = f", at least {look.low:.3g}" if look.status == OVER else ""
        return (
            f"step {look.step}: {MEASURES[self.measure]} is {self._estimate(look):.3g} nats per token on "
            f"{look.num_examples} general examples{least}; the budget is {self.budget:g}"
        )

    def _log(self, look: Look, args: Any, state: Any, control: Any) -> None:
        """Writes a look to the trainer's log, to what it reports to, and to a file."""
        logs = look.curves()
        if state.epoch is not None:
            logs["epoch"] = state.epoch
        state.log_history.append({**logs, "step": look.step})
        handler = _calling_handler()
        if handler is not None:
            wanted = control.should_log  # the trainer's own line of this step is still to come
            handler.on_log(args, state, control, dict(logs))
            control.should_log = wanted
        if self.log is not None and state.is_world_process_zero:
            record = {"step": look.step, "retention": {**look.record(), "budget": self.budget, "measure": self.measure}}
            try:
                with self.log.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(record) + "\n")
            except OSError as error:
                raise RunError(f"{self.log} cannot be written ({error.strerror}): free some space") from error

    def _say_pace(self, state: Any) -> None:
        """Says once that looks are smaller or rarer than was asked for."""
        assert self._probe is not None
        wanted, pace = min(self.num_examples, len(self._probe.sequences)), self.pace
        is_rarer = state.global_step - pace.last_step > pace.wanted_every
        if self._said_pace or (pace.num_examples >= wanted and not is_rarer):
            return
        self._said_pace = True
        rarer = f", less often than every {pace.wanted_every} steps" if is_rarer else ""
        self._say(
            f"the retention monitor looks at {pace.num_examples} of {wanted} examples{rarer}, so that it takes no more "
            f"than about {pace.max_share:.0%} of the training time",
            state.is_world_process_zero,
        )

    def _say(self, text: str, is_main: bool) -> None:
        self.notes.append(text)
        if is_main and self._tell is not None:
            self._tell(text)
        elif is_main:
            _logger.warning(text)

    def _moment(self, args: Any, state: Any, control: Any, kwargs: dict[str, Any]) -> Moment:
        is_main = bool(state.is_world_process_zero)
        return Moment(
            step=state.global_step,
            model=kwargs["model"],
            optimizer=kwargs.get("optimizer"),
            scheduler=kwargs.get("lr_scheduler"),
            control=control,
            directory=Path(args.output_dir) / "retention",
            checkpoint=Path(args.output_dir) / f"checkpoint-{state.global_step}",
            is_main=is_main,
            say=lambda text: self._say(text, is_main),
            did=lambda action: self.actions.append({"step": state.global_step, "action": action}),
        )


def _refuse_unknown(option: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ConfigError(f"the retention monitor has no {option} {value!r}{did_you_mean(str(value), known)}")


def _refuse_out_of_bounds(*, budget: float, every: int, num_examples: int, alpha: float, max_share: float) -> None:
    wrong = {
        f"budget {budget} is not above 0: it is a rise in nats per token": not budget > 0,
        f"every {every} is not a number of steps: at least 1": every < 1,
        f"num_examples {num_examples} is too few to tell: at least {FEWEST_EXAMPLES}": num_examples < FEWEST_EXAMPLES,
        f"alpha {alpha} is not in (0, 1): it is the chance of a false alarm": not 0 < alpha < 1,
        f"max_share {max_share} is not in (0, 1]: it is a share of the training time": not 0 < max_share <= 1,
    }
    for message, is_wrong in wrong.items():
        if is_wrong:
            raise ConfigError(f"retention monitor: {message}")


def _tokens_per_step(args: Any, loader: Any, *, default: float) -> float:
    """Returns about how many tokens an optimizer step has in this process, from the first rows of the data."""
    dataset: Any = getattr(loader, "dataset", None)
    lengths: list[int] = []
    if hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__"):
        rows = [dataset[index] for index in range(min(len(dataset), _SAMPLED_ROWS))]
        lengths = [len(row["input_ids"]) for row in rows if hasattr(row, "keys") and "input_ids" in row]
    mean = sum(lengths) / len(lengths) if lengths else default
    return float(mean * args.train_batch_size * args.gradient_accumulation_steps)


def _from_main(value: Any) -> Any:
    """Returns what the first process has, in all of them, so that they decide alike."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return value
    held = [value]
    distributed.broadcast_object_list(held, src=0)
    return held[0]


def _calling_handler() -> CallbackHandler | None:
    """Returns the handler that is calling: a callback has no other way to what the trainer reports to."""
    frame = inspect.currentframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, CallbackHandler):
            return caller
        frame = frame.f_back
    return None
