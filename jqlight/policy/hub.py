"""From the name in the config to a place where a model's files are."""

from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from huggingface_hub import constants, hf_hub_url, try_to_load_from_cache
from huggingface_hub.utils import HFValidationError, build_hf_headers, validate_repo_id

from jqlight.errors import ConfigError, HubError

BUNDLED = {"twohop": Path(__file__).parent.parent / "assets" / "twohop"}
"""Models that come with the package, by the name one writes in a config."""

_TIMEOUT_S = 5.0  # the hub client itself retries for half a minute before it gives up
_WAYS_ON = (
    "give policy.name_or_path a local folder (and data.path a local data file), check the connection, or start with "
    "the bundled model: policy.name_or_path twohop"
)


def resolve(name_or_path: str) -> str:
    """Local folder as an absolute path, or the hub id if the hub or its local cache has it.

    Raises:
        ConfigError: ``name_or_path`` is written as a path and there is no such folder, or it is empty.
        HubError: neither a folder nor a model that can be reached; found out within seconds.
    """
    if not name_or_path:
        raise ConfigError("policy.name_or_path: given '', allowed is a local folder, a hub id or twohop")
    folder = Path(name_or_path).expanduser()
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
        raise HubError(f"{name!r} is no local folder, is not in the hub's cache, and HF_HUB_OFFLINE is set; {_WAYS_ON}")
    # Not the hub client's own session: which library's errors that raises depends on its version.
    request = Request(hf_hub_url(name, "config.json"), method="HEAD")
    for header, value in build_hf_headers().items():
        request.add_unredirected_header(header, value)
    try:
        urlopen(request, timeout=_TIMEOUT_S).close()
    except HTTPError as error:
        raise HubError(
            f"{name!r} is no local folder, and the hub answers {error.code} for it (401 and 403: it needs a token or "
            f"does not exist); {_WAYS_ON}"
        ) from error
    except OSError as error:
        raise HubError(f"{name!r} is no local folder, and the hub cannot be reached ({error}); {_WAYS_ON}") from error
