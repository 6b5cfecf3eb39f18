"""All cases, each with a name of its own."""

from tests.corpus.bad_configs import BAD_CONFIGS
from tests.corpus.bad_folders import BAD_FOLDERS
from tests.corpus.bad_weights import BAD_WEIGHTS
from tests.corpus.good import GOOD

BAD = (*BAD_FOLDERS, *BAD_CONFIGS, *BAD_WEIGHTS)
CASES = (*GOOD, *BAD)

assert len({case.name for case in CASES}) == len(CASES)
