"""Any callable from prompt to text as a model that answers: someone's pipeline, agent or web service."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from forgetless.data.examples import Message
from forgetless.evaluate.requests import Generation, GenerationRequest


class FunctionModel:
    """A callable behind the call that evaluation makes; its scores are never kept, for nobody knows what it does.

    Args:
        function: Takes a prompt, returns the answer.
    """

    def __init__(self, function: Callable[[str], str]) -> None:
        self.origin = "function"
        self.batch_size = 1
        self.function = function

    def key(self) -> None:
        """Returns nothing that scores could be kept by."""

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[tuple[int, Generation]]:
        """Yields (index, answer) in the order of the requests."""
        for index, request in enumerate(requests):
            text = self.function(flatten(request.prompt))
            yield index, Generation(str(text), 0, is_ended=True)


def flatten(prompt: tuple[Message, ...] | str) -> str:
    """Returns a prompt as one text: a lone user turn as it is, several turns each under its role."""
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1:
        return prompt[0].content
    return "\n\n".join(f"{turn.role.capitalize()}: {turn.content}" for turn in prompt)
