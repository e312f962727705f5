"""The connection to Ray: the only module that imports it. How many workers there are, and what Ray may say.

Ray speaks to its cluster and to nothing else. Where it is started here, dashboard and usage statistics are off, and
what it writes (logs, blocks that memory has no room for: report text!) lies in a folder for its owner only, which goes
with it. Its ports are open on all network cards even then, with nothing but Ray's own token before them: shut them in
the machine's firewall. A cluster that is given by address speaks among its own machines, in the hospital's network, by
its own settings; where it spills blocks is for its owners to choose.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medorchestra.errors import MedorchestraError, SettingsError, StorageError


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorPool:
    """How many workers, and what each has.

    Attributes:
        actors: workers; None: as many as the cluster has processors for, coming and going with the work.
        threads: processors of each.
        gpus: graphics cards of each; a part of one where several share it.
        reports_at_a_time: in one call of a worker; what is waited for at most before progress is seen.
    """

    actors: int | None = None
    threads: int = 1
    gpus: float = 0.0
    reports_at_a_time: int = 16

    def __post_init__(self) -> None:
        for name in ("actors", "threads", "reports_at_a_time"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SettingsError(f"{name}={value}: at least 1")
        if self.gpus < 0:
            raise SettingsError(f"gpus={self.gpus}: 0 or more")

    @property
    def processors(self) -> int:
        """Processors for a pool of this size on this machine: one more than the workers take, for reading the input."""
        actors = self.actors or max(1, (os.cpu_count() or 1) // self.threads)
        return actors * self.threads + 1

    def most(self, processors: float) -> int:
        """Workers that a cluster with so many processors has room for.

        Raises:
            SettingsError: not for those that were asked for.
        """
        room = int((processors - 1) // self.threads)
        wanted = self.actors or max(room, 1)
        if wanted > room:
            raise SettingsError(
                f"{wanted} workers of {self.threads} threads need {wanted * self.threads + 1} processors, one of them "
                f"for reading the input; the cluster has {processors:g}. Take fewer workers or threads."
            )
        return wanted


def ray_module() -> Any:
    """The module.

    Raises:
        SettingsError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when it is imported
    try:
        import ray
        import ray.data
    except ImportError:
        raise SettingsError("staging on Ray needs Ray Data; run `pip install 'medorchestra[ray]'`") from None
    return ray


@contextmanager
def without_report_text(folder: Path) -> Iterator[None]:
    """Turn Ray's own errors, whose messages can hold what it was working on, into one that says what to do."""
    ray = ray_module()
    try:
        yield
    except MedorchestraError:
        raise
    except (ray.exceptions.RayError, ray.data.exceptions.SystemException) as error:
        kind = type(error).__name__
    else:
        return
    raise StorageError(
        f"Ray gave the run up ({kind}; its own logs say more). Look at memory and machines of the cluster, then run "
        f"the same command again: finished answers stay in {folder / 'ledger.sqlite'}."
    )


@contextmanager
def connected(address: str, pool: ActorPool) -> Iterator[None]:
    """A connection to Ray; where it is started for this, it is ended too.

    Args:
        address: `local`: start Ray on this machine for this run; `auto`, `HOST:PORT` or `ray://HOST:PORT`: a cluster.
        pool: as many processors are asked of this machine as it takes.

    Raises:
        SettingsError: Ray is not installed.
        StorageError: it does not start, or the cluster does not answer.
    """
    ray = ray_module()
    private = tempfile.mkdtemp(prefix="ray", dir=_short_folder()) if address == "local" else None  # 0700
    options: dict[str, Any] = {"address": address, "logging_level": "WARNING", "log_to_driver": False}
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # it tells of plans and progress on the terminal
    if private is not None:
        options |= {
            "num_cpus": pool.processors,
            "include_dashboard": False,
            "_temp_dir": f"{private}/r",
        }  # which Ray opens to all
    try:
        try:
            ray.init(**options)
        except Exception as error:  # noqa: BLE001 - it raises bare ones
            kind = type(error).__name__
        else:
            kind = ""
        if kind:
            raise StorageError(
                f"Ray at {address!r} cannot be reached or started ({kind}). Is the cluster up, are memory and /dev/shm "
                "free?"
            )
        yield
    finally:
        ray.shutdown()
        if private is not None:
            shutil.rmtree(private, ignore_errors=True)


def _short_folder() -> str | None:
    """Where the sockets of Ray have room for their names, of 107 characters at most with all folders."""
    return "/tmp" if os.access("/tmp", os.W_OK) else None  # noqa: S108 - a private folder is made in it
