"""Scorers grade an answer: each is one small function that is registered under its name and returns a score in [0, 1].

A sample of a task either brings its own `checks`, each a mapping `{"scorer": NAME, option: value, ...}`, or is graded
by the task's scorer against the sample's `answers` or `answer`.

Scorers read what a user would read. Case, Unicode compatibility forms, curly quotes and invisible characters are
levelled where words are compared; nothing else is stripped unless a scorer's docstring says so.
"""

from forgetless.tasks.scorers import layout, phrases, traits, values  # each registers the scorers that it defines
from forgetless.tasks.scorers.base import Answer, Scorer, get_scorer, list_scorers, score_answer, scorer

__all__ = [
    "Answer",
    "Scorer",
    "get_scorer",
    "layout",
    "list_scorers",
    "phrases",
    "score_answer",
    "scorer",
    "traits",
    "values",
]
