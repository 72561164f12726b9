"""One pod, one process: runs the cases of single_*.py."""

import single_data  # noqa: F401
import single_programs  # noqa: F401
import single_red  # noqa: F401
import single_surroundings  # noqa: F401
from corpus import run_all
from one_pod import CASES

if __name__ == "__main__":
    run_all(CASES, 3)
