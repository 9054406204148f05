"""A ROS domain that belongs to one test process, and to everything that it starts."""

from __future__ import annotations

import os
import socket

from d3_ros.ros.child_processes import free_domain, only_this_machine

# Kept open as long as the process lives. A child process does not inherit it.
_reservations: list[socket.socket] = []


def enter_own_domain() -> None:
    """Set the environment so that rclpy and child processes use a domain of this process alone.

    DDS sends UDP to port 7400 + 250 * domain. The TCP port of the same number is not used by
    anybody; who holds it has the domain. So test processes of several runs never share one.
    """
    while True:
        domain = free_domain()
        reservation = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            reservation.bind(("127.0.0.1", 7400 + 250 * domain))
        except OSError:
            reservation.close()
            continue
        _reservations.append(reservation)
        os.environ.update({"ROS_DOMAIN_ID": str(domain), **only_this_machine()})
        return
