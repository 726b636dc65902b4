"""Which clips there are: annotation files, lists and folders -> one validated manifest.

In the order of the data: `media` (what is a video, a frame folder, a tar), `tables` (reading annotation files),
`epic100`, `ssv2`, `folder` (one reader for each kind of data set), `lists` (other tools' clip lists), `data_check`
(what should be on disk), `manifest` (the table that everything after this room reads).
"""

DATASETS: dict[str, str] = {
    "epic100": "motionbox.inputs.epic100:load_epic100",
    "ssv2": "motionbox.inputs.ssv2:load_ssv2",
    "synthetic": "motionbox.inputs.folder:load_synthetic",
    "folder": "motionbox.inputs.folder:load_folder",
}
"""Name -> `module:function` that reads the annotation files below a data root (a `Path`) into a manifest."""
