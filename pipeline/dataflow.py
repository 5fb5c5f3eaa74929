"""Google Cloud Dataflow: what a run would cost there, before it is launched."""

from dataclasses import dataclass

from filters.errors import UserError
from manifests.display import format_bytes
from manifests.planning.cost import Cost
from manifests.recipe import Recipe
from pipeline.dryrun import dry_run
from pipeline.plan import PlanRequest, plan

# List prices of Dataflow batch jobs in us-central1 in US dollars, quoted from memory: compare them with
# cloud.google.com/dataflow/pricing. Other regions and contracts differ, and so do later years.
CORE_HOUR, GIGABYTE_HOUR, SHUFFLED_GIGABYTE = 0.056, 0.003557, 0.011
GIGABYTES_PER_CORE = 4.0  # of the standard machine types
START_SECONDS = 180.0  # in which a job's workers start and end; assumed


@dataclass(frozen=True)
class Price:
    """A run's price on Dataflow in US dollars, and what it is made of.

    Attributes:
        core_hours: of the tasks, at measured rates.
        idle_core_hours: of workers that start and end.
        shuffled: bytes.
    """

    core_hours: float
    idle_core_hours: float
    shuffled: float

    @property
    def dollars(self) -> float:
        """Return the sum."""
        hours = self.core_hours + self.idle_core_hours
        return hours * (CORE_HOUR + GIGABYTES_PER_CORE * GIGABYTE_HOUR) + self.shuffled / 1e9 * SHUFFLED_GIGABYTE

    def text(self) -> str:
        """Return a sentence for people."""
        return (
            f"about {self.dollars:,.2f} US dollars at list prices: {self.core_hours:,.1f} core-hours of work, "
            f"{self.idle_core_hours:,.1f} of starting workers, {format_bytes(self.shuffled)} shuffled"
        )


def price_of(cost: Cost, jobs: int) -> Price:
    """Return the price of a planned cost that is spent in `jobs` jobs."""
    shuffled = sum(step.shuffled or 0.0 for step in cost.steps)
    return Price(cost.cpu_seconds / 3600, jobs * START_SECONDS * cost.workers / 3600, shuffled)


def check_price(recipe: Recipe, request: PlanRequest, most: float) -> str:
    """Return a sentence about the price of a run.

    Args:
        recipe: with its inputs.
        request: with the records of runs that have the rates.
        most: US dollars.

    Raises:
        UserError: there are no rates to estimate by, or the price is higher.
    """
    cost = plan(recipe, request).cost
    if cost is None:
        raise UserError("--max-cost needs the rates of a run: give --rates with runs/<start>.json of a smaller corpus")
    if cost.uncounted:
        raise UserError(
            f"--max-cost cannot count {', '.join(cost.uncounted)}: the run of --rates must have read these sources too"
        )
    price = price_of(cost, len(dry_run(recipe, 1)))
    if price.dollars > most:
        raise UserError(
            f"the run would cost {price.text()}; that is over --max-cost {most:g}: raise it, or take fewer inputs"
        )
    return price.text()
