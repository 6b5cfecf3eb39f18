"""Take a published version from the volume.

One rename makes it invisible, then its bytes go. Whether a version may go is not decided here: an engine that still
uses the folder dies when it is gone (vLLM contract, rule 1), so only the controller asks for this.
"""

import errno

from lorafleet.store.fs import FileSystem, remove_tree, volume_error
from lorafleet.store.layout import Layout, parse_served_name


def remove(layout: Layout, served_name: str, fs: FileSystem) -> bool:
    """Remove a version; False when it was not there. Safe to repeat after a crash at any point.

    Raises ArtifactError: UnsafePath for a name that is none, VolumeError.
    """
    adapter, _ = parse_served_name(served_name)
    try:
        return _remove(layout, adapter, served_name, fs)
    except OSError as error:
        raise volume_error(error, f"{served_name} was removed") from error


def sweep_trash(layout: Layout, fs: FileSystem) -> None:
    """Delete what removals left that did not come to their end. Raises OSError."""
    for path in list(layout.trash.iterdir()):
        remove_tree(fs, path)


def _remove(layout: Layout, adapter: str, served_name: str, fs: FileSystem) -> bool:
    parent = layout.serving / adapter
    if parent.is_symlink():
        raise OSError(errno.ELOOP, f"{parent} is a link where a folder is expected")
    doomed = layout.new_trash(served_name.replace("/", "."))
    try:
        fs.rename(layout.serving / served_name, doomed)
    except FileNotFoundError:
        found = False
    else:
        found = True
        fs.sync_folder(parent)
        remove_tree(fs, doomed)
    _remove_empty(layout, adapter, fs)
    return found


def _remove_empty(layout: Layout, adapter: str, fs: FileSystem) -> None:
    try:
        fs.remove_folder(layout.serving / adapter)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST):
            raise
        return
    fs.sync_folder(layout.serving)
