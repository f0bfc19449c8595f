"""The ``trace`` of a failed task: a sentence, and below it the traceback of an unexpected error."""

from __future__ import annotations

import traceback

_LONGEST = 16_384  # characters
_TRACEBACK = "\nTraceback (most recent call last):"


def describe_error(sentence: str, unexpected: BaseException | None) -> str:
    """Return the sentence, followed by the traceback of an unexpected error; a long one loses its middle."""
    if unexpected is None or unexpected.__traceback__ is None:
        return sentence
    text = "".join(traceback.format_exception(unexpected)).rstrip()
    if len(text) > _LONGEST:
        half = _LONGEST // 2
        text = f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"
    return f"{' '.join(sentence.split())}\n{text}"


def split_trace(trace: str) -> tuple[str, str]:
    """Return the sentence and the traceback, which is empty if the error was not unexpected."""
    sentence, title, rest = trace.partition(_TRACEBACK)
    return sentence, f"{title}{rest}".lstrip("\n")
