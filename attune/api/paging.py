"""Which page of a list a caller wants, and which rows."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from attune.database.paging import Window

DEFAULT_SIZE = 50
MAX_SIZE = 1000
LARGEST_ID = 2**63 - 1

Size = Annotated[int, Field(ge=1, le=MAX_SIZE)]
Id = Annotated[int, Field(ge=1, le=LARGEST_ID)]

MOST_IDS = 100
Ids = Annotated[str, Field(pattern=rf"^[1-9][0-9]{{0,17}}(,[1-9][0-9]{{0,17}}){{0,{MOST_IDS - 1}}}$")]
"""Ids, joined by commas."""


def ids_of(text: str) -> list[int]:
    """The ids in a text that names some."""
    return [int(part) for part in text.split(",") if part]


def id_of(text: str) -> int | None:
    """The id that `text` is; None when no row can have it."""
    # By length first: Python refuses to read numbers of thousands of digits.
    is_number = text.isascii() and text.isdecimal() and len(text) <= len(str(LARGEST_ID))
    return int(text) if is_number and int(text) <= LARGEST_ID else None


class Query(BaseModel):
    """Query parameters; unknown ones are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PageQuery(Query):
    """`page` with `per_page` or `page_size`, which mean the same; or `after`, the `next_after` of the page before."""

    page: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    per_page: Size | None = None
    page_size: Size | None = None
    after: str | None = None
    total: Literal["exact"] | None = None

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.per_page is not None and self.page_size is not None and self.per_page != self.page_size:
            raise ValueError("per_page and page_size mean the same and differ here; send one of them")
        if self.after is not None and self.page != 1:
            raise ValueError("after goes on from a row and page from the start; send one of them")
        return self

    @property
    def size(self) -> int:
        return self.per_page or self.page_size or DEFAULT_SIZE

    def window(self) -> Window:
        """The rows of this page, in a list whose cursor is a ref."""
        return Window(self.size, (self.page - 1) * self.size, self.after, self.total == "exact")


class IdPageQuery(PageQuery):
    """A page of a list whose cursor is an id."""

    @model_validator(mode="after")
    def _after_is_id(self) -> Self:
        if self.after is not None and id_of(self.after) is None:
            raise ValueError("after must be the next_after of a page before: a number")
        return self

    def window(self) -> Window:
        after = None if self.after is None else id_of(self.after)
        return Window(self.size, (self.page - 1) * self.size, after, self.total == "exact")
