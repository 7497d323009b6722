"""Benchmarks from the network: one probe that answers within seconds, and an error that names the ways on."""

import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jqlight.benchmarks.loading import HubSource, Record, Split, as_record, share
from jqlight.errors import HubError

_PROBE_SECONDS = 5.0
WAYS_ON = (
    "give a local copy as data.path, a local model as policy.name_or_path, or train without a network: "
    "jqlight fit --config conf/quickstart.yaml"
)


def read_hub(source: HubSource, split: Split, id_field: str) -> Iterator[Record]:
    """Records of ``split``; validation and test are the two halves of the hub's validation split, by a hash of the id.

    Raises:
        HubError: the hub cannot be reached and nothing is cached.
        DataError: a record without an id.
    """
    name = "train" if split == "train" else "validation"
    place = f"hub data set {source.name} ({name})"
    records = (
        as_record({**row, id_field: row.get(source.id_field or id_field)}, place, id_field, place)
        for row in load_rows(source, name)
    )
    yield from records if split == "train" else share(records, id_field, ("validation", "test"), split)


def load_rows(source: HubSource, name: str) -> Iterable[dict[str, Any]]:
    """Rows of the hub's split ``name``, from the hub or, without a network, from the local cache.

    Raises:
        HubError: neither has them.
    """
    import datasets
    from huggingface_hub import constants

    online = not constants.HF_HUB_OFFLINE and reachable(f"{constants.ENDPOINT}/api/datasets/{source.name}")
    with _offline(not online):
        try:
            return datasets.load_dataset(source.name, source.config, split=name)
        except (OSError, ValueError) as error:
            state = "cannot be read from the hub" if online else "is not cached and the hub cannot be reached"
            raise HubError(f"data.path: not given, and {source.name} {state}; {WAYS_ON} ({error})") from error


def fetch(url: str, folder: Path) -> Path:
    """Path of the file behind ``url``, downloaded into ``folder`` once.

    Raises:
        HubError: the file is not there yet and cannot be downloaded.
    """
    target = folder / url.rsplit("/", 1)[-1]
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(f".{os.getpid()}.part")
    try:
        with urllib.request.urlopen(url, timeout=_PROBE_SECONDS) as response, partial.open("wb") as stream:
            shutil.copyfileobj(response, stream)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise HubError(f"data.path: not given, and {url} cannot be downloaded; {WAYS_ON} ({error})") from error
    return partial.replace(target)


def cache_folder(name: str) -> Path:
    """Folder of downloaded files of a benchmark: ``$XDG_CACHE_HOME/jqlight/name``, by default under ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "jqlight" / name


def reachable(url: str) -> bool:
    """Whether a server answers at ``url`` within five seconds, even if it refuses."""
    try:
        with urllib.request.urlopen(url, timeout=_PROBE_SECONDS):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


@contextmanager
def _offline(offline: bool) -> Iterator[None]:
    """Keep the hub's libraries from retrying for half a minute what the probe has found unreachable."""
    import datasets
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    if offline:
        constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before
