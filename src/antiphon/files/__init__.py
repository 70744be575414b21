"""Files and folders of a user: written whole or not at all, by one process at a time, and nothing foreign is removed.

Every file of a user's is written by one of these: `write_whole` a file, `held_file` one that takes long to make,
`held(...).filled(...)` a folder, `scratch` what nobody is to keep, `keep` what can be made again.
"""

from antiphon.files.cache import cache_folder, keep
from antiphon.files.folders import HeldFolder, check_place, held, held_file, is_free, scratch
from antiphon.files.locks import OURS
from antiphon.files.whole import PARTIAL, clean, digest, reason, write_whole

__all__ = [
    "OURS",
    "PARTIAL",
    "HeldFolder",
    "cache_folder",
    "check_place",
    "clean",
    "digest",
    "held",
    "held_file",
    "is_free",
    "keep",
    "reason",
    "scratch",
    "write_whole",
]
