"""The ``twoclocks`` command. Heavy packages are imported only by the commands that need them."""

from __future__ import annotations

import argparse
import os
import socket
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

EPILOG = "Texts, lessons and code: see README.md and notebooks/ in the repository."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    0: done; 1: doctor found something broken; 2: a mistake, told in words on stderr; 130: interrupted.
    """
    options = parser().parse_args(arguments)
    try:
        status: int = options.command(options)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return told("interrupted", 130)
    except BrokenPipeError:  # whoever read our output has gone, as with `twoclocks doctor | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except ImportError as error:
        return told(f"{error}\n`twoclocks doctor` says what is missing and how to mend it", 2)
    except mistakes() as error:
        return told(str(error), 2)


def told(text: str, status: int) -> int:
    """Say ``text`` on stderr under the program's name and hand back ``status``."""
    print(f"twoclocks: {text}", file=sys.stderr)
    return status


def mistakes() -> tuple[type[Exception], ...]:
    """Errors that speak for themselves. Called only when something was raised, so that starting stays quick."""
    from simulator.errors import RankError

    return ValueError, OSError, RankError


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    top = argparse.ArgumentParser(
        prog="twoclocks",
        description="One training strategy, two clocks: predicted on a virtual cluster, measured on real processes.",
        epilog=EPILOG,
    )
    top.add_argument("--version", action="version", version=f"twoclocks {installed_version()}")
    commands = top.add_subparsers(title="commands", metavar="demo | doctor | lab", required=True)
    add_demo(commands)
    add_doctor(commands)
    add_lab(commands)
    return top


def installed_version() -> str:
    """The version of the installed package."""
    try:
        return version("two-clocks")
    except PackageNotFoundError:
        return "(not installed: pip install -e .)"


Commands = argparse._SubParsersAction  # argparse has no public name for what add_subparsers gives


def add_demo(commands: Commands[argparse.ArgumentParser]) -> None:
    """``twoclocks demo``."""
    text = "predict and measure four strategies on this machine; print one table, write pictures and traces"
    demo = commands.add_parser(
        "demo",
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    demo.add_argument("--ranks", type=int, default=2, help="processes that train; a parameter server adds one")
    demo.add_argument("--steps", type=int, default=200, help="updates per worker")
    demo.add_argument("--seed", type=int, default=0, help="draws weights and batches")
    demo.add_argument("--problem", default="digits-mlp", help="quadratic, digits-mlp, digits-conv or tiny-gpt")
    demo.add_argument("--out", default="demo", metavar="FOLDER", help="where files are written")
    demo.set_defaults(command=run_demo)


def add_doctor(commands: Commands[argparse.ArgumentParser]) -> None:
    """``twoclocks doctor``."""
    text = "say what works on this machine, and how to mend what does not"
    doctor = commands.add_parser("doctor", help=text, description=f"{text[0].upper()}{text[1:]}.")
    doctor.set_defaults(command=run_doctor)


def add_lab(commands: Commands[argparse.ArgumentParser]) -> None:
    """``twoclocks lab``."""
    text = "open the notebooks in JupyterLab"
    lab = commands.add_parser("lab", help=text, description=f"{text[0].upper()}{text[1:]} (on 127.0.0.1).")
    lab.add_argument("--port", type=int, default=None, help="the port to listen on (default: the first free from 8888)")
    lab.add_argument("--no-browser", action="store_true", help="print the address, open nothing")
    lab.add_argument("--allow-root", action="store_true", help="as root, for instance in a container")
    lab.set_defaults(command=run_lab)


def run_demo(options: argparse.Namespace) -> int:
    """Run the demo as asked. It draws into files, so it needs no screen."""
    os.environ.setdefault("MPLBACKEND", "agg")
    from lab.demo import demo

    demo(options.problem, ranks=options.ranks, steps=options.steps, seed=options.seed, out=options.out)
    return 0


def run_doctor(options: argparse.Namespace) -> int:
    """Print the doctor's report."""
    from lab.doctor import doctor

    return 0 if doctor() else 1


def run_lab(options: argparse.Namespace) -> int:
    """Become JupyterLab: this process is replaced, so that signals and the terminal reach it directly."""
    if find_spec("jupyterlab") is None:
        raise ModuleNotFoundError("JupyterLab is not installed")
    command = jupyter_command(notebooks(), options.port)
    command += ["--no-browser"] * options.no_browser + ["--allow-root"] * options.allow_root
    sys.stdout.flush()
    os.execv(command[0], command)


def jupyter_command(folder: Path, port: int | None) -> list[str]:
    """The command that starts JupyterLab on ``folder``, bound to loopback.

    Raises ValueError when ``port`` cannot be listened on.
    """
    command = [sys.executable, "-m", "jupyterlab", "--ServerApp.ip=127.0.0.1", f"--ServerApp.root_dir={folder}"]
    if port is not None:
        check_port(port)
        command += [f"--ServerApp.port={port}", "--ServerApp.port_retries=0"]
    return command


def check_port(port: int) -> None:
    """Raise ValueError unless ``port`` can be listened on."""
    if not 1 <= port <= 65535:
        raise ValueError(f"a port is a number from 1 to 65535; got --port {port}")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            reason = f"port {port} cannot be used ({error.strerror})"
            raise ValueError(f"{reason}; leave --port out to take a free one") from None


def notebooks() -> Path:
    """The folder with the notebooks: beside this package in a checkout, or in the current folder."""
    places = [Path(__file__).resolve().parent.parent / "notebooks", Path.cwd() / "notebooks"]
    for place in places:
        if place.is_dir():
            return place
    looked = " nor ".join(map(str, places))
    raise FileNotFoundError(f"there is neither {looked}; start `twoclocks lab` in a checkout of Two Clocks")


if __name__ == "__main__":
    sys.exit(main())
