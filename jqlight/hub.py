"""Models and data from the network: one probe that answers within seconds, and errors that name the ways on."""

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from huggingface_hub import HfApi, constants, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils._headers import build_hf_headers
from huggingface_hub.utils._validators import validate_repo_id

from jqlight.errors import ConfigError, HubError

BUNDLED = {name: Path(__file__).parent / "assets" / name for name in ("twohop", "khop")}
"""Models that come with the package, by the name one writes in a config."""

_TIMEOUT_S = 5.0  # the hub client itself retries for half a minute before it gives up
_MODEL_WAYS = (
    "give policy.name_or_path a local folder (and data.path a local data file), check the connection, or start with "
    "the bundled model: policy.name_or_path twohop"
)

DATA_WAYS_ON = (
    "give a local copy as data.path, a local model as policy.name_or_path, or train without a network: "
    "jqlight fit --config conf/quickstart.yaml"
)


def resolve(name_or_path: str) -> str:
    """Local folder as an absolute path, or the hub id if the hub or its local cache has it.

    Raises:
        ConfigError: ``name_or_path`` is written as a path and there is no such folder, or it is empty.
        HubError: neither a folder nor a model that can be reached; found out within seconds.
    """
    if not name_or_path:
        raise ConfigError("policy.name_or_path: given '', allowed is a local folder, a hub id, twohop or khop")
    folder = Path(name_or_path).expanduser()
    if (folder / "adapter_config.json").is_file():
        raise ConfigError(
            f"policy.name_or_path: {folder.absolute()} holds an adapter of PEFT, not a model; merge it into its base "
            "model (PEFT's merge_and_unload, then save_pretrained with the tokenizer) and give that folder"
        )
    if (folder / "config.json").is_file():
        return str(folder.resolve())
    if name_or_path in BUNDLED:
        return str(BUNDLED[name_or_path])
    if name_or_path.startswith((".", "/", "~")) or folder.exists() or name_or_path.count("/") > 1:
        raise ConfigError(
            f"policy.name_or_path: given {name_or_path!r}, but there is no model folder (no config.json) at "
            f"{folder.absolute()}"
        )
    try:
        validate_repo_id(name_or_path)
    except HFValidationError as error:
        raise ConfigError(f"policy.name_or_path: given {name_or_path!r}, no folder and no hub id: {error}") from error
    if isinstance(try_to_load_from_cache(name_or_path, "config.json"), str):
        return name_or_path
    _check_reachable(name_or_path)
    return name_or_path


def _check_reachable(name: str) -> None:
    """Ask the hub for the model's config once, without retries."""
    if constants.is_offline_mode():
        raise HubError(
            f"{name!r} is no folder in {Path.cwd()}, is not in the hub's cache, and HF_HUB_OFFLINE is set; "
            f"{_MODEL_WAYS}"
        )
    # Not the hub client's own session: which library's errors that raises depends on its version.
    request = Request(hf_hub_url(name, "config.json"), method="HEAD")
    for header, value in build_hf_headers().items():
        request.add_unredirected_header(header, value)
    try:
        urlopen(request, timeout=_TIMEOUT_S).close()
    except HTTPError as error:
        raise HubError(
            f"{name!r} is no folder in {Path.cwd()}, and the hub answers {error.code} for it (401 and 403: it needs a "
            f"token or does not exist); {_MODEL_WAYS}"
        ) from error
    except OSError as error:
        raise HubError(
            f"{name!r} is no folder in {Path.cwd()}, and the hub cannot be reached ({error}); {_MODEL_WAYS}"
        ) from error


def load_rows(name: str, config: str | None, split: str) -> Iterable[dict[str, Any]]:
    """Rows of a split of the hub's data set ``name``, from the hub or, without a network, from the local cache.

    Raises:
        HubError: neither has them.
    """
    import datasets

    online = not constants.HF_HUB_OFFLINE and reachable(f"{constants.ENDPOINT}/api/datasets/{name}")
    with _offline(not online):
        try:
            rows: Iterable[dict[str, Any]] = datasets.load_dataset(name, config, split=split)
            return rows
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
            state = "cannot be read from the hub" if online else "is not cached and the hub cannot be reached"
            raise HubError(f"data.path: not given, and {name} {state}; {DATA_WAYS_ON} ({error})") from error


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
        with urlopen(url, timeout=_TIMEOUT_S) as response, partial.open("wb") as stream:
            shutil.copyfileobj(response, stream)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise HubError(f"data.path: not given, and {url} cannot be downloaded; {DATA_WAYS_ON} ({error})") from error
    return partial.replace(target)


def create_repository(name: str) -> str:
    """Id of the model repository ``name`` of the hub, with its owner; one that is missing is made, private.

    Raises:
        ConfigError: no name of a repository.
        HubError: the hub cannot be reached, or refuses.
    """
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ConfigError(f"--push-to-hub: given {name!r}, allowed is NAME or OWNER/NAME: {error}") from error
    if constants.is_offline_mode():
        raise HubError("--push-to-hub: HF_HUB_OFFLINE is set; unset it, or give --out alone and upload later")
    if why := silence(constants.ENDPOINT):
        raise HubError(f"--push-to-hub: the hub cannot be reached ({why}); check the connection, nothing was written")
    with _pushing(name):
        return str(HfApi().create_repo(name, private=True, exist_ok=True).repo_id)


def push(folder: Path, name: str) -> str:
    """Upload a folder to the repository ``name``, from :func:`create_repository`; the commit's address.

    Raises:
        HubError: the hub refuses, or the connection breaks; the folder stays.
    """
    with _pushing(name):
        return str(HfApi().upload_folder(repo_id=name, folder_path=folder, commit_message="Upload of jqlight export"))


@contextmanager
def _pushing(name: str) -> Iterator[None]:
    """Turn what the hub's client raises into a sentence; the token is in none of it."""
    try:
        yield
    except HfHubHTTPError as error:
        code = getattr(error.response, "status_code", None)
        ways = {
            401: "it knows no account: log in with `hf auth login`, or set HF_TOKEN to a token that may write",
            403: "the token may not write there: give one that may, or a name of your own as OWNER/NAME",
            404: "there is no such owner or repository: check the name",
        }
        way_on = ways.get(code or 0, "try again, or upload the folder later with `hf upload`")
        raise HubError(f"--push-to-hub: the hub answers {code} for {name}; {way_on}") from error
    except (OSError, HTTPError, RuntimeError) as error:
        raise HubError(f"--push-to-hub: {name}: the connection broke ({type(error).__name__}); try again") from error


def cache_folder(name: str) -> Path:
    """Folder of downloaded files of a benchmark: ``$XDG_CACHE_HOME/jqlight/name``, by default under ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "jqlight" / name


def reachable(url: str) -> bool:
    """Whether a server answers at ``url`` within five seconds, even if it refuses."""
    return not silence(url)


def silence(url: str) -> str:
    """Why there is no answer from ``url`` within five seconds; empty where there is one, even a refusal."""
    try:
        urlopen(url, timeout=_TIMEOUT_S).close()
    except HTTPError:
        return ""
    except OSError as error:
        return str(error)
    return ""


@contextmanager
def _offline(offline: bool) -> Iterator[None]:
    """Keep the hub's libraries from retrying for half a minute what the probe has found unreachable."""
    import datasets

    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    if offline:
        constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before
