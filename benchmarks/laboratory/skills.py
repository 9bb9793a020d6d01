"""Five synthetic skills and a narrow target task, made by a program from a seed: prompts, answers and their tokenizer.

A text is a row of words with single spaces between them, and a word is a token. A world is what a base model knows: its
facts and its small language; each base model has a world of its own.
"""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from forgetless.data.examples import Example, Message

SKILLS = ("arithmetic", "strings", "facts", "formats", "language")
UNSEEN = "unseen"
USER, ASSISTANT, END = "<user>", "<assistant>", "<end>"
TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}<user> {{ message['content'] }} {% else %}{{ message['content'] }} <end>"
    "{% endif %}{% if message['role'] == 'user' and not loop.last %}<assistant> {% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)

DIGITS = tuple("0123456789")
LETTERS = tuple("abcdefghijklmnop")
CAPITALS = tuple(letter.upper() for letter in LETTERS)
SYLLABLES = tuple(c + v for c, v in itertools.product("bdfgklmnprstvz", "aiu"))
VALUES = {
    "color": ("red", "blue", "green", "white", "black", "pink", "brown", "grey", "gold", "orange"),
    "home": ("lake", "hill", "cave", "farm", "tower", "coast", "forest", "desert", "island", "swamp"),
}
PHRASINGS = (
    "what {attribute} has {key} ?",
    "tell the {attribute} of {key}",
    "{key} has which {attribute} ?",
    "name {key} and its {attribute}",
    "the {attribute} of {key} ?",
)
NOUNS = ("dog", "cat", "bird", "fish", "horse", "cow", "wolf", "bear", "mouse", "frog", "goat", "duck", "snake", "bee")
VERBS = ("sees", "hears", "likes", "finds", "calls", "meets", "fears", "feeds")
ADJECTIVES = ("big", "old", "wild", "shy", "quick", "loud", "wise", "thin")
FOREIGN = tuple(f"{c}{v}{e}" for c, v, e in itertools.product("hjwqxy", "aeo", "rs"))
FORMS = ("-ol", "-ep")  # endings of the two noun classes
MANY = "mu"
WORDS = (
    *("<pad>", USER, ASSISTANT, END, "add", "and", "copy", "reverse", "json", "list", "upper", "translate"),
    *("one", "many", *"{}[]:,?.!;='", "what", "has", "tell", "the", "of", "which", "name", "its", "color", "home"),
)
VOCABULARY = tuple(
    dict.fromkeys(
        itertools.chain(
            WORDS,
            DIGITS,
            LETTERS,
            CAPITALS,
            SYLLABLES,
            *VALUES.values(),
            NOUNS,
            VERBS,
            ADJECTIVES,
            FOREIGN,
            FORMS,
            [MANY],
        )
    )
)


@dataclass(frozen=True, slots=True)
class Item:
    """One question with its answer.

    Attributes:
        skill: The skill that it belongs to, or `target`, or `unseen`.
        prompt: What the user says.
        answer: What the assistant says.
    """

    skill: str
    prompt: str
    answer: str

    def example(self, origin: str = "domain") -> Example:
        """Returns the item as the product's pipeline reads it."""
        return Example(
            messages=(Message("user", self.prompt), Message("assistant", self.answer)),
            origin=origin,
            metadata={"skill": self.skill},
        )


