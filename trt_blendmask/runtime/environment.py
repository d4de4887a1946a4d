"""Texts that hold a password, kept out of the process list."""

from __future__ import annotations

import os

from trt_blendmask.errors import InputMissingError


def looked_up(text: str, what: str) -> str:
    """`text`, or where it is `env:NAME`, what that environment variable holds; `what` it is, for the error.

    Raises:
        InputMissingError: there is no such variable, or it is empty.
    """
    if not text.startswith("env:"):
        return text
    name = text[4:]
    if not (held := os.environ.get(name, "")):
        raise InputMissingError(
            f"Expected {what} in the environment variable {name}, but it is not set: export {name}=..."
        )
    return held
