"""Run files: one zip of plain arrays and a JSON header (a ``.npz``), and nothing that could be executed.

Members are stored uncompressed, in fixed order and with a fixed date, so the same run gives the same bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import secrets
import zipfile
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

from .errors import RunFileError
from .facts import Facts
from .spans import LABEL, RANK, STREAM, WIDTH, Sample, Spans

if TYPE_CHECKING:
    import numpy as np

FORMAT = "two clocks run"
VERSION = 3
HEADER = "header"

SCALARS = {
    "clock": str,
    "strategy": str,
    "workload": str,
    "cluster": str,
    "ranks": int,
    "steps": int,
    "seed": int,
    "batch": int,
    "asynchronous": bool,
    "clock_error": float,
}
LISTS = {
    "workers": int,
    "slices": int,
    "streams": str,
    "labels": str,
    "sample_names": str,
    "parameter_names": str,
    "buffer_names": str,
}
TEXTS = ("versions", "notes")
"""Dicts of texts about where a run was made."""
FACTS = "facts"
UNOBSERVED = (*TEXTS, FACTS)
"""What was not observed; the digest leaves it out."""

Fields = tuple[dict[str, Any], "dict[str, np.ndarray]"]
"""A run taken apart: the header, and arrays by name."""

R = TypeVar("R")


def fields_of(run: Any) -> Fields:
    """Take a run apart into a JSON header and arrays. ValueError if a parameter is not an array of numbers."""
    import numpy as np

    names = list(dict.fromkeys(sample.name for sample in run.samples))
    index = {name: i for i, name in enumerate(names)}
    header: dict[str, Any] = {"format": FORMAT, "version": VERSION}
    header |= {name: kind(getattr(run, name)) for name, kind in SCALARS.items()}
    header |= {name: {str(k): str(v) for k, v in getattr(run, name).items()} for name in TEXTS}
    header |= {FACTS: run.facts.to_json()}
    header |= {name: [int(number) for number in getattr(run, name)] for name in ("workers", "slices")}
    header |= {"sample_names": names}
    header |= {"streams": run.spans.streams, "labels": run.spans.labels}
    header |= {"parameter_names": list(run.parameters), "buffer_names": list(run.buffers)}
    where = [(s.rank, s.step, index[s.name], s.version) for s in run.samples]
    arrays = {
        "spans": run.spans.table(),
        "sample_places": np.array(where, dtype="<i8").reshape(-1, 4),
        "sample_values": np.array([(s.time, s.value) for s in run.samples], dtype="<f8").reshape(-1, 2),
        "outcome_counts": np.array([len(outcomes) for outcomes in run.outcomes], dtype="<i8"),
        "alike": np.array(run.alike, dtype="<i8"),
        "sent": np.array(run.sent, dtype="<f8"),
        "outcomes": np.array([outcome for outcomes in run.outcomes for outcome in outcomes], dtype="<i8"),
    }
    arrays |= {f"parameter_{i}": _numbers(*item) for i, item in enumerate(run.parameters.items())}
    return header, arrays | {f"buffer_{i}": _numbers(*item) for i, item in enumerate(run.buffers.items())}


def digest(fields: Fields) -> str:
    """SHA-256 over header and arrays, without what was not observed."""
    header, arrays = fields
    sha = hashlib.sha256(_json({name: value for name, value in header.items() if name not in UNOBSERVED}))
    for name, values in arrays.items():
        sha.update(f"{name} {values.dtype.str} {values.shape}".encode())
        sha.update(values.tobytes())
    return sha.hexdigest()


def write(fields: Fields, path: str | os.PathLike[str]) -> None:
    """Write a run to exactly this path, wholly or not at all."""
    import numpy as np

    header, arrays = fields
    members = {HEADER: np.frombuffer(_json(header), dtype=np.uint8)} | arrays
    with replacing(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, values in members.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, values, allow_pickle=False)


def read(path: str | os.PathLike[str], make: type[R]) -> R:
    """Read a run file and call ``make`` with its fields.

    Raises RunFileError if the file is not a run, is damaged, or is of another schema; OSError if it cannot be opened.
    """
    with open(path, "rb") as file:
        try:
            return make(**_fields(_members(file)))
        except RunFileError as error:
            raise RunFileError(f"{os.fspath(path)} cannot be read as a run: {error}") from None
        except Exception as error:  # A damaged file can make any parser fail in any way; all mean the same here.
            reason = f"{type(error).__name__}: {error}".rstrip(": ")
            raise RunFileError(
                f"{os.fspath(path)} is not a whole file written by Run.save ({reason}); "
                "make the run again, or give the path of a run file"
            ) from error


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A new file that takes the place of ``path`` when the block ends well, and vanishes when it does not.

    Raises OSError when ``path`` is a folder, or is in none.
    """
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(f"a path names the file to write; got {os.fspath(path)!r}, which is a folder")
    if not target.parent.is_dir():
        raise FileNotFoundError(
            f"a file is written into a folder that is there; got {os.fspath(path)!r}: first make {str(target.parent)!r}"
        )
    draft = target.with_name(f".{secrets.token_hex(8)}.unfinished")
    try:
        with open(draft, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, target)
    finally:
        draft.unlink(missing_ok=True)


