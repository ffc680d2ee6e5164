"""What works on this machine, and how to mend what does not: ``twoclocks doctor``.

Nothing heavy is imported before its own check, so that the doctor also runs where things are missing.
"""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata, packages_distributions, requires, version

PACKAGE = "two-clocks"
INSTALL = "in the repository: make .venv/.installed, or pip install -e ."


@dataclass(frozen=True)
class Check:
    """One thing looked at. ``needed`` tells a fault from a remark; ``remedy`` is empty where there is none."""

    name: str
    ok: bool
    found: str
    remedy: str = ""
    needed: bool = True

    def __str__(self) -> str:
        state = "ok" if self.ok else "BROKEN" if self.needed else "note"
        line = f"{state:<7} {self.name:<22} {self.found}"
        return line if self.ok or not self.remedy else f"{line}\n{'':<7} {'':<22} -> {self.remedy}"


def doctor() -> bool:
    """Print a report line by line and say whether everything that is needed works.

    >>> doctor()  # doctest: +SKIP
    ok      Python                 3.11.7 on Linux x86_64
    ...
    True
    """
    needed = []
    for check in examine():
        print(check, flush=True)
        needed += [check.ok] if check.needed else []
    broken = needed.count(False)
    print(f"\n{broken} of {len(needed)} needed things are broken." if broken else "\nEverything that is needed works.")
    return not broken


def checks() -> list[Check]:
    """Look at everything; takes a few seconds, for it starts two real ranks."""
    return list(examine())


def examine() -> Iterator[Check]:
    """The checks one by one, what is quick and basic first."""
    yield guarded(idle, needed=False)  # first: the other checks are load themselves
    yield guarded(memory, needed=False)
    yield guarded(python)
    yield from dependencies()
    for check in (notebook_kernel, torch_distributed, loopback, two_real_ranks):
        yield guarded(check)
    for remark in (cuda, network_namespaces):
        yield guarded(remark, needed=False)


def guarded(check: Callable[[], Check], needed: bool = True) -> Check:
    """A check that raises is a finding, not the end of the report."""
    try:
        return check()
    except Exception as error:
        name = check.__name__.replace("_", " ")
        found = " ".join(f"{type(error).__name__}: {error}".split())
        return Check(name, False, found, "mend what stands above; look again", needed)


# ---------------------------------------------------------------- the machine


def idle() -> Check:
    """How many cores, and whether something else is using them; measured times mean little on a busy machine."""
    from .machine import busy_cores, cores, is_idle

    busy = busy_cores()
    return Check(
        "machine",
        is_idle(busy),
        f"{cores()} cores, {busy:.1f} of them busy",
        "the machine is not idle: real runs work, but their times will be longer than predicted",
        needed=False,
    )


def memory() -> Check:
    """Each rank takes some 300 MB, most of it PyTorch itself."""
    size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    remedy = "below 2 GiB even two ranks may not fit: close other programs"
    return Check("memory", size >= 2, f"{size:.1f} GiB", remedy, needed=False)


def cuda() -> Check:
    """GPUs that real ranks may use."""
    import torch
    import torch.distributed as dist

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    backend = "nccl" if dist.is_nccl_available() else "no nccl"
    found = f"{count} x {torch.cuda.get_device_name(0)}, {backend}" if count else "no GPU that PyTorch can use"
    return Check("cuda", count > 0, found, "nothing to mend: real ranks run on the CPU", needed=False)


def network_namespaces() -> Check:
    """They let a test shape a real slow network (Linux, mostly as root)."""
    tool = shutil.which("unshare")
    tried = subprocess.run([tool, "--net", "true"], capture_output=True, timeout=10) if tool else None
    allowed = tried is not None and tried.returncode == 0
    found = "allowed" if allowed else "not allowed here" if tool else "not on this system"
    remedy = "nothing to mend: only experiments with a slowed network need them"
    return Check("network namespaces", allowed, found, remedy, needed=False)


# ---------------------------------------------------------------- the packages


