"""Beam's Dask runner, but each job's client is closed when the job has ended; Beam's own leaves one open per job."""

from typing import Any

from apache_beam.runners.dask import dask_runner


class ClosingDaskRunner(dask_runner.DaskRunner):  # type: ignore[misc]
    """Run a job on a Dask cluster."""

    def run_pipeline(self, pipeline: Any, options: Any) -> Any:
        """Run a job to its end and return its result, which has nothing left to wait for."""
        result = super().run_pipeline(pipeline, options)
        try:
            result.wait_until_finish()
        finally:
            result.futures = []
            result.client.close()
        return result
