"""A parameter server over PyTorch's RPC (TensorPipe): workers call the servers, which answer with parameters."""

from __future__ import annotations

import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import rpc
from torch.futures import Future
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from simulator.holdings import Piece
from simulator.values import bounds

from ..groups import waiting_time
from .training import Training


def parameter_server(training: Training, servers: int = 1, mode: str = "async") -> list[Piece]:
    """The first ranks are servers and keep a chunk of the parameters each, the others compute gradients.

    "sync": a server waits for the gradients of all workers, averages them and answers all (Li et al. 2014). "async": it
    applies each gradient as it comes and answers at once (Dean et al. 2012).
    """
    flat = parameters_to_vector(training.chain().parameters()).detach().cpu()  # RPC sends the host's memory
    rank, workers = training.place.rank, training.place.ranks - servers
    mine = slice(*bounds(flat.numel(), rank, servers))
    server = Server(training, flat[mine].clone(), workers, mode == "sync") if rank < servers else None
    with _here(server), _connected(rank, training.place.ranks), training.log.recording():
        if server is None:
            _work(training, servers, flat)
    if server is None:
        return []
    return [(bounds(flat.numel(), rank, servers)[0], server.params.detach().numpy().copy())]


def _work(training: Training, servers: int, flat: torch.Tensor) -> None:
    """A worker: compute a gradient, send each server its chunk, take its parameters."""
    log, model = training.log, training.chain()
    parameters = list(model.parameters())
    version, timeout = [0] * servers, waiting_time().total_seconds()
    for _ in log.steps():
        with log.phase("Load mb0"):
            inputs, targets = training.batch()
        with log.phase("Forward all"):
            output = model(inputs)
        with log.phase("Loss mb0"):
            loss = training.loss(output, targets)
        log.loss(loss.item())
        with log.phase("Backward all"):
            model.zero_grad(set_to_none=False)
            (loss * training.weight).backward()
        gradient = torch.cat([_gradient(parameter).reshape(-1) for parameter in parameters]).cpu()
        start, calls = log.clock.now(), []
        for server in range(servers):
            chunk = gradient[slice(*bounds(flat.numel(), server, servers))].clone()
            arguments = (training.worker, chunk, version[server], training.place.rank)
            calls.append((chunk.nbytes, rpc.rpc_async(f"rank{server}", _push, args=arguments, timeout=timeout)))
        for server, (nbytes, call) in enumerate(calls):
            part, version[server] = call.wait()
            log.sent(f"to {server}", "Send gradients", start, nbytes)
            flat[slice(*bounds(flat.numel(), server, servers))] = part
        log.version = version[0]
        vector_to_parameters(flat.to(training.place.device, copy=True), parameters)


def _gradient(parameter: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


class Server:
    """A chunk of the parameters, and what is done with the gradients that arrive."""

    def __init__(self, training: Training, params: torch.Tensor, workers: int, together: bool):
        self.log, self.rule, self.workers, self.together = training.log, training.rule, workers, together
        learn: list[torch.Tensor] = [torch.nn.Parameter(params)]
        self.params, self.optimizer = learn[0], training.rule.optimizer(learn)
        self.version = 0
        self.waiting: dict[int, tuple[torch.Tensor, int, Future[Any]]] = {}
        self.lock = Lock()

    def take(self, worker: int, gradient: torch.Tensor, version: int, rank: int) -> Future[Any]:
        """A gradient from a worker; the future gives parameters and version."""
        answer: Future[Any] = Future()
        with self.lock:
            if not self.together:
                self._update(gradient, self.version - version)
                self._answer(answer, rank)
            else:
                self.waiting[worker] = gradient, rank, answer
                if len(self.waiting) == self.workers:
                    self._together()
        return answer

    def _together(self) -> None:
        arrived = [self.waiting[worker] for worker in sorted(self.waiting)]
        self.waiting.clear()
        shares = [gradient / self.workers for gradient, _, _ in arrived]
        self._update(sum(shares[1:], shares[0]), 0, len(arrived))
        for _, rank, answer in arrived:
            self._answer(answer, rank)

    def _update(self, gradient: torch.Tensor, staleness: int, gradients: int = 1) -> None:
        self.log.step = self.version if self.together else self.version // self.workers
        for _ in range(gradients):
            self.log.sample("staleness", staleness)
        with self.log.phase("Update all"):
            self.params.grad = gradient
            self.rule.step(self.optimizer, staleness=staleness)
        self.version += 1

    def _answer(self, answer: Future[Any], rank: int) -> None:
        start = self.log.clock.now()
        part = self.params.detach().clone()
        answer.set_result((part, self.version))
        self.log.sent(f"to {rank}", "Send parameters", start, part.nbytes)


_servers: dict[str, Server] = {}
"""Where a call finds the server of this process: calls carry names and tensors only."""


@contextmanager
def _here(server: Server | None) -> Iterator[None]:
    """Calls find the server for as long as it is needed: warm ranks would keep its parameters."""
    if server is not None:
        _servers["here"] = server
    try:
        yield
    finally:
        _servers.clear()


@rpc.functions.async_execution
def _push(worker: int, gradient: torch.Tensor, version: int, rank: int) -> Future[Any]:
    return _servers["here"].take(worker, gradient, version, rank)


# ---------------------------------------------------------------- connecting


@contextmanager
def _connected(rank: int, ranks: int) -> Iterator[None]:
    """RPC between all ranks. At the end every rank waits for the others."""
    if "GLOO_SOCKET_IFNAME" in os.environ:  # the network that gloo was told to take; else TensorPipe finds one too
        os.environ.setdefault("TP_SOCKET_IFNAME", os.environ["GLOO_SOCKET_IFNAME"])
    host = os.environ.get("MASTER_ADDR", "127.0.0.1")
    port: list[Any] = [_free_port(host) if rank == 0 else None]
    dist.broadcast_object_list(port, 0)
    options = rpc.TensorPipeRpcBackendOptions(num_worker_threads=8, init_method=f"tcp://{host}:{port[0]}")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "You are using a Backend", UserWarning)  # RPC itself does
        rpc.init_rpc(f"rank{rank}", rank=rank, world_size=ranks, rpc_backend_options=options)
    try:
        yield
    except BaseException:
        rpc.shutdown(graceful=False)
        raise
    rpc.shutdown()


def _free_port(host: str) -> int:
    with socket.create_server((host, 0)) as free:
        port: int = free.getsockname()[1]
    return port
