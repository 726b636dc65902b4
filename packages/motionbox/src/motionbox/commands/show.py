"""`motionbox show`: clips of a store as a video, an animation, a still or a contact sheet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from motionbox.command_line import StorePlace
from motionbox.commands import FiniteRange, Place
from motionbox.errors import InputError
from motionbox.storage.paths import ObjectPath, parse_place

if TYPE_CHECKING:
    from motionbox.inputs.data_root import DataRoot
    from motionbox.pictures.footage import View
    from motionbox.scoring.box_metrics import AnnotatedClip
    from motionbox.storage import StorePath
    from motionbox.store import Store

_PANELS = ("boxes", "areas", "flow", "map")


EPILOG = """\b
Examples:
  motionbox show stores/videos kitchen -o kitchen.mp4
  motionbox show stores/videos --random 6 -o sheet.png"""


@click.command(
    help="Draw clips with boxes, motion areas, flow and motion map; the output's suffix decides what is made.",
    epilog=EPILOG,
)
@click.argument("store", type=StorePlace())
@click.argument("clip_ids", nargs=-1, metavar="[CLIP]...")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="A .mp4, .gif or .png file.")
@click.option("--run", help="Run id or preset, where the store has several runs.  [the newest]")
@click.option("--against", multiple=True, help="Also show this store, or this run or preset of the same one.")
@click.option(
    "--boxes", "boxes_path", type=click.Path(path_type=Path), help="Annotated boxes (JSON) to draw as well.  [none]"
)
@click.option(
    "--fps",
    "truth_fps",
    type=FiniteRange(0, min_open=True),
    help="Rate of the annotations.  [the clip's own]",
)
@click.option(
    "--data-root", type=Place(exists=True), help="Where the videos are now, a path or URL.  [as at extraction]"
)
@click.option("--source", default="motion", help="Whose boxes and areas: a name given to `motionbox import-boxes`.")
@click.option("--panels", default=",".join(_PANELS), help="What is shown, in this order.")
@click.option(
    "--at",
    "at_seconds",
    type=FiniteRange(0),
    help="png: one moment, in seconds from the clip's start.  [a contact sheet]",
)
@click.option("--still", is_flag=True, help="png: one moment, where the motion is strongest.")
@click.option("--height", "height_px", default=360, type=click.IntRange(64, 2160), help="Height of a panel.")
@click.option("--max-seconds", default=20.0, type=FiniteRange(0, min_open=True), help="Show so much of each clip.")
@click.option(
    "--random", "num_random", type=click.IntRange(1), help="Take so many clips evenly from the whole store.  [0]"
)
def show(store: StorePath, clip_ids: Sequence[str], out: Path, **options: Any) -> None:
    """Run the command; see the options."""
    from motionbox.extraction.media.fetching import clear_scratch
    from motionbox.pictures.show import contact_sheet, play, still
    from motionbox.video.encode import SUFFIXES, write_file

    if out.suffix.lower() not in SUFFIXES:
        raise InputError(f"output file must end in {', '.join(SUFFIXES)}, got {str(out)!r}")
    views = _views(store, clip_ids, **options)
    try:
        if out.suffix.lower() != ".png":
            fps = max(view.fps for view in views)
            write_file(out, play(views, fps), fps)
        elif options["still"] or options["at_seconds"] is not None:
            write_file(out, _stack([still(view, options["at_seconds"]) for view in views]), 1)
        else:
            write_file(out, iter([contact_sheet(views)]), 1)
    finally:
        clear_scratch()
    click.echo(f"{out}: {len(views)} clip{'s' if len(views) > 1 else ''}")


def _views(
    store: StorePath,
    clip_ids: Sequence[str],
    *,
    run: str | None,
    against: Sequence[str],
    boxes_path: Path | None,
    data_root: DataRoot | None,
    source: str,
    panels: str,
    height_px: int,
    max_seconds: float,
    truth_fps: float | None,
    num_random: int | None,
    **_: Any,
) -> list[View]:
    from motionbox.pictures.footage import View, load_clip
    from motionbox.store import open_store

    names: list[Any] = [name.strip() for name in panels.split(",") if name.strip()]
    if not names or set(names) - set(_PANELS):
        raise InputError(f"--panels must be a list of {', '.join(_PANELS)}, got {panels!r}")
    stores = [open_store(store, run=run), *(_open_other(store, other) for other in against)]
    chosen = list(clip_ids) + (_spread(stores[0], num_random) if num_random else [])
    if not chosen:
        raise InputError(f"name a clip of {store}, for example {_some(stores[0])}, or give --random N")
    labels = _distinct_names(stores, [str(store), *against])
    named = source != "motion" and len(stores) == 1
    truths = _truths(boxes_path, chosen)
    return [
        View(
            [
                load_clip(each, clip, data_root=data_root, name=source if named else name, source=source)
                for each, name in zip(stores, labels, strict=True)
            ],
            truths.get(clip),
            names,
            height_px,
            max_seconds,
            truth_fps,
        )
        for clip in chosen
    ]


def _open_other(store: StorePath, other: str) -> Store:
    """Open what `--against` names: a store, or a run or preset of the first one."""
    from motionbox.store import open_store

    place = parse_place(other)
    is_store = isinstance(place, ObjectPath) or place.is_dir()
    return open_store(place) if is_store else open_store(store, run=other)


def _distinct_names(stores: Sequence[Store], paths: Sequence[str]) -> list[str]:
    """Call stores by their presets; where these are the same, by flow method, and else by path or run."""
    configs = [store.config() for store in stores]
    for names in (
        [config.preset for config in configs],
        [f"{config.preset}, {config.flow.method}" for config in configs],
        [Path(path).name for path in paths],
    ):
        if len(set(names)) == len(names):
            return names
    return [store.run_id for store in stores]


def _spread(store: Store, count: int) -> list[str]:
    names = store.clips().column("clip_id").to_pylist()
    return [names[k * len(names) // min(count, len(names))] for k in range(min(count, len(names)))]


def _some(store: Store) -> str:
    return ", ".join(repr(name) for name in store.clips().column("clip_id").slice(0, 3).to_pylist())


def _truths(path: Path | None, clip_ids: Sequence[str]) -> dict[str, AnnotatedClip]:
    from motionbox.scoring.box_metrics import read_boxes

    if path is None:
        return {}
    found = read_boxes(path)
    if not set(clip_ids) & set(found):
        raise InputError(f"boxes file {path} has none of the clips {', '.join(clip_ids)}; check its clip ids")
    return found


def _stack(pages: Sequence[Any]) -> Iterator[Any]:
    from motionbox.pictures.draw import grid

    yield grid([[page] for page in pages])
