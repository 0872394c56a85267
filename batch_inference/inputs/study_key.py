"""Name the study of an image, with pseudonyms for the studies of DICOM files."""

import dataclasses
import hashlib
import hmac
import posixpath
from collections.abc import Mapping

from batch_inference.inputs import manifest
from batch_inference.outputs.records import Source, escape_reversibly
from trainer.errors import ConfigError
from trainer.files import mura_paths, study_folders

KEYS = ("auto", "folder", "path", "dicom", "image")
_PUBLIC_KEY = "humerus"
"""The key without a salt. It hides UIDs, but whoever has a list of UIDs can recognise them."""


@dataclasses.dataclass(frozen=True)
class StudyKey:
    """Name the study of an image. An image without the key's value is a study of its own.

    Attributes:
      by: `folder` (the parent folder), `path` (MURA's patientNNNNN/studyK), `dicom` (a pseudonym of
        StudyInstanceUID), `image` (each is its own), the name of a manifest's column as in the
        rows, or `auto`: the manifest's column `study`, else `dicom`, else the place of the file by
        `study_folders.find_study`. `study` is the column that names studies, whatever its name.
      salt: the secret that pseudonyms are made with, or None.
    """

    by: str = "auto"
    salt: str | None = dataclasses.field(default=None, repr=False)

    def __call__(self, source: Source, tags: Mapping[str, str]) -> str:
        """Return the name of an input's study.

        Args:
          source: the input.
          tags: DICOM tags as in `Radiograph.tags`; empty for other files.
        """
        return escape_reversibly(self._find(source, tags) or source.name)

    def rename(self, source: Source, study: str) -> str:
        """Return the name of the study of an input whose earlier row is kept.

        The name changes if the folder has since crossed the number of images of one study. The
        pseudonym of a UID stays: the file's tags are not read again.

        Args:
          source: the input.
          study: the name in the earlier row.
        """
        if source.address:  # the name of its folder is the pseudonym of its study's UID
            return study
        by_place = (
            self(dataclasses.replace(source, is_grouped=is_grouped), {})
            for is_grouped in (True, False)
        )
        is_of_uid = self.by in ("auto", "dicom") and study not in by_place
        return study if is_of_uid else self(source, {})

    def _find(self, source: Source, tags: Mapping[str, str]) -> str:
        uid = tags.get("study_uid")
        if self.by == "folder":
            return posixpath.dirname(source.name) or posixpath.basename(
                posixpath.dirname(source.uri)
            )
        if self.by == "image":
            return ""
        if self.by == "path":
            return mura_paths.find_study(source.name, source.uri)
        if self.by == "dicom":
            return self.pseudonym(uid) if uid else ""
        if self.by != "auto":
            return (
                source.study if self.by == manifest.STUDY_COLUMN else dict(source.carried)[self.by]
            )
        return source.study or (
            self.pseudonym(uid)
            if uid
            else study_folders.find_study(source.name, source.uri, source.is_grouped)
        )

    def pseudonym(self, uid: str) -> str:
        """Return the first 16 hexadecimal digits of the UID's HMAC-SHA256, keyed with the salt."""
        key = (self.salt or _PUBLIC_KEY).encode("utf-8", "surrogateescape")
        return hmac.new(key, uid.encode("utf-8"), hashlib.sha256).hexdigest()[:16]

    def fingerprint_salt(self) -> str | None:
        """Return a digest of a salt, which does not reveal it; None without a salt."""
        return f"hmac-sha256:{self.pseudonym('')}" if self.salt else None


def make_study_key(by: str, salt: str | None, location: str) -> StudyKey:
    """Return the key that the command line names.

    Args:
      by: as `StudyKey.by`.
      salt: as `StudyKey.salt`.
      location: the input, whose columns may be a key where it is a manifest.

    Raises:
      ConfigError: `by` is neither one of `KEYS` nor a column of the manifest, or the salt is empty.
      DataError: the manifest's columns are wrong.
    """
    columns = manifest.read_study_columns(location)
    if by not in (*KEYS, *columns):
        raise ConfigError(
            f"--study_key={by}: expected {', '.join(KEYS)} or a column of the manifest "
            f"({', '.join(columns) or 'there is none'})"
        )
    if salt == "":
        raise ConfigError("--id_salt is empty; give it a secret text, or omit the option")
    if by not in KEYS and columns[by]:
        by = manifest.STUDY_COLUMN
    return StudyKey(by, salt)
