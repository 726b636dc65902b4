"""The environment of a training process: all of what torchrun sets, or nothing of it."""

import pytest

from mofo_train.errors import ConfigError
from mofo_train.runtime.ranks import ranks_of_this_run

_NAMES = ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT")


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"WORLD_SIZE": "4"}, r"WORLD_SIZE is 4 in the environment but RANK, MASTER_ADDR, MASTER_PORT not set"),
        ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_PORT": "1"}, r"but MASTER_ADDR not set: start with torchrun"),
        ({"WORLD_SIZE": "many"}, r"WORLD_SIZE must be a whole number in the environment, got 'many'"),
        ({"WORLD_SIZE": "2", "RANK": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, r"RANK must be in 0\.\.1 .*got 2"),
    ],
)
def test_half_of_an_environment_is_one_line(monkeypatch: pytest.MonkeyPatch, environment, message) -> None:
    for name in _NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=message), ranks_of_this_run():
        pass


@pytest.mark.parametrize("environment", [{}, {"WORLD_SIZE": ""}, {"WORLD_SIZE": "1"}, {"RANK": "3"}])
def test_one_process_needs_no_environment(monkeypatch: pytest.MonkeyPatch, environment) -> None:
    for name in _NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with ranks_of_this_run() as ranks:
        assert (ranks.rank, ranks.world_size) == (0, 1)
