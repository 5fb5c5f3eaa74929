"""What several test files share."""

import os
import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

HERE = str(Path(__file__).parent)
sys.path.insert(0, HERE)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [HERE, os.environ.get("PYTHONPATH", "")]))  # for Beam's workers

# What a user has set for terminals would colour and wrap the output that the tests read.
_TERMINALS = ("FORCE_COLOR", "PYTHON_COLORS", "CLICOLOR_FORCE", "TTY_COMPATIBLE", "COLUMNS", "PYTHONIOENCODING")
for _name in _TERMINALS:
    os.environ.pop(_name, None)

# An example may take as long as a slow or busy machine needs for it, and so may the drawing of examples.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")
