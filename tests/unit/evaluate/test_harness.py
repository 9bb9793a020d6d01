"""Our scorer as a model of lm-evaluation-harness, against the harness's own `hf` model."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from forgetless.errors import ConfigError, ModelError
from forgetless.evaluate.harness import ForgetlessLM
from forgetless.evaluate.local import LocalModel
from forgetless.evaluate.requests import Decoding
from forgetless.models import LoadedModel
from harness import run_harness, write_harness_tasks

# The harness and PEFT call what their own libraries have deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def hf_model(tiny_directory: Path) -> Any:
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=str(tiny_directory), device="cpu", batch_size=4)


def request(*args: Any) -> Any:
    """A request as the harness makes them, as far as models look at it."""
    return SimpleNamespace(args=args)


def ask(model: ForgetlessLM, method: str, *requests: Any) -> Any:
    return getattr(model, method)([request(*args) for args in requests], disable_tqdm=True)


def watch(model: ForgetlessLM, method: str, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Returns a list that fills with what a method of the local model is asked."""
    seen: list[Any] = []
    original = getattr(model.local, method)

    def watching(asked: Any, *args: Any, **settings: Any) -> Any:
        seen.extend(asked)
        return original(asked, *args, **settings)

    monkeypatch.setattr(model.local, method, watching)
    return seen


PAIRS = [
    ("Question: What is it?\nAnswer:", " a stone"),
    ("Question: What is it?\nAnswer:", " a bird"),
    ("Another context ", "with its space moved"),
    ("", "no context at all"),
    ("", "<|im_start|>begins with the start token"),
    ("<|im_start|>user\nHi<|im_end|>\n", "Hello"),
    ("Question: What is it?\nAnswer:", " a stone"),  # once more, and out of place
    ("x" * 3000, " too long: cut on the left"),
    ("x" * 1020, "just as long as can be"),
    ("ünï", "çödé ☃"),
]


def test_likelihoods_equal_those_of_the_harness(shared_model: LoadedModel, hf_model: Any) -> None:
    ours = ask(ForgetlessLM(shared_model), "loglikelihood", *PAIRS)
    theirs = hf_model.loglikelihood([request(*pair) for pair in PAIRS], disable_tqdm=True)
    assert [value for value, _ in ours] == pytest.approx([value for value, _ in theirs], abs=1e-3)
    assert [is_greedy for _, is_greedy in ours] == [is_greedy for _, is_greedy in theirs]


def test_texts_longer_than_the_model_are_read_in_the_same_windows(shared_model: LoadedModel, hf_model: Any) -> None:
    texts = [("short",), ("A long text goes on. " * 120,), ("",)]
    ours = ask(ForgetlessLM(shared_model), "loglikelihood_rolling", *texts)
    theirs = hf_model.loglikelihood_rolling([request(*text) for text in texts], disable_tqdm=True)
    assert ours == pytest.approx(theirs, rel=1e-5)
    assert ours[2] == 0.0


def test_answers_equal_those_of_the_harness(shared_model: LoadedModel, hf_model: Any) -> None:
    settings = {"until": ["\n\n", "a"], "max_gen_toks": 20, "do_sample": False}
    asked = [(f"Tell me about {n} " * (1 + n), settings) for n in range(5)] + [("x" * 2000, {"max_gen_toks": 9})]
    ours = ask(ForgetlessLM(shared_model), "generate_until", *asked)
    theirs = hf_model.generate_until([request(*args) for args in asked], disable_tqdm=True)
    assert ours == theirs
    assert any(ours)


def test_a_whole_evaluation_equals_the_harness(shared_model: LoadedModel, hf_model: Any, tmp_path: Path) -> None:
    directory = write_harness_tasks(tmp_path)
    names = ["made_choice", "made_answer", "made_last_word", "made_text"]
    ours = run_harness(ForgetlessLM(shared_model), names, directory, num_fewshot=1)
    theirs = run_harness(hf_model, names, directory, num_fewshot=1)
    for name in names:
        for mine, other in zip(ours["samples"][name], theirs["samples"][name], strict=True):
            for metric in mine["metrics"]:
                assert mine[metric] == pytest.approx(other[metric], rel=1e-5), (name, metric)
    assert ours["config"]["model_num_parameters"] == theirs["config"]["model_num_parameters"]


