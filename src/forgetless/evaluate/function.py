"""Any callable from prompt to text as a model that answers: someone's pipeline, agent or web service."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from forgetless.data.examples import Message
from forgetless.errors import ConfigError, RunError
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
        """Yields (index, answer) in the order of the requests.

        Args:
            requests: The prompts; several turns are flattened into one text.

        Yields:
            The index of a request, and its answer.

        Raises:
            ConfigError: The callable returned something else than a text.
            RunError: The callable raised.
        """
        for index, request in enumerate(requests):
            yield index, Generation(self._answer(request), 0, is_ended=True)

    def _answer(self, request: GenerationRequest) -> str:
        try:
            text: object = self.function(flatten(request.prompt))
        except Exception as error:  # it is the user's: it may raise anything
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise RunError(f"{request.label}: the callable failed ({reason}): mend it, or let it answer ''") from error
        if not isinstance(text, str):
            raise ConfigError(
                f"{request.label}: the callable returned a {type(text).__name__}, not a text: return the answer alone, "
                "'' where there is none"
            )
        return text.encode(errors="replace").decode()  # half a surrogate pair can't be written


def flatten(prompt: tuple[Message, ...] | str) -> str:
    """Returns a prompt as one text: a lone user turn as it is, several turns each under its role."""
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1:
        return prompt[0].content
    return "\n\n".join(f"{turn.role.capitalize()}: {turn.content}" for turn in prompt)
