"""Keep what Beam looks up over and over again for a job: a third of the time of the many small jobs of the tests.

Beam parses a job's options anew for each of a hundred views of them, and inspects the methods of a DoFn at each use.
"""

from typing import Any
from weakref import WeakKeyDictionary

from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms import userstate

_views: WeakKeyDictionary[PipelineOptions, dict[type, Any]] = WeakKeyDictionary()
_specs: dict[type, Any] = {}
_view_as, _get_dofn_specs = PipelineOptions.view_as, userstate.get_dofn_specs


def _view_once(self: PipelineOptions, cls: type) -> Any:
    """Return the same view each time; all views of options share their values."""
    views = _views.setdefault(self, {})
    if cls not in views:
        views[cls] = _view_as(self, cls)
    return views[cls]


def _specs_once(dofn: Any) -> Any:
    """Return the state and timers of a class of functions."""
    if type(dofn) not in _specs:
        _specs[type(dofn)] = _get_dofn_specs(dofn)
    return _specs[type(dofn)]


PipelineOptions.view_as = _view_once
userstate.get_dofn_specs = _specs_once
