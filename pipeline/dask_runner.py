"""A Dask runner that closes its client at the end of each job. Beam's own runner leaves one open client per job."""

from typing import Any

from apache_beam.runners.dask import dask_runner
from apache_beam.runners.runner import PipelineResult, PipelineState


class ClosingDaskRunner(dask_runner.DaskRunner):  # type: ignore[misc]
    """Beam's Dask runner with a client that is closed when the job ends."""

    def run_pipeline(self, pipeline: Any, options: Any) -> "DoneResult":
        """Run a job and wait until it ends."""
        result = super().run_pipeline(pipeline, options)
        with result.client:
            result.wait_until_finish()
        return DoneResult(PipelineState.DONE)


class DoneResult(PipelineResult):  # type: ignore[misc]
    """The result of a job that ended without error."""

    def wait_until_finish(self, duration: int | None = None) -> Any:
        """Return the state at once, because the job has ended."""
        return self.state
