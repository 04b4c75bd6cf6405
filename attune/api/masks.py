"""Values that nobody may see."""

from collections.abc import Mapping

from attune.base.errors import BadInput, Problem
from attune.base.json import Json, JsonObject
from attune.base.schema import secret_names
from attune.catalog.model import Action, Trigger

MASK = "********"


def masked(parameters: Mapping[str, Json], definition: Action | Trigger | None) -> JsonObject:
    """The parameters of an action or a trigger with its secrets masked; all, when it is gone and nothing is known."""
    return dict.fromkeys(parameters, MASK) if definition is None else masked_by(parameters, definition.param_schema)


def masked_by(values: Mapping[str, Json], schema: JsonObject) -> JsonObject:
    """The values with those masked that their schema calls secret. An empty one is shown: that it is not set helps."""
    secret = secret_names(schema)
    return {name: MASK if name in secret and value not in (None, "") else value for name, value in values.items()}


def refuse_masks(parameters: Mapping[str, Json], where: str) -> None:
    """Refuse parameters that somebody copied from an answer, mask and all."""
    problems = [
        Problem(f"{where}/{name}", "is the mask that stands for a secret, not a value; leave it out or write the value")
        for name, value in parameters.items()
        if value == MASK
    ]
    if problems:
        raise BadInput("A secret is masked.", problems)
