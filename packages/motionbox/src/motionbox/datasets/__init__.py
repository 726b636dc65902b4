"""Data sets: one module each turns annotation files into a manifest; `synthetic` draws its own videos."""

DATASETS: dict[str, str] = {
    "epic100": "motionbox.datasets.epic100:load_epic100",
    "ssv2": "motionbox.datasets.ssv2:load_ssv2",
    "synthetic": "motionbox.datasets.folder:load_synthetic",
    "folder": "motionbox.datasets.folder:load_folder",
}
"""Name -> `module:function` that reads the annotation files below a data root (a `Path`) into a manifest."""
