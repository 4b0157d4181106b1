"""The layout on disk: everything under two roots, secrets closed, parents first."""

from __future__ import annotations

from pathlib import Path

from lotabotsd.foundation.paths import Paths

PATHS = Paths(Path("/state"), Path("/run"))


def test_every_path_lies_under_one_of_the_two_roots() -> None:
    named = [getattr(PATHS, name) for name in dir(Paths) if isinstance(getattr(Paths, name), property)]
    assert len(set(named)) == len(named) > 10
    assert all(PATHS.state in path.parents or PATHS.run in path.parents for path in named)


def test_parents_are_made_before_their_children() -> None:
    made = [path for path, _ in PATHS.directories()]
    for index, path in enumerate(made):
        assert path in (PATHS.state, PATHS.run) or path.parent in made[:index]


def test_every_file_and_socket_has_its_directory() -> None:
    made = {path for path, _ in PATHS.directories()}
    sockets = {PATHS.control_socket, PATHS.attest_socket, PATHS.helper_socket}
    triton = {PATHS.triton_http, PATHS.triton_grpc, PATHS.triton_metrics}
    for path in {PATHS.policy_db, PATHS.pepper, PATHS.limits_table} | sockets | triton:
        assert path.parent in made


def test_keys_and_licences_are_the_daemons_alone_and_nothing_is_open_to_all() -> None:
    modes = dict(PATHS.directories())
    assert modes[PATHS.keys] == modes[PATHS.licence] == modes[PATHS.outbox] == 0o700
    assert all(mode & 0o002 == 0 for mode in modes.values())
