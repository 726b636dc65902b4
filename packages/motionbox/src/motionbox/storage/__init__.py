"""Where a store's bytes lie: on a file system or in object storage, behind one interface.

`paths` has the names: a place is a `Path` or an `ObjectPath` (`s3://`, `gs://`, `az://`), and both are joined, listed
and read in the same words. `interface` says what else can be asked of a place, whichever it is; `posix` answers for
file systems, `objects` for buckets, through `client`, which is all that knows of obstore. `lease` is the lock of a
store in a bucket, `local_copies` gives files to map into memory, `files` the bytes and digests of files and their safe
writing. `reading` lists and fetches the objects of a data set, `local_cache` keeps what was fetched within a bound.
`failpoints` are the named places where tests make writing fail.
"""

from motionbox.storage.interface import Storage, storage_of
from motionbox.storage.paths import ObjectPath, StorePath, parse_place

__all__ = ["ObjectPath", "Storage", "StorePath", "parse_place", "storage_of"]
