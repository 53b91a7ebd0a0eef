"""What stops and starts the writer of a database: one file for each `writer.kind`. See `model.services.Halter`."""

from __future__ import annotations

from .command import CommandHalter
from .docker import DockerHalter
from .server import ServerHalter
from .systemd import SystemdHalter

__all__ = ["CommandHalter", "DockerHalter", "ServerHalter", "SystemdHalter"]
