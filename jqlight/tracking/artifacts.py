"""MLflow's artifacts on disk, for stores that move: an entry point of MLflow for URIs that begin with ``file:``.

A sqlite store keeps whole paths. Where the folder in such a path is not on this machine, the run was made elsewhere, as
in a container, and its artifacts are looked for beside the store's file.
"""

import os
from pathlib import Path
from urllib.parse import unquote, urlparse

from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

from jqlight.tracking.mlflow import ARTIFACTS, sqlite_path

# What MLflow's server tells the processes that answer for it; they are given no URI of the store.
_SERVERS_STORE = ("_MLFLOW_SERVER_FILE_STORE", "MLFLOW_BACKEND_STORE_URI")


class MovableArtifacts(LocalArtifactRepository):
    """MLflow's own repository of local files, on the folder that :func:`found` says."""

    def __init__(self, artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None) -> None:
        stores = (tracking_uri, *map(os.environ.get, _SERVERS_STORE))
        store = next((uri for uri in stores if uri), "")
        super().__init__(found(artifact_uri, store), tracking_uri, registry_uri)


def found(artifact_uri: str, store: str) -> str:
    """Where a run's artifacts are: below ``mlartifacts`` beside the store's file if its experiment is, or as given."""
    file = sqlite_path(store)
    parts = Path(unquote(urlparse(artifact_uri).path)).parts
    if file is None or ARTIFACTS not in parts:
        return artifact_uri
    below = len(parts) - parts[::-1].index(ARTIFACTS)
    beside = file.resolve().parent / ARTIFACTS
    has_come_along = below < len(parts) and (beside / parts[below]).is_dir()
    if Path(*parts[:below]).is_dir() and not has_come_along:
        return artifact_uri
    return beside.joinpath(*parts[below:]).as_uri()