def test_the_context_of_a_question_is_computed_once(shared_model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    model = ForgetlessLM(shared_model)
    seen = watch(model, "score", monkeypatch)
    pairs = [("Same context:", f" choice {n}") for n in range(4)] + [("Same context:", " choice 0"), ("Other:", " x")]
    ask(model, "loglikelihood", *pairs)
    assert [len(request.continuations) for request in seen] == [4, 1]


@pytest.mark.parametrize("num_tokens", [1, 10, 1024])
def test_what_is_too_long_is_cut_to_the_last_token_that_fits(
    shared_model: LoadedModel, monkeypatch: pytest.MonkeyPatch, num_tokens: int
) -> None:
    model = ForgetlessLM(shared_model)
    seen = watch(model, "score", monkeypatch)
    ask(model, "loglikelihood", ("x" * 3000, "y" * num_tokens))
    # All but the last token of the continuation are fed.
    assert len(seen[0].context) + num_tokens - 1 == model.max_length


def test_many_choices_of_one_question_are_scored_in_bounded_pieces(
    shared_model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ForgetlessLM(shared_model)
    pairs = [("Context", " " + "y" * n) for n in range(1, 60)]
    whole = ask(model, "loglikelihood", *pairs)
    monkeypatch.setattr(sys.modules[ForgetlessLM.__module__], "LARGEST_GROUP", 100)
    seen = watch(model, "score", monkeypatch)
    pieces = ask(model, "loglikelihood", *pairs)
    assert max(sum(map(len, request.continuations)) for request in seen) <= 100
    assert [value for value, _ in pieces] == pytest.approx([value for value, _ in whole], abs=1e-4)


def test_what_is_asked_again_is_known(
    shared_model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"until": ["b"], "max_gen_toks": 5}
    first = ForgetlessLM(shared_model, cache=tmp_path)
    likelihoods = ask(first, "loglikelihood", *PAIRS[:3])
    texts = ask(first, "generate_until", ("One", settings), ("Two", settings))
    again = ForgetlessLM(shared_model, cache=tmp_path)
    scored, decoded = watch(again, "score", monkeypatch), watch(again, "decode", monkeypatch)
    assert ask(again, "loglikelihood", *PAIRS[:3]) == likelihoods
    assert ask(again, "generate_until", ("One", settings), ("Two", settings)) == texts
    assert scored == []
    assert decoded == []
    ask(again, "generate_until", ("One", settings | {"max_gen_toks": 6}))
    assert len(decoded) == 1


def test_an_altered_weight_is_another_model(loaded: LoadedModel, tmp_path: Path) -> None:
    before = ask(ForgetlessLM(loaded, cache=tmp_path), "loglikelihood", *PAIRS[:2])
    next(loaded.model.parameters()).data.mul_(1.5)
    assert ask(ForgetlessLM(loaded, cache=tmp_path), "loglikelihood", *PAIRS[:2]) != before


def test_progress_is_told(shared_model: LoadedModel) -> None:
    steps: list[tuple[float, float]] = []
    model = ForgetlessLM(shared_model, progress=lambda done, total: steps.append((done, total)))
    model.loglikelihood([request(*pair) for pair in PAIRS[:3]])
    assert steps[-1] == (3, 3)
    model.generate_until([request("One", {"max_gen_toks": 2})])
    assert steps[-1] == (1, 1)


def test_answers_are_decoded_greedily_whatever_the_model_was_set_to(shared_model: LoadedModel) -> None:
    sampling = LocalModel(shared_model, decoding=Decoding(temperature=2.0))
    asked = [("Tell me", {"max_gen_toks": 12})]
    assert ask(ForgetlessLM(sampling), "generate_until", *asked) == ask(
        ForgetlessLM(shared_model), "generate_until", *asked
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"do_sample": True, "temperature": 0.8}, "greedily"),
        ({"num_beams": 4}, "num_beams"),
        ({"max_gen_toks": 1024}, "max_gen_toks 1024 is not between 1 and 1023"),
        ({"max_gen_toks": 0}, "max_gen_toks 0"),
    ],
)
def test_settings_that_cannot_be_kept_are_refused(
    shared_model: LoadedModel, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        ask(ForgetlessLM(shared_model), "generate_until", ("Hi", settings))


def test_a_continuation_without_tokens_is_refused(shared_model: LoadedModel) -> None:
    with pytest.raises(ConfigError, match="a continuation has 0 tokens"):
        ask(ForgetlessLM(shared_model), "loglikelihood", ("Context", ""))


def test_prompts_under_the_chat_template(shared_model: LoadedModel, hf_model: Any) -> None:
    model = ForgetlessLM(shared_model)
    turns = [{"role": "user", "content": "Hi"}]
    assert model.apply_chat_template(turns) == hf_model.apply_chat_template(turns)
    assert model.chat_template(True) == hf_model.chat_template(True)
    assert model.tokenizer_name == hf_model.tokenizer_name


def test_special_tokens_are_added_as_asked(shared_model: LoadedModel) -> None:
    model = ForgetlessLM(shared_model, add_bos_token=False)
    plain = ForgetlessLM(shared_model)
    assert model.tok_encode("Hi") == plain.tok_encode("Hi", add_special_tokens=False)
    assert plain.tok_encode("<|im_start|>Hi")[0] == plain.prefix_token_id


def test_limits_can_be_set(shared_model: LoadedModel) -> None:
    model = ForgetlessLM(shared_model, max_length=64, batch_size="auto:4", max_batch_size=8)
    assert (model.max_length, model.batch_size, model.max_gen_toks) == (64, 8, 256)
    assert ForgetlessLM(shared_model, batch_size=2).batch_size == 2
    assert ForgetlessLM(shared_model, batch_size=1).batch_size == 64  # the harness's default, not a wish
    with pytest.raises(ConfigError, match="batch_size 'many'"):
        ForgetlessLM(shared_model, batch_size="many")


def test_tokens_that_stand_for_ends(loaded: LoadedModel) -> None:
    loaded.tokenizer.bos_token = None
    model = ForgetlessLM(loaded)
    assert model.prefix_token_id == model.eot_token_id
    loaded.tokenizer.eos_token = None
    with pytest.raises(ModelError, match="no end token"):
        _ = model.eot_token_id


def test_it_is_made_from_arguments(tiny_directory: Path) -> None:
    from lm_eval.api.registry import get_model

    made = get_model("forgetless").create_from_arg_string(
        f"pretrained={tiny_directory},dtype=float32", {"device": "cpu"}
    )
    assert isinstance(made, ForgetlessLM)


def test_an_adapter_on_a_named_model(tiny_directory: Path, shared_model: LoadedModel, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    wrapped: Any = get_peft_model(
        copy.deepcopy(shared_model.model), LoraConfig(target_modules=["q_proj"], init_lora_weights=False)
    )
    wrapped.save_pretrained(tmp_path / "adapter")
    model = ForgetlessLM(str(tiny_directory), peft=str(tmp_path / "adapter"), device="cpu")
    plain = ForgetlessLM(shared_model)
    assert ask(model, "loglikelihood", *PAIRS[:1]) != ask(plain, "loglikelihood", *PAIRS[:1])
    with pytest.raises(ModelError, match=r"neither .* nor adapter_config"):
        ForgetlessLM(shared_model, peft=str(tmp_path))
    with pytest.raises(ConfigError, match="peft needs"):
        ForgetlessLM(LocalModel(shared_model), peft=str(tmp_path / "adapter"))
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ModelError, match="cut off or damaged"):
        ForgetlessLM(copy.deepcopy(shared_model), peft=str(tmp_path / "adapter"))
