"""Runs a script as Python would, with `from attune import action` in reach: `python attune/sdk SCRIPT [name=value]`."""

import os
import sys

# This folder, and no more of Attune, whatever Python this is.
_SDK = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - pathlib takes as long as all of this


def main() -> None:
    """Run the script that the first argument names."""
    sys.argv.pop(0)
    sys.path[:1] = [os.path.dirname(os.path.abspath(sys.argv[0])), _SDK]  # noqa: PTH100, PTH120 - as above
    from attune import run_file  # type: ignore[attr-defined]  # the module beside this one

    run_file(sys.argv[0])


main()