class World:
    """The facts and the language that one base model is taught.

    Args:
        seed: Another seed, another world.
        num_keys: How many things there are facts about; each has one value per attribute.
    """

    def __init__(self, seed: int, *, num_keys: int = 60) -> None:
        draw = random.Random(f"world {seed}")
        keys = [" ".join(pair) for pair in itertools.permutations(SYLLABLES, 2)]
        draw.shuffle(keys)
        self.keys, self.spare_keys = keys[:num_keys], keys[num_keys:]
        self.facts = {(key, name): draw.choice(values) for key in self.keys for name, values in VALUES.items()}
        foreign = list(FOREIGN)
        draw.shuffle(foreign)
        self.meaning = dict(zip(NOUNS + VERBS + ADJECTIVES, foreign, strict=False))
        self.noun_class = {noun: draw.randrange(2) for noun in NOUNS}
        # Each fact is never taught in one of the phrasings, and asked in that one.
        self.withheld = {fact: draw.randrange(len(PHRASINGS)) for fact in self.facts}

    def draw(self, skill: str, generator: random.Random) -> Item:
        """Draws one item of a skill; facts come in a phrasing in which they are taught."""
        draw: Callable[[random.Random], Item] = getattr(self, f"_{skill}")
        return draw(generator)

    def _arithmetic(self, draw: random.Random) -> Item:
        one, other = draw.randrange(100), draw.randrange(100)
        prompt = f"add {spell(one, 2)} and {spell(other, 2)}"
        return Item("arithmetic", prompt, spell(one + other, 3))

    def _strings(self, draw: random.Random) -> Item:
        letters = draw.choices(LETTERS, k=draw.randint(3, 6))
        kind = draw.choice(("copy", "reverse"))
        answer = letters if kind == "copy" else letters[::-1]
        return Item("strings", f"{kind} {' '.join(letters)}", " ".join(answer))

    def _facts(self, draw: random.Random) -> Item:
        fact = draw.choice(list(self.facts))
        phrasing = draw.choice([number for number in range(len(PHRASINGS)) if number != self.withheld[fact]])
        return self.ask(fact, phrasing)

    def ask(self, fact: tuple[str, str], phrasing: int) -> Item:
        """Returns the question for a fact in one of the phrasings."""
        key, attribute = fact
        return Item("facts", PHRASINGS[phrasing].format(key=key, attribute=attribute), self.facts[fact])

    def _formats(self, draw: random.Random) -> Item:
        kind = draw.choice(("json", "list", "upper"))
        if kind == "json":
            pairs = list(zip(draw.sample(LETTERS, 2), draw.choices(DIGITS, k=2), strict=True))
            inner = " , ".join(f"{name} : {value}" for name, value in pairs)
            return Item("formats", f"json {' '.join(f'{n} {v}' for n, v in pairs)}", f"{{ {inner} }}")
        letters = draw.choices(LETTERS, k=draw.randint(3, 5))
        if kind == "list":
            return Item("formats", f"list {' '.join(letters)}", f"[ {' , '.join(letters)} ]")
        return Item("formats", f"upper {' '.join(letters)}", " ".join(letters).upper())

    def _language(self, draw: random.Random) -> Item:
        """Word by word but verb first; the adjective takes its noun's ending, the verb its subject's number."""
        number, adjective, verb = draw.choice(("one", "many")), draw.choice(ADJECTIVES), draw.choice(VERBS)
        subject, thing = draw.sample(NOUNS, 2)
        known = self.meaning
        words = [known[verb], *([MANY] if number == "many" else [])]
        words += [known[subject], known[adjective], FORMS[self.noun_class[subject]]]
        words += [known[thing], FORMS[self.noun_class[thing]]]
        return Item("language", f"translate {number} {adjective} {subject} {verb} {thing}", " ".join(words))


def spell(number: int, width: int) -> str:
    """Returns the digits of a number as words, with leading zeros."""
    return " ".join(f"{number:0{width}d}")


def held_out(world: World, skill: str, num: int) -> list[Item]:
    """Returns the questions by which a skill is judged: none is ever trained on.

    Facts are asked in the phrasing in which each was never taught.

    Args:
        world: The world.
        skill: One of the five.
        num: How many at most.

    Returns:
        The questions, without repeats.
    """
    draw = random.Random(f"held out {skill}")
    if skill == "facts":
        facts = draw.sample(list(world.facts), min(num, len(world.facts)))
        return [world.ask(fact, world.withheld[fact]) for fact in facts]
    found: dict[str, Item] = {}
    while len(found) < num:
        item = world.draw(skill, draw)
        found[item.prompt] = item
    return list(found.values())


def taught(world: World, generator: random.Random, *, shares: Sequence[float], avoid: set[str]) -> Iterator[Item]:
    """Yields what a base model is pretrained on, without end.

    Args:
        world: The world.
        generator: Where the draws come from.
        shares: How often each skill comes, in the order of `SKILLS`.
        avoid: Prompts that are held out.

    Yields:
        One item after the other.
    """
    while True:
        item = world.draw(generator.choices(SKILLS, weights=shares)[0], generator)
        if item.prompt not in avoid:
            yield item


@functools.cache
def build_tokenizer() -> Any:
    """Returns the tokenizer: one token per word, and a chat template of one word per role."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel({word: number for number, word in enumerate(VOCABULARY)}, unk_token="<pad>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=USER, eos_token=END, pad_token="<pad>", model_max_length=64
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


IDS = {word: number for number, word in enumerate(VOCABULARY)}


def encode_item(item: Item) -> tuple[list[int], int]:
    """Returns the token ids of an item and how many of them come before the answer; as the product encodes it."""
    start = [IDS[word] for word in f"{USER} {item.prompt} {ASSISTANT}".split()]
    return start + [IDS[word] for word in f"{item.answer} {END}".split()], len(start)


def target_items(world: World, seed: int, *, num_keys: int = 24) -> tuple[list[Item], list[Item]]:
    """Returns the narrow task: facts about new things, whose answers are given in a new form.

    The questions are worded like those about the facts that the base knows, which are answered with the bare value:
    what is learned here conflicts with that unless the model tells the things apart.

    Args:
        world: The world; its spare keys are the new things.
        seed: Of the choice of things, values and phrasings.
        num_keys: How many things.

    Returns:
        What is trained on (each fact in four phrasings), and the questions that test it (each in all five; the one that
        was not trained on is of the skill `unseen`).
    """
    draw = random.Random(f"target {seed}")
    train, test = [], []
    for key in draw.sample(world.spare_keys, num_keys):
        attribute = draw.choice(sorted(VALUES))
        answer = f"{draw.choice(VALUES[attribute])} ! !"
        order = draw.sample(PHRASINGS, len(PHRASINGS))
        asked = [Item("target", phrasing.format(key=key, attribute=attribute), answer) for phrasing in order]
        train += asked[1:]
        test += [replace(asked[0], skill=UNSEEN), *asked[1:]]
    return train, test
