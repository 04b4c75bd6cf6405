"""Regular expressions in RE2 syntax, which never back-track."""

from functools import lru_cache
from typing import Final

import re2

from attune.base.expressions.run import Run
from attune.base.expressions.values import OperationError

MAX_PATTERN: Final = 1000
# Bounds the compiled program, and with it the time to compile it and to search with it.
_MEMORY: Final = 1 << 19
_MAX_CLASSES: Final = 10
_COMPILING: Final = 100_000


@lru_cache(maxsize=512)
def compiled(pattern: str) -> "re2._Regexp":
    """`pattern`, ready to search. Raises OperationError when it is not RE2 syntax, or is too large."""
    if len(pattern) > MAX_PATTERN:
        raise OperationError(f"a pattern has at most {MAX_PATTERN:,} characters, this one {len(pattern):,}")
    if pattern.count("\\p") + pattern.count("\\P") > _MAX_CLASSES:
        raise OperationError(f"a pattern has at most {_MAX_CLASSES} Unicode classes")
    options = re2.Options()
    options.log_errors = False
    options.never_capture = True
    options.max_mem = _MEMORY
    try:
        return re2.compile(pattern, options)
    except UnicodeEncodeError as error:
        raise OperationError("the pattern holds half of a surrogate pair") from error
    except re2.error as error:
        # Behind the colon RE2 quotes the pattern, which may come from data.
        reason = error.args[0].decode(errors="replace").partition(":")[0]
        raise OperationError(f"the pattern is not RE2 syntax ({reason})") from error


def match(run: Run, pattern: str, value: str) -> bool:
    """Whether `pattern` is found anywhere in `value`; `^` and `$` tie it to the ends."""
    if pattern not in run.patterns:
        run.spend(_COMPILING)
    regexp = compiled(pattern)
    # The slow way of RE2 takes about 12 ns for each instruction and byte; which way it goes cannot be foreseen.
    run.spend(len(value) * (1 if value.isascii() else 3) * regexp.programsize >> 2)
    try:
        return regexp.search(value) is not None
    except UnicodeEncodeError as error:
        raise OperationError("the text holds half of a surrogate pair") from error
