"""The example domain `drug_qa` is balanced, well formed and free of overlap between train and test."""

import json
import re
from collections import Counter
from itertools import product
from pathlib import Path

import pytest

DRUG_QA = Path(__file__).parents[3] / "examples" / "drug_qa"
NUM_EXAMPLES = {"train": 224, "test": 72}
TOPICS = ("interaction", "indication", "side_effect", "storage", "dosing_form")
NGRAM_WORDS = 8
MAX_JACCARD = 0.75

Example = dict[str, str]


def read(split: str) -> list[Example]:
    text = (DRUG_QA / f"{split}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"[a-z0-9']+", text.lower()))


def ngrams(text: str) -> set[tuple[str, ...]]:
    tokens = words(text)
    return {tokens[i : i + NGRAM_WORDS] for i in range(len(tokens) - NGRAM_WORDS + 1)}


def jaccard(left: str, right: str) -> float:
    a, b = set(words(left)), set(words(right))
    return len(a & b) / len(a | b)


@pytest.fixture(scope="module")
def train() -> list[Example]:
    return read("train")


@pytest.fixture(scope="module")
def test() -> list[Example]:
    return read("test")


@pytest.mark.parametrize("split", NUM_EXAMPLES)
def test_counts_and_fields(split: str) -> None:
    examples = read(split)
    assert len(examples) == NUM_EXAMPLES[split]
    assert all(list(example) == ["question", "answer", "topic"] for example in examples)


@pytest.mark.parametrize("split", NUM_EXAMPLES)
def test_topics_are_balanced_and_match_the_readme(split: str) -> None:
    counts = Counter(example["topic"] for example in read(split))
    assert set(counts) == set(TOPICS)
    assert max(counts.values()) - min(counts.values()) <= 1
    column = list(NUM_EXAMPLES).index(split)
    rows = re.findall(r"^\| (\w+) \| (\d+) \| (\d+) \|$", (DRUG_QA / "README.md").read_text(encoding="utf-8"), re.M)
    assert {topic: int(numbers[column]) for topic, *numbers in rows} == counts


def test_questions_and_answers_are_unique(train: list[Example], test: list[Example]) -> None:
    for field in ("question", "answer"):
        counts = Counter(words(example[field]) for example in train + test)
        assert [" ".join(text) for text, count in counts.items() if count > 1] == []


def test_answers_have_one_to_three_sentences_and_15_to_45_words(train: list[Example], test: list[Example]) -> None:
    for example in train + test:
        answer = example["answer"]
        assert answer.endswith("."), answer
        assert 1 <= len(re.findall(r"[.!?](?=\s|$)", answer)) <= 3, answer
        assert 15 <= len(answer.split()) <= 45, answer


def test_no_test_question_shares_eight_words_in_a_row_with_train(train: list[Example], test: list[Example]) -> None:
    seen = set().union(*(ngrams(example["question"]) for example in train))
    assert [example["question"] for example in test if ngrams(example["question"]) & seen] == []


def test_no_test_question_paraphrases_a_train_question(train: list[Example], test: list[Example]) -> None:
    pairs = product((example["question"] for example in test), (example["question"] for example in train))
    assert [pair for pair in pairs if jaccard(*pair) >= MAX_JACCARD] == []
