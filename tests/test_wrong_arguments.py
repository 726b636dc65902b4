"""Each command of both programs with some forty wrong arguments, files and environments: one line, no traceback.

Wrong values are made from each parameter's type: whoever adds an option adds its misuses here.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence

import click
import cv2
import numpy as np
import pytest

import mofo_train.cli
import motionbox.cli
from motionbox.command_line import StorePlace

MAINS = {"motionbox": motionbox.cli.main, "mofo-train": mofo_train.cli.main}
GROUPS: dict[str, click.Group] = {"motionbox": motionbox.cli.cli, "mofo-train": mofo_train.cli.cli}
LONGEST_SECONDS = 240  # the first command of a busy machine loads PyTorch
CODES = {2, 3, 75}

# A call of each command that would work, nothing where all is optional; `{name}` is a file of the fixture `place`.
CALLS: dict[tuple[str, str], str] = {
    ("motionbox", "extract"): "--data-root {data} --store {new}/store --flow dis --workers 0 --limit 1",
    ("motionbox", "status"): "{store}",
    ("motionbox", "verify"): "{store}",
    ("motionbox", "gc"): "{store}",
    ("motionbox", "show"): "{store} one --out {new}/a.png --still",
    ("motionbox", "report"): "{store} --out {new}/a.html --previews 0",
    ("motionbox", "export"): "{store} --format csv --out {new}/a.csv",
    ("motionbox", "import-list"): "{list} --data-root {data} --out {new}/a.csv --force",
    ("motionbox", "import-boxes"): "{store} --boxes {boxes} --name annotated",
    ("motionbox", "flow"): "{data}/one --out {new}/flow --method dis",
    ("motionbox", "evaluate"): "{store} --boxes {boxes}",
    ("motionbox", "bench-boxes"): "--data-root {data} --boxes {boxes} --flow dis",
    ("motionbox", "synth"): "--out {new}/synth --num-clips 1",
    ("motionbox", "demo"): "--out {new}/demo --num-clips 1",
    ("motionbox", "bench"): "--rounds 1",
    ("mofo-train", "pretrain"): "--recipe synthetic_pretrain_tiny --store {store} --data-root {data} --out {new}/run",
    (
        "mofo-train",
        "finetune",
    ): "--recipe synthetic_finetune_tiny_mca --store {store} --data-root {data} --out {new}/run",
    ("mofo-train", "evaluate"): "--checkpoint {garbage} --store {store} --data-root {data} --out {new}/eval",
    ("mofo-train", "inspect"): "--store {store} --data-root {data} --samples 1",
    ("mofo-train", "table1"): "--recipe synthetic_table1 --profile smoke --store {store} --out {new}/table --plan",
    ("mofo-train", "saliency"): "--checkpoint {garbage} --store {store} --data-root {data} --out {new}/a.png",
    ("mofo-train", "bench"): "loader --store {store} --data-root {data} --steps 1 --batch-size 1 --num-workers 0",
    ("mofo-train", "convert"): "{garbage} {new}/a.pth",
}
OUTPUTS = {"out", "target", "plot", "json_path", "write"}

# What is harmless where it stands, or is looked at only after minutes of measuring.
ACCEPTED = {
    ("bench", "testdata"),  # drawn clips stand in for a folder without videos
    ("bench", "write"),
    ("bench", "json_path"),
    ("demo", "out"),  # makes a data set of its own first
    ("import-list", "split"),  # a split may have any name
    *(("table1", name) for name in ("store", "data_root", "out")),  # the plan alone needs none of them
}
# What has to be there, whatever it holds; a URL would be asked for over the network.
UNREAD = {("import-list", "data_root"), ("show", "data_root"), ("report", "data_root")}
WRONG_TEXTS = {
    "overrides": ["nonsense", "=1", "", "nosuch.key=1", "nosuch=1", "flow=3", "optim=[", "data.split=7=8", "\udcff=1"],
    "settings": ["nonsense", "=1", "", "nosuch.key=1", "flow=3"],
    "recipe": ["nonsense", "{empty_folder}", "{missing}.toml", "{garbage_toml}", "{empty}", "a" * 5000],
    "preset": ["nonsense", "", "../paper", "paper.toml"],
    "run": ["nonsense", "0" * 16, "../x"],
    "runs": ["nonsense", "0" * 16, "../x", ""],
    "split": ["nonsense", "", "\n"],
    "splits": ["nonsense", "", "\n", "train,nonsense"],
    "clip_ids": ["nonsense", "", "one/../one"],
    "clip_id": ["nonsense", ""],
    "against": ["nonsense", "{missing}"],
    "like": ["nonsense", ""],
    "name": ["", "../x", "a/b", "\n"],
    "guidances": ["nonsense", "../x"],
    "source": [
        "nonsense",
        "{missing}",
        "{empty}",
        "{empty_folder}",
        "{loop}",
        "no/such/model",
        "a/b/c",
        "s3://bucket/x",
    ],
    "panels": ["nonsense", ""],
    "model_name": ["nonsense", ""],
}
# A text that is taken for a name, whatever it is.
FREE_TEXTS = {"titles", "prefix", "ray_address", "dataset", "licence"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Right and wrong files by name."""
    root = tmp_path_factory.mktemp("wrong")
    for folder in ("data/one", "empty_folder", "other/things", "new"):
        (root / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    base = cv2.GaussianBlur(rng.integers(0, 80, (64, 64), np.uint8), (5, 5), 0)
    for number in range(8):
        picture = base.copy()
        picture[20:36, 4 + 4 * number : 20 + 4 * number] = 200
        cv2.imwrite(str(root / f"data/one/{number}.png"), picture)
    (root / "data/annotations.csv").write_text("path,split,verb_class,noun_class\none,train,0,0\n")
    (root / "list.txt").write_text("one 8 0\n")
    (root / "boxes.json").write_text('{"nobody": []}')
    (root / "empty").touch()
    (root / "garbage").write_bytes(rng.integers(0, 256, 4000, np.uint8).tobytes())
    (root / "garbage_toml.toml").write_bytes(b"\xff\xfe[flow")
    (root / "text").write_text("not what you think\n")
    (root / "broken_json").write_text('{"a": [')
    (root / "loop").symlink_to(root / "loop")
    (root / "dangling").symlink_to(root / "nowhere")
    (root / "zip").write_bytes(b"PK\x03\x04" + bytes(200))
    (root / "other/things/a.txt").write_text("mine")
    (root / "store_json").mkdir()
    (root / "store_json/store.json").write_text("[]")
    arguments = ["extract", "--data-root", root / "data", "--store", root / "store", "--flow", "dis", "--workers", "0"]
    with contextlib.suppress(SystemExit):
        motionbox.cli.main([str(argument) for argument in arguments])
    names = {path.stem if path.suffix == ".toml" else path.name: str(path) for path in root.iterdir()}
    return names | {"missing": str(root / "missing"), "list": str(root / "list.txt"), "boxes": str(root / "boxes.json")}


WRONG_PATHS = [
    *("{missing}", "{loop}", "{dangling}", "{text}/below", "{missing}\udcff", "{missing}\nnewline", "s3://bucket/x"),
    *("{empty_folder}/" + "n" * 300, "/p" * 3000),
]
WRONG_INPUTS = [
    *(
        "{empty}",
        "{garbage}",
        "{text}",
        "{broken_json}",
        "{zip}",
        "/dev/null",
        "{empty_folder}",
        "{other}",
        "{store_json}",
    ),
    *WRONG_PATHS,
]
WRONG_OUTPUTS = ["{text}/below", "{empty_folder}/" + "n" * 300, "/p" * 3000, "gs://bucket/x", "/proc/nothing"]
WRONG_PLACES = ["s3://", "ftp://bucket/x", "s3:///x"]
WRONG_NUMBERS = ["x", "", "-1", "1.5.1", "1e", "0x10", "１２x", "--"]


COMMANDS = [(program, name) for program, group in GROUPS.items() for name in group.list_commands(click.Context(group))]


def wrong_values(name: str, parameter: click.Parameter) -> list[str]:
    """Return values that a parameter of a command must not take."""
    if (name, parameter.name) in ACCEPTED:
        return []
    if isinstance(parameter.type, StorePlace):
        return [*WRONG_PLACES, *(WRONG_OUTPUTS if name == "extract" else WRONG_INPUTS)]
    if isinstance(parameter.type, click.Path):
        if parameter.name in OUTPUTS:
            return WRONG_OUTPUTS
        if (name, parameter.name) in UNREAD:
            return [path for path in WRONG_PATHS if "://" not in path]
        return WRONG_INPUTS
    if isinstance(parameter.type, click.Choice):
        return ["nonsense", "", "-"]
    if isinstance(parameter.type, click.types.IntParamType):
        return WRONG_NUMBERS
    if isinstance(parameter.type, click.types.FloatParamType):
        return [*WRONG_NUMBERS, "nan", "inf", "-inf"]
    return WRONG_TEXTS.get(str(parameter.name), [])


def misuses(program: str, name: str) -> Iterator[list[str]]:
    """Yield wrong command lines, most with one wrong value each."""
    group = GROUPS[program]
    command = group.get_command(click.Context(group), name)
    assert command is not None
    right = CALLS.get((program, name), "").split()
    yield [name, *right, "--nosuch"]
    yield [name, *right, "--nosuch=1"]
    yield [name, *right, "-"]
    yield [name, *right, "surplus", "surplus", "\udcff"]
    if any(parameter.required for parameter in command.params):
        yield [name]
    for parameter in command.params:
        option = max(parameter.opts, key=len)
        for value in wrong_values(name, parameter):
            if isinstance(parameter, click.Argument):
                place = [p.name for p in command.params if isinstance(p, click.Argument)].index(parameter.name)
                yield [name, *right[:place], value, *right[place + 1 :]]
            elif option in right:
                at = right.index(option) + 1
                yield [name, *right[:at], value, *right[at + 1 :]]
            else:
                yield [name, *right, f"{option}={value}"]
        if isinstance(parameter, click.Option) and not parameter.is_flag and option not in right:
            yield [name, *right, option]


def outcome(program: str, words: Sequence[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Run a command here; return its exit code and what it wrote to standard error."""

    def give_up(*_: object) -> None:
        raise TimeoutError(f"no end within {LONGEST_SECONDS} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(LONGEST_SECONDS)
    try:
        with pytest.raises(SystemExit) as stop:
            MAINS[program](list(words))
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    return int(stop.value.code or 0), capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(("program", "name"), COMMANDS)
def test_wrong_arguments_are_one_line(
    program: str, name: str, place: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place["new"])
    lines = list(misuses(program, name))
    assert len(lines) >= 10
    faults = []
    for words in lines:
        filled = [word.format(**place) for word in words]
        try:
            code, told = outcome(program, filled, capsys)
        except BaseException as error:
            faults.append((words, repr(error)))
            continue
        errors = [line for line in told.splitlines() if line.startswith(f"{program}: error: ")]
        if code not in CODES or (code == 2 and (len(errors) != 1 or told.splitlines()[-1] != errors[0])):
            faults.append((words, f"code {code}: {told[-400:]}"))
    assert faults == [], "\n".join(f"{words}: {what}" for words, what in faults)


@pytest.mark.slow
def test_every_option_is_tried() -> None:
    """Where a type does not tell what is wrong, the tables above do."""
    told = (
        StorePlace,
        click.Path,
        click.Choice,
        click.types.IntParamType,
        click.types.FloatParamType,
        click.types.BoolParamType,
    )
    untold = set()
    for group in GROUPS.values():
        for name in group.list_commands(click.Context(group)):
            command = group.get_command(click.Context(group), name)
            assert command is not None
            untold |= {parameter.name for parameter in command.params if not isinstance(parameter.type, told)}
    assert untold - set(WRONG_TEXTS) - FREE_TEXTS == set()


# What a user's shell, cluster or desktop may have set; None takes a variable away.
ENVIRONMENTS: list[dict[str, str | None]] = [
    {"HOME": None},
    {"HOME": "/nowhere"},
    {"LANG": "C", "LC_ALL": "C"},
    {"LC_ALL": "xx_XX.UTF-8"},
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONUTF8": "0", "LC_ALL": "POSIX"},
    {"TERM": "dumb", "COLUMNS": "1"},
    {"COLUMNS": "many", "LINES": "-3"},
    {"NO_COLOR": "1", "FORCE_COLOR": "1"},
    {"MOTIONBOX_DATA": "/nowhere"},
    {"MOTIONBOX_DATA": "/dev/null"},
    {"MOTIONBOX_DATA": "s3://bucket"},
    {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "9"},
    {"CUDA_VISIBLE_DEVICES": "nonsense"},
    {"NUMBA_NUM_THREADS": "1", "NUMBA_CACHE_DIR": "/nowhere"},
    {"XDG_CACHE_HOME": "/dev/null", "XDG_CONFIG_HOME": "/dev/null"},
    {"RAY_ADDRESS": "nonsense:1"},
    {"RAY_TMPDIR": "/nowhere"},
    {"SLURM_PROCID": "x", "SLURM_JOB_ID": "1"},
    {"DISPLAY": ":99"},
]
CLOSED = {"no input": "<&-", "no errors": "2>&-", "no output": ">&-", "a full disk": "> /dev/full", "no folder": ""}


def run_in_shell(
    words: str, environment: dict[str, str | None], redirection: str, *, gone: bool = False
) -> tuple[int, str]:
    """Run a command line in a shell of its own; return its exit code and what it wrote to standard error."""
    given = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    given = {name: value for name, value in (given | environment).items() if value is not None}
    script = f"exec {words} {redirection}"
    if gone:
        script = f'd="$(mktemp -d)"; cd "$d"; rmdir "$d"; {script}'
    done = subprocess.run(
        ["/bin/sh", "-c", script], env=given, capture_output=True, text=True, check=False, errors="replace",
        timeout=LONGEST_SECONDS,
    )  # fmt: skip
    return done.returncode, done.stderr


def command_lines(place: dict[str, str]) -> dict[str, tuple[str, int]]:
    """Return a call of each program that ends well and one that does not, each with its exit code."""
    python = f"{sys.executable} -c"
    motion, train = (f"'from {name}.cli import main; main()'" for name in ("motionbox", "mofo_train"))
    return {
        "status": (f"{python} {motion} status {place['store']}", 0),
        "extract": (f"{python} {motion} extract --workers 0", 2),
        "pretrain": (f"{python} {train} pretrain --store {place['missing']} --out {place['new']}/r", 2),
    }


@pytest.mark.slow
@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=str)
def test_odd_environments_change_nothing_or_are_one_line(
    environment: dict[str, str | None], place: dict[str, str]
) -> None:
    for words, wanted in command_lines(place).values():
        code, told = run_in_shell(words, environment, "")
        assert (code, "Traceback" in told) == (wanted, False), told
        assert len([line for line in told.splitlines() if ": error: " in line]) == (wanted == 2), told


@pytest.mark.slow
@pytest.mark.parametrize("name", CLOSED)
def test_closed_and_full_outputs_are_one_line(name: str, place: dict[str, str]) -> None:
    for words, wanted in command_lines(place).values():
        code, told = run_in_shell(words, {}, CLOSED[name], gone=name == "no folder")
        assert "Traceback" not in told
        assert "Exception ignored" not in told
        assert code == (2 if name == "a full disk" and wanted == 0 else wanted), told
