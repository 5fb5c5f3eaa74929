"""Find the earliest arrival through a timetable by scanning its connections once, in order of departure."""

from __future__ import annotations

import bisect
import csv
from dataclasses import dataclass, field
from pathlib import Path

NEVER = 1 << 30


@dataclass(frozen=True, order=True)
class Connection:
    """A van that leaves one stop and reaches the next; times are minutes after midnight."""

    departure: int
    arrival: int
    origin: str
    destination: str
    van: str

    def __post_init__(self) -> None:
        if self.arrival < self.departure:
            raise ValueError(f"{self.van} reaches {self.destination} before it leaves {self.origin}")


@dataclass
class Timetable:
    """Connections in order of departure, and how long it takes to change vans at a stop."""

    connections: list[Connection] = field(default_factory=list)
    transfer: dict[str, int] = field(default_factory=dict)
    default_transfer: int = 5

    def add(self, connection: Connection) -> None:
        """Insert a connection at its place."""
        bisect.insort(self.connections, connection)

    def earliest(self, origin: str, destination: str, start: int) -> list[Connection]:
        """Return the connections of the journey that arrives first, or an empty list if there is none.

        A passenger who stays in a van needs no time to change. So a van that was reached once can be left anywhere.
        """
        arrival: dict[str, int] = {origin: start}
        boarded: set[str] = set()
        came_by: dict[str, Connection] = {}
        first = bisect.bisect_left(self.connections, start, key=lambda connection: connection.departure)
        for connection in self.connections[first:]:
            if connection.departure > arrival.get(destination, NEVER):
                break
            if connection.van not in boarded and not self.reachable(connection, arrival, origin):
                continue
            boarded.add(connection.van)
            if connection.arrival < arrival.get(connection.destination, NEVER):
                arrival[connection.destination] = connection.arrival
                came_by[connection.destination] = connection
        return self.backwards(came_by, origin, destination)

    def reachable(self, connection: Connection, arrival: dict[str, int], origin: str) -> bool:
        """Say whether a passenger can be at the stop, with the time to change, before the van leaves."""
        here = arrival.get(connection.origin, NEVER)
        if connection.origin != origin:
            here += self.transfer.get(connection.origin, self.default_transfer)
        return here <= connection.departure

    @staticmethod
    def backwards(came_by: dict[str, Connection], origin: str, destination: str) -> list[Connection]:
        """Follow the journey from its end to its beginning."""
        journey: list[Connection] = []
        stop = destination
        while stop != origin:
            if stop not in came_by:
                return []
            journey.append(came_by[stop])
            stop = came_by[stop].origin
        return journey[::-1]


def minutes(text: str) -> int:
    """Return "14:05" as 845. Hours past midnight may be written as 24 and more, as timetables do."""
    hours, _, rest = text.partition(":")
    return int(hours) * 60 + int(rest)


def clock(value: int) -> str:
    """Return 845 as "14:05"."""
    return f"{value // 60:02}:{value % 60:02}"


def load(path: Path) -> Timetable:
    """Read a CSV file with the columns van, stop, arrival and departure, the stops of a van in their order."""
    table = Timetable()
    before: dict[str, str] | None = None
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if before is not None and before["van"] == row["van"]:
                leaves, reaches = minutes(before["departure"]), minutes(row["arrival"])
                table.add(Connection(leaves, reaches, before["stop"], row["stop"], row["van"]))
            before = row
    return table


def told(journey: list[Connection]) -> str:
    """Return the journey as sentences, one for each van."""
    lines: list[str] = []
    for connection in journey:
        if lines and lines[-1].startswith(f"van {connection.van} "):
            start = lines[-1].partition(", at")[0]
            lines[-1] = f"{start}, at {connection.destination} {clock(connection.arrival)}"
        else:
            there = f"at {connection.destination} {clock(connection.arrival)}"
            lines.append(f"van {connection.van} from {connection.origin} {clock(connection.departure)}, {there}")
    return "\n".join(lines) or "no journey today"
