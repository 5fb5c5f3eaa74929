"""Estimate the price of a run on Google Cloud Dataflow before it starts."""

from dataclasses import dataclass

from filters.errors import UserError
from manifests.display import format_bytes
from manifests.planning.cost import Cost
from manifests.recipe import Recipe
from pipeline.dryrun import dry_run
from pipeline.plan import PlanRequest, plan

# List prices of Dataflow batch jobs in us-central1 in US dollars. They are quoted from memory, so compare them with
# cloud.google.com/dataflow/pricing. Prices of other regions, contracts and years differ.
CORE_HOUR, GIGABYTE_HOUR, SHUFFLED_GIGABYTE = 0.056, 0.003557, 0.011
GIGABYTES_PER_CORE = 4.0  # Memory of the standard machine types.
START_SECONDS = 180.0  # Time in which the workers of a job start and stop. This is an assumption.


@dataclass(frozen=True)
class Price:
    """The quantities from which the price of a run on Dataflow is computed.

    Attributes:
        core_hours: Core-hours of the tasks, at measured rates.
        idle_core_hours: Core-hours in which workers start and stop.
        shuffled: Bytes that are shuffled.
    """

    core_hours: float
    idle_core_hours: float
    shuffled: float

    @property
    def dollars(self) -> float:
        """The price in US dollars."""
        hours = self.core_hours + self.idle_core_hours
        return hours * (CORE_HOUR + GIGABYTES_PER_CORE * GIGABYTE_HOUR) + self.shuffled / 1e9 * SHUFFLED_GIGABYTE

    def text(self) -> str:
        """Return the price and the quantities as text."""
        return (
            f"about {self.dollars:,.2f} US dollars at list prices: {self.core_hours:,.1f} core-hours of work, "
            f"{self.idle_core_hours:,.1f} of starting workers, {format_bytes(self.shuffled)} shuffled"
        )


def price_of(cost: Cost, jobs: int) -> Price:
    """Return the price of a run with the estimated cost and `jobs` Beam jobs."""
    shuffled = sum(step.shuffled or 0.0 for step in cost.steps)
    return Price(cost.cpu_seconds / 3600, jobs * START_SECONDS * cost.workers / 3600, shuffled)


def check_price(recipe: Recipe, request: PlanRequest, most: float) -> str:
    """Estimate the price of a run, and return it as text.

    Args:
        recipe: Recipe with its inputs.
        request: Request whose `rates` name the records of earlier runs.
        most: Maximum price in US dollars.

    Raises:
        UserError: There are no processing rates, or the price exceeds `most`.
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
