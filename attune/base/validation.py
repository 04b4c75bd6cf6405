"""What pydantic found wrong, in words for people."""

from difflib import get_close_matches

from pydantic import BaseModel, ValidationError

from attune.base.errors import Problem
from attune.base.json import pointer


def problems_of(error: ValidationError, model: type[BaseModel], where: str = "") -> list[Problem]:
    """Each fault with its JSON Pointer below `where`; unknown keys with what was probably meant."""
    return [
        Problem(where + pointer(tuple(item["loc"])), _explain(item["type"], item["msg"], item["loc"], model))
        for item in error.errors(include_url=False, include_context=False, include_input=False)
    ]


def _explain(kind: str, message: str, place: tuple[str | int, ...], model: type[BaseModel]) -> str:
    if kind == "extra_forbidden":
        known = [*model.model_fields, *getattr(model, "short", ())] if len(place) == 1 else []
        close = get_close_matches(str(place[-1]), known, n=1)
        if close:
            return f"is unknown; did you mean {close[0]!r}?"
        return f"is unknown; known are {', '.join(known)}" if known else "is unknown"
    if kind == "missing":
        return "is required"
    text = message.removeprefix("Value error, ").removeprefix("Input ")
    return text[:1].lower() + text[1:]
