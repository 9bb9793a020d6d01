"""Scorers of what an answer comes to: a number, or a JSON value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Annotated

from pydantic import Field

from forgetless.errors import ConfigError, did_you_mean
from forgetless.tasks.scorers.base import as_texts, scorer
from forgetless.tasks.values import JSON_TYPES, equals_json, find_json, find_numbers, has_json_type, parse_json


@scorer("numeric", gold="value")
def numeric(
    answer: str, *, value: object, tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
) -> float:
    """Passes when the LAST number of the answer is `value`, or one of several values.

    "1,234.5", "-3", "3/4", "$42." and "42%" (42) are read; where there are no digits, words are ("forty-two").

    Args:
        answer: What the model said.
        value: A number, as a number or as text ("3/4"), or a list of them.
        tolerance: Largest absolute difference that passes.

    Returns:
        1 where it passes, else 0.

    Raises:
        ConfigError: `value` is no number.
    """
    try:
        accepted = [Fraction(text.replace(",", "")) for text in as_texts(value, "value")]
    except (ValueError, ZeroDivisionError):
        raise ConfigError(f"scorer 'numeric' needs a number as `value`, got {value!r}") from None
    numbers = find_numbers(answer)
    return float(any(abs(numbers[-1] - number) <= Fraction(str(tolerance)) for number in accepted if numbers))


@scorer("json")
def json_value(
    answer: str,
    *,
    keys: Sequence[str] = (),
    types: Mapping[str, str] | None = None,
    values: Mapping[str, object] | None = None,
    only: bool = False,
    length: int | None = None,
    anywhere: bool = False,
) -> float:
    """Passes when the answer is a JSON object or array, bare or in one code fence, with nothing around it.

    Args:
        answer: What the model said.
        keys: Keys that the object must have.
        types: JSON type of the value of each key: string, number, integer, boolean, array, object or null.
        values: Value of each key, compared as JSON (3 is not "3").
        only: Refuse keys that are named in none of `keys`, `types` and `values`.
        length: Number of elements; the value must be an array then.
        anywhere: Accept text around the value; the first object or array in the answer counts.

    Returns:
        1 where it passes, else 0.

    Raises:
        ConfigError: `types` names a type that JSON does not have.
    """
    wanted = dict(types or {})
    for name in wanted.values():
        if name not in JSON_TYPES:
            raise ConfigError(f"unknown JSON type {name!r}{did_you_mean(name, JSON_TYPES)}")
    value = find_json(answer) if anywhere else parse_json(answer)
    if length is not None:
        return float(isinstance(value, list) and len(value) == length)
    known = {*keys, *wanted, *(values or {})}
    if not known:
        return float(isinstance(value, dict | list))
    if not isinstance(value, dict) or not known <= value.keys() or (only and value.keys() != known):
        return 0.0
    is_typed = all(has_json_type(value[key], name) for key, name in wanted.items())
    return float(is_typed and all(equals_json(value[key], expected) for key, expected in (values or {}).items()))
