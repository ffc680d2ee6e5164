"""Before any machine runs: list a strategy's programs, and check them."""

from __future__ import annotations

from functools import lru_cache

from .cluster import check_ranks, cluster
from .errors import ProgramError
from .hazards import Hazard, InFlight
from .listing import Listing
from .model import Model
from .problem import Problem
from .program import Instruction
from .rank import Rank
from .spans import COMPUTE
from .stack import Layer, Order, Stack, stack
from .virtual import Machine

AnyStrategy = Order | Layer | Stack


def listing(strategy: AnyStrategy, ranks: int = 4, workload: Model | Problem | None = None, steps: int = 1) -> Listing:
    """What every rank does in a step: a grid with a column per rank.

    A program that uses no results is listed without running it; of others one run on an ideal cluster is shown.
    ``workload`` defaults to a small model with as many blocks as ranks.

    >>> from simulator import DataParallel
    >>> print(listing(DataParallel(), ranks=2, workload=Model.of_times(blocks=1)))
      | rank 0                                  | rank 1
    0 | Load mb0                                | Load mb0
    1 | Forward 0 mb0                           | Forward 0 mb0
    2 | Loss mb0                                | Loss mb0
    3 | Backward 0 mb0                          | Backward 0 mb0
    4 | Start AllReduce Grads(0) over data on data | Start AllReduce Grads(0) over data on data
    5 | Wait                                    | Wait
    6 | Update Params(0)                        | Update Params(0)
    """
    whole, members = _members(strategy, ranks, workload, steps)
    if whole.order.static:
        return Listing(tuple(tuple(str(instruction) for instruction in whole.program(me)) for me in members))
    machine = _checked(whole, members)
    return Listing(tuple(tuple(state.history or ()) for state in machine.states))


def validate(strategy: AnyStrategy, ranks: int, workload: Model | Problem | None = None) -> None:
    """Run one step of every rank's program on an ideal cluster, and check it.

    Finds deadlocks, mismatched collectives, messages that nobody takes, and hazards: values that are touched while
    they are in flight. Raises ValueError when the strategy does not fit the ranks or the model, and ProgramError,
    whose text shows the grid with the bad step marked, when the program is wrong.
    """
    _checked(*_members(strategy, ranks, workload, 1))


def ensure_valid(whole: Stack, ranks: int, model: Model) -> None:
    """Check one step of a program that uses no results; once for each strategy, number of ranks and model."""
    if whole.order.static:
        try:
            _once(whole, ranks, model)
        except TypeError:  # an order with fields that have no hash cannot be remembered
            validate(whole, ranks, model)


@lru_cache(maxsize=256)
def _once(whole: Stack, ranks: int, model: Model) -> None:
    validate(whole, ranks, model)


def _members(
    strategy: AnyStrategy, ranks: int, workload: Model | Problem | None, steps: int
) -> tuple[Stack, list[Rank]]:
    check_ranks(ranks)
    whole = stack(strategy)
    model = workload.model() if isinstance(workload, Problem) else workload
    model = model or Model.of_times(blocks=max(2, ranks), parameters=1000 * max(2, ranks), batch=64 * ranks)
    whole.check(ranks, model)
    return whole, [Rank(whole, rank, ranks, model, steps) for rank in range(ranks)]


def _checked(whole: Stack, members: list[Rank]) -> Machine:
    if whole.order.static:
        _no_hazards([tuple(whole.program(_two_steps(whole, me))) for me in members])
    machine = Machine(whole, members, cluster("ideal", ranks=len(members)), check=True)
    machine.run()
    return machine


def _two_steps(whole: Stack, me: Rank) -> Rank:
    """The same rank at the beginning of two steps: what one leaves in flight, the next may touch."""
    return Rank(whole, me.rank, me.ranks, me.model, 2, me.rule)


def _no_hazards(programs: list[tuple[Instruction, ...]]) -> None:
    """Check what each rank does by itself; ranks that do the same are checked once."""
    for program in dict.fromkeys(programs):
        flight = InFlight()
        for row, instruction in enumerate(program):
            try:
                flight.issue(instruction, COMPUTE)
            except Hazard as hazard:
                marks = tuple((rank, row) for rank, other in enumerate(programs) if other == program)
                columns = tuple(tuple(map(str, other)) for other in programs)
                raise ProgramError(f"{hazard}\n{Listing(columns, marks)}") from None


__all__ = ["ProgramError", "ensure_valid", "listing", "validate"]