def _members(file: IO[bytes]) -> dict[str, np.ndarray]:
    import numpy as np

    with zipfile.ZipFile(file) as archive:
        # Whole members, so that their checksums are compared before anything is believed.
        raw = {info.filename.removesuffix(".npy"): archive.read(info) for info in archive.infolist()}
    if HEADER not in raw:
        raise RunFileError("it has no header; give a file written by Run.save")
    return {name: np.lib.format.read_array(io.BytesIO(data), allow_pickle=False) for name, data in raw.items()}


def _fields(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """The arguments of a Run. Whatever is missing, too much or of a wrong kind raises."""
    header = json.loads(arrays.pop(HEADER).tobytes())
    _check_header(header)
    parameters = {name: arrays.pop(f"parameter_{i}") for i, name in enumerate(header["parameter_names"])}
    buffers = {name: arrays.pop(f"buffer_{i}") for i, name in enumerate(header["buffer_names"])}
    fields = {name: header[name] for name in (*SCALARS, *TEXTS)} | {"buffers": buffers}
    fields |= {FACTS: Facts.from_json(header[FACTS])}
    fields |= {"workers": tuple(header["workers"]), "slices": tuple(header["slices"]), "parameters": parameters}
    fields |= {"spans": _spans(arrays.pop("spans"), header)}
    fields |= {"samples": _samples(arrays.pop("sample_places"), arrays.pop("sample_values"), header["sample_names"])}
    fields |= {"outcomes": _outcomes(arrays.pop("outcome_counts"), arrays.pop("outcomes"))}
    fields |= {"alike": _alike(arrays.pop("alike"), header["ranks"]), "sent": tuple(arrays.pop("sent").tolist())}
    _require(len(fields["sent"]) == len(fields["alike"]), "what was sent is said of every rank, or of none")
    _require(not arrays, f"nothing else stands in a run file; got {', '.join(arrays)}")
    return fields


def _check_header(header: Any) -> None:
    _require(isinstance(header, dict) and header.get("format") == FORMAT, f"its header does not say {FORMAT!r}")
    version = header.get("version")
    if version != VERSION:
        raise RunFileError(f"it has schema version {version}, this program reads {VERSION}: use the one that wrote it")
    for name, kind in SCALARS.items():
        _require(type(header[name]) is kind, f"{name} is of type {kind.__name__}; got {header[name]!r}")
    for name, kind in LISTS.items():
        _require(all(type(entry) is kind for entry in header[name]), f"{name} is a list of {kind.__name__}")
    for name in TEXTS:
        _require(all(type(text) is str for text in header[name].values()), f"{name} holds texts")
    unknown = set(header) - {"format", "version", *SCALARS, *LISTS, *UNOBSERVED}
    _require(not unknown, f"its header has no {', '.join(sorted(unknown))}")


def _alike(leaders: np.ndarray, ranks: int) -> tuple[int, ...]:
    found = tuple(leaders.tolist())
    _require(leaders.dtype == "<i8" and len(found) in (0, ranks), "who stands for a rank is said of all, or of none")
    _require(all(0 <= one < ranks for one in found), f"who stands for a rank is one of {ranks}")
    return found


def _spans(table: np.ndarray, header: dict[str, Any]) -> Spans:
    _require(table.dtype == "<f8" and table.ndim == 2 and table.shape[1] == WIDTH, f"a span is {WIDTH} numbers")
    for column, size in ((RANK, header["ranks"]), (STREAM, len(header["streams"])), (LABEL, len(header["labels"]))):
        indices = table[:, column]
        good = (indices >= 0) & (indices < size) & (indices % 1 == 0)
        _require(bool(good.all()), f"column {column} of the spans holds whole numbers below {size}")
    data = array("d")
    data.frombytes(table.tobytes())
    return Spans(data, header["streams"], header["labels"])


def _samples(places: np.ndarray, values: np.ndarray, names: list[str]) -> list[Sample]:
    rows = zip(places.tolist(), values.tolist(), strict=True)
    return [Sample(rank, step, time, names[i], value, version) for (rank, step, i, version), (time, value) in rows]


def _outcomes(counts: np.ndarray, flat: np.ndarray) -> tuple[list[int], ...]:
    _require(int(counts.sum()) == len(flat), "there are as many outcomes as counted")
    outcomes = iter(flat.tolist())
    return tuple([next(outcomes) for _ in range(count)] for count in counts.tolist())


def _numbers(name: str, values: Any) -> np.ndarray:
    import numpy as np

    numbers = np.asarray(values, order="C")
    if numbers.dtype.kind not in "biufc":
        raise ValueError(f"parameters are arrays of numbers; got {name} of dtype {numbers.dtype}")
    return numbers


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, ensure_ascii=False).encode()


def _require(condition: bool, rule: str) -> None:
    if not condition:
        raise RunFileError(f"{rule}; make the run again")
