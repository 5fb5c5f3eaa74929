"""Beam's Dask runner, but each job's client is closed when the job has ended; Beam's own leaves one open per job."""

from typing import Any

from apache_beam.runners.dask import dask_runner
from apache_beam.runners.runner import PipelineResult, PipelineState


class ClosingDaskRunner(dask_runner.DaskRunner):  # type: ignore[misc]
    """Run a job on a Dask cluster."""

    def run_pipeline(self, pipeline: Any, options: Any) -> "DoneResult":
        """Run a job to its end."""
        result = super().run_pipeline(pipeline, options)
        with result.client:
            result.wait_until_finish()
        return DoneResult(PipelineState.DONE)


class DoneResult(PipelineResult):  # type: ignore[misc]
    """The result of a job that has ended well."""

    def wait_until_finish(self, duration: int | None = None) -> Any:
        """Return the state."""
        return self.state
