"""Before any machine runs: list a strategy's programs, and check them."""

from __future__ import annotations

from . import checks
from .cluster import check_ranks
from .clusters.named import cluster
from .errors import ProgramError
from .folding import Folding, Programs, on_cluster, programs
from .hazards import Hazard, InFlight
from .listing import Listing
from .members import all_ranks
from .model import Model
from .observed import Observed, Question
from .passes import PASSES, PartPass, Pass
from .problem import Problem
from .program import Broadcast, Collective, Instruction, Recv, Send, Until
from .rank import Rank
from .remembering import remembered
from .rewriting import spoken
from .spans import COMPUTE
from .stack import Layer, Order, Stack, stack
from .values import Act, ActGrad, Grads, Params, Value, whole
from .virtual import Machine
from .workload import check_workload, model_of, rule_of

AnyStrategy = Order | Layer | Stack
MOST_SHOWN = 256
"""Of more ranks, errors show those that stand for others."""


def listing(
    strategy: AnyStrategy, ranks: int | None = None, workload: Model | Problem | None = None, steps: int = 1
) -> Listing:
    """What every rank does in a step: a grid with a column per rank.

    A program that uses no results is listed without running it; of others one run on an ideal cluster is shown.
    ``ranks`` defaults to 4, or to 1 where the strategy has no axis; ``workload`` to a small model with as many blocks
    as ranks (times the chunks per rank of a pipeline). Raises ValueError and ProgramError as ``validate`` does, where
    there is nothing to list.

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
    strategy = stack(strategy)
    if ranks is None:
        ranks = 4 if any(part.axis for part in strategy.parts) else 1
    members = _members(strategy, ranks, workload, steps)
    if strategy.order.static:
        return Listing(tuple(tuple(map(str, _said(strategy, me))) for me in members))
    machine = _checked(strategy, members)
    return Listing(tuple(tuple(state.history or ()) for state in machine.states))


def validate(strategy: AnyStrategy, ranks: int, workload: Model | Problem | None = None) -> None:
    """Run one step of every rank's program on an ideal cluster, and check it.

    Finds deadlocks, mismatched collectives, messages that nobody takes, and hazards: values that are touched while
    they are in flight. Raises ValueError when the strategy does not fit the ranks or the model, and ProgramError,
    whose text shows the grid with the bad step marked, when the program is wrong.

    >>> from simulator import Pipeline
    >>> validate(Pipeline("1f1b", microbatches=4), ranks=2)  # says nothing: all is well
    """
    strategy = stack(strategy)
    members = _members(strategy, ranks, workload, 1)
    if strategy.order.static:
        _checked_text(strategy, members)
    else:
        _checked(strategy, members)


def ensure_valid(strategy: Stack, ranks: int, model: Model, run: bool = True) -> Programs | None:
    """Check one step of a program that uses no results; once for each strategy, number of ranks and model.

    Gives what all ranks say, or None where a program must run before it is known what it says. Without ``run`` only
    what can be read is checked: a machine will soon find the rest. So it is with many ranks.
    """
    if not strategy.order.static:
        return None
    return _few(strategy, ranks, model, run) if ranks <= MOST_SHOWN else _many(strategy, ranks, model)


@remembered(256)
def _few(strategy: Stack, ranks: int, model: Model, run: bool) -> Programs:
    return _checked_text(strategy, _members(strategy, ranks, model, 1), run)


@remembered(16)  # what many ranks say takes room
def _many(strategy: Stack, ranks: int, model: Model) -> Programs:
    return _checked_text(strategy, _members(strategy, ranks, model, 1), run=False)


def _members(strategy: Stack, ranks: int, workload: Model | Problem | None, steps: int) -> list[Rank]:
    check_ranks(ranks)
    checks.whole("steps", steps, least=1)
    if workload is not None:
        check_workload(workload)
    model = _sample(strategy, ranks) if workload is None else model_of(workload)
    strategy.check(ranks, model)
    model = model.evenly_routed
    rule = rule_of(strategy, workload)
    return all_ranks(strategy, ranks, model, steps, rule)


def _sample(strategy: Stack, ranks: int) -> Model:
    """A small model that has what a strategy needs: enough blocks, units and, where they are split, experts."""
    blocks = max(2, ranks) * strategy.order.chunks_each
    model = Model.of_times(blocks=blocks, parameters=1000 * blocks, batch=64 * ranks)
    grid = strategy.grid(ranks)
    if not {"tensor", "context", "expert"} & grid.keys():
        return model
    return model.in_parts(units=4 * ranks, experts=ranks if "expert" in grid else 0)


def _checked_text(strategy: Stack, members: list[Rank], run: bool = True) -> Programs:
    """Check what can be read, then what is seen only when it runs; ranks that are alike once."""

    def say(me: Rank) -> tuple[tuple[Instruction, ...], set[Question]]:
        asked = Observed(_two_steps(strategy, me))
        return _said(strategy, asked), asked.questions  # type: ignore[arg-type]

    told = programs(members, say)
    for rank, text in told.texts.items():
        for instruction in {id(one): one for one in text}.values():  # quicker than by what they are
            _check_places(instruction, members[rank])
    _no_hazards(told)
    if not run:
        return told
    try:
        _checked(strategy, members, on_cluster(told, strategy, cluster("ideal", ranks=len(members))))
    except ProgramError:
        if len(members) > MOST_SHOWN:
            raise
        _checked(strategy, members)  # says so of all ranks
    return told


def _checked(strategy: Stack, members: list[Rank], folding: Folding | None = None) -> Machine:
    chosen = members if folding is None else [members[rank] for rank in folding.leaders]
    machine = Machine(strategy, chosen, cluster("ideal", ranks=len(members)), check=True, folding=folding)
    machine.run()
    return machine


def _two_steps(strategy: Stack, me: Rank) -> Rank:
    """The same rank at the beginning of two steps: what one leaves in flight, the next may touch."""
    return Rank(strategy, me.rank, me.ranks, me.whole_model, 2, me.rule)


def _said(strategy: Stack, me: Rank) -> tuple[Instruction, ...]:
    """All that a rank says when nothing gives it results."""
    said: list[Instruction] = []
    try:
        said.extend(spoken(strategy.program(me), me))  # keeps what came before an error
    except (AttributeError, TypeError) as error:
        if "NoneType" not in str(error) or not any(isinstance(one, (Recv, Until)) for one in said):
            raise
        raise ProgramError(
            f"a program that uses what its instructions give, such as the message of a Recv, cannot be listed before it"
            f" runs: set static = False in {type(strategy.order).__name__} (rank {me.rank}, after {said[-1]}: {error})"
        ) from error
    return tuple(said)


def _check_places(instruction: Instruction, me: Rank) -> None:
    """Refuse blocks that the model does not have, axes that are none, and roots that are not along theirs."""
    inner = (*getattr(instruction, "what", ()), *((instruction.recv,) if isinstance(instruction, Until) else ()))
    for one in inner:
        _check_places(one, me)
    blocks = len(me.model.blocks)
    if _last_block(instruction) >= blocks:
        raise ValueError(
            f"the model has {blocks} block(s), numbered from 0; got {instruction} on rank {me.rank}: see me.blocks"
        )
    if isinstance(instruction, (Collective, Send, Recv)):
        name, position = _position(instruction)
        if position >= me.size(instruction.over):  # which refuses what is no axis
            raise ValueError(
                f"{name} is a position along its axis: {instruction.over!r} has positions 0 to"
                f" {me.size(instruction.over) - 1}; got {name}={position} in {instruction} on rank {me.rank}"
            )


def _position(instruction: Collective | Send | Recv) -> tuple[str, int]:
    """The position along its axis that an instruction names, and what it is called there."""
    if isinstance(instruction, Send):
        return "to", instruction.to
    if isinstance(instruction, Recv):
        return "source", instruction.source
    return "root", instruction.root if isinstance(instruction, Broadcast) else 0


def _last_block(instruction: Instruction) -> int:
    """The last block of which an instruction touches something; -1 if none."""
    if type(instruction) in PASSES and isinstance(instruction, (Pass, PartPass)):
        return instruction.block  # most are passes, whose values take longer to name
    return max(map(_block_of, map(whole, (*instruction.reads, *instruction.writes))), default=-1)


def _block_of(value: Value) -> int:
    """The last block that a value belongs to; -1 if none."""
    if isinstance(value, (Params, Grads)):
        return max(value.blocks, default=-1)
    if not isinstance(value, (Act, ActGrad)):
        return -1
    checks.whole("microbatch", value.microbatch, of=type(value).__name__)
    return checks.whole("block", value.block, of=type(value).__name__) - 1  # what leaves the last block is Act(blocks)


def _no_hazards(told: Programs) -> None:
    """Check what each rank does by itself."""
    for leader, text in told.texts.items():
        flight = InFlight()
        for row, instruction in enumerate(text):
            try:
                flight.issue(instruction, COMPUTE)
            except Hazard as hazard:
                everybody = [told.texts[one] for one in told.of[:MOST_SHOWN]]
                marks = tuple((rank, row) for rank, other in enumerate(everybody) if other == text)
                columns = tuple(tuple(map(str, other)) for other in everybody)
                shown = marks or ((leader, row),)
                raise ProgramError(f"{hazard}\n{Listing(columns, shown)}") from None