def python() -> Check:
    """The version that the package asks for."""
    found = platform.python_version()
    try:
        wanted = metadata(PACKAGE)["Requires-Python"]
    except PackageNotFoundError:
        return Check("Python", False, f"{found}, but {PACKAGE} is not installed in {sys.prefix}", INSTALL)
    system = f"{platform.system()} {platform.machine()}"
    return Check("Python", within(found, wanted), f"{found} on {system} (wanted {wanted})", "install a newer Python")


def within(found: str, wanted: str) -> bool:
    """Whether a version is in a range: ``within("2.13.0+cpu", ">=2.6,<3")``."""
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(wanted).contains(found, prereleases=True)


def dependencies() -> Iterator[Check]:
    """One check for each dependency that the installed package names (not those of its extras)."""
    try:
        from packaging.requirements import Requirement
        from packaging.utils import canonicalize_name

        listed = [Requirement(text) for text in requires(PACKAGE) or []]
    except (ImportError, PackageNotFoundError) as error:
        yield Check("dependencies", False, f"cannot be listed: {error}", INSTALL)
        return
    modules = import_names()
    for wanted in listed:
        if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
            limits = ",".join(sorted(map(str, wanted.specifier), reverse=True))  # ">=4.1,<5" rather than "<5,>=4.1"
            yield dependency(wanted.name, limits, modules.get(canonicalize_name(wanted.name), wanted.name))


def dependency(name: str, wanted: str, module: str) -> Check:
    """Import one dependency and compare its version with the range."""
    try:
        found = version(name)
        importlib.import_module(module)
    except PackageNotFoundError:
        return Check(name, False, "not installed", INSTALL)
    except Exception as error:  # a broken binary package can raise anything
        return Check(name, False, f"cannot be imported: {error}", f"pip install --force-reinstall {name}")
    return Check(name, within(found, wanted), f"{found} (wanted {wanted})", f'pip install "{name}{wanted}"')


def import_names() -> dict[str, str]:
    """Distribution -> the module to import: ``{"scikit-learn": "sklearn", ...}``."""
    from packaging.utils import canonicalize_name

    names: dict[str, str] = {}
    for module, owners in sorted(packages_distributions().items(), reverse=True):
        for owner in map(canonicalize_name, owners):
            if names.get(owner) != owner and not module.startswith("_"):
                names[owner] = module
    return names


# ---------------------------------------------------------------- what must work together


def notebook_kernel() -> Check:
    """JupyterLab needs a kernel that runs this very Python."""
    from jupyter_client.kernelspec import KernelSpecManager

    program = KernelSpecManager().get_kernel_spec("python3").argv[0]
    here = os.path.basename(program) == program or os.path.realpath(program) == os.path.realpath(sys.executable)
    remedy = "python -m ipykernel install --sys-prefix"
    return Check("notebook kernel", here, f"python3 runs {program if not here else 'this Python'}", remedy)


def torch_distributed() -> Check:
    """gloo is the backend for ranks without GPUs."""
    import torch.distributed as dist

    works = dist.is_available() and dist.is_gloo_available()
    remedy = "install PyTorch from pip or conda-forge: this build was made without it"
    return Check("torch distributed", works, "gloo is there" if works else "no gloo", remedy)


def loopback() -> Check:
    """The network inside this machine, on which the ranks talk."""
    names = [name for _, name in socket.if_nameindex() if name in ("lo", "lo0")]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
    found = ", ".join(names) or "no interface lo or lo0"
    return Check("loopback", bool(names), found, "bring it up: ip link set lo up")


def two_real_ranks() -> Check:
    """Start two ranks and let them add up a number."""
    from lab.launch import run_ranks

    started = time.monotonic()
    sums = run_ranks(added_up, 2)
    found = f"an all-reduce gave {sums} after {time.monotonic() - started:.1f} s"
    remedy = "a firewall or VPN may block 127.0.0.1; GLOO_SOCKET_IFNAME names the loopback interface"
    return Check("two real ranks", sums == [3.0, 3.0], found, remedy)


def added_up(place: object) -> float:
    """1 + 2, each rank bringing its share."""
    import torch
    import torch.distributed as dist

    share = torch.tensor([dist.get_rank() + 1.0])
    dist.all_reduce(share)
    return share.item()
