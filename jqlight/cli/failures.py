"""What a command says when something happened that is not the user's mistake: one sentence, and where the rest is."""

import errno
import os
import re
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path

from jqlight.errors import ConfigError, DataError, HubError, JQLightError
from jqlight.tracking.mlflow import redacted

_WAYS_OUT = {
    errno.ENOSPC: "free some space there, or write elsewhere (--run_dir; TMPDIR for temporary files)",
    errno.EDQUOT: "the quota is used up; free some space there, or write elsewhere (--run_dir)",
    errno.EFBIG: "a limit on the size of files is reached (`ulimit -f`)",
    errno.EROFS: "write elsewhere (--run_dir), or mount it for writing",
    errno.EACCES: "change its permissions, or give another path",
    errno.EPERM: "change its permissions, or give another path",
    errno.EMFILE: "raise the limit on open files (`ulimit -n`)",
    errno.ENAMETOOLONG: "give a shorter path",
    errno.EIO: "the disk or the network file system failed; try again",
    errno.ESTALE: "the network file system lost it; try again",
}
# Reported from anywhere in a chain of causes; other system errors only if they are the error itself.
_DEEP = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_LONGEST_MESSAGE = 300


USAGE_EXIT = 2


def described(error: Exception) -> tuple[int, str]:
    """Exit code and sentence of an error: 2 for what the user wrote, 1 for what happened."""
    loop = re.match(r"Symlink loop from (.+)", str(error)) if isinstance(error, RuntimeError) else None  # pathlib's
    if loop:
        return USAGE_EXIT, f"{loop[1]} is a link that leads back to itself; give another path, or mend the link"
    code = USAGE_EXIT if isinstance(error, ConfigError | DataError | HubError) else 1
    return code, str(error) if isinstance(error, JQLightError) else sentence(error)


def sentence(error: BaseException) -> str:
    """One sentence for an error that was not raised on purpose; writes its traceback to a file and says where."""
    system = _system_error(error)
    if system is not None:
        return _system_sentence(system)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        what = "memory ran out; lower model.rollouts, the token budgets of model.sampler or data.prompts_per_step"
    else:
        what = f"unexpected {type(error).__name__}{_message(error)}"
    saved = _save("".join(traceback.format_exception(error)))
    where = f"the full traceback is in {saved}" if saved else "--debug shows the full traceback"
    if isinstance(error, MemoryError):
        return f"{what} ({where})"
    return f"{what}; {where}: please report it with that file, as CONTRIBUTING.md says (--debug shows it here)"


def _message(error: BaseException) -> str:
    try:
        text = " ".join(redacted(str(error)).split())
    except Exception:  # an error whose own text fails
        return ""
    return f": {text[:_LONGEST_MESSAGE]}{'...' * (len(text) > _LONGEST_MESSAGE)}" if text else ""


def _system_error(error: BaseException) -> OSError | None:
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        return error
    return next((e for e in _causes(error) if isinstance(e, OSError) and e.errno in _DEEP), None)


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def _system_sentence(error: OSError) -> str:
    """The path and the system's own words; no traceback file, since there is nothing to report."""
    name = str(error.filename) if isinstance(error.filename, str | os.PathLike) else ""
    where = f"{name if len(name) <= _LONGEST_MESSAGE else f'{name[:_LONGEST_MESSAGE]}...'}: " if name else ""
    way_out = _WAYS_OUT.get(error.errno or 0)
    text = str(error.strerror)
    return f"{where}{text[:1].lower()}{text[1:]}{f'; {way_out}' if way_out else ''} (--debug shows the traceback)"


def _save(text: str) -> Path | None:
    """Keep a traceback in the folder of the run, where one has begun, else among temporary files; None if nowhere."""
    folder = os.environ.get("JQLIGHT_RUN_DIR")
    begun = [folder] if folder and (Path(folder) / "run.json").exists() else []
    for folder_or_default in [*begun, None]:
        try:
            descriptor, name = tempfile.mkstemp(prefix="jqlight-traceback-", suffix=".txt", dir=folder_or_default)
            with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(redacted(text))
            return Path(name)
        except OSError:
            continue
    return None
