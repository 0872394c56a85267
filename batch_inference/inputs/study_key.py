"""Which study an image belongs to, and pseudonyms for the studies of DICOM files."""

import dataclasses
import hashlib
import hmac
import posixpath
import re
from collections.abc import Mapping

from batch_inference.inputs import manifest
from batch_inference.outputs.records import Source, printable
from trainer.errors import ConfigError

KEYS = ("auto", "folder", "path", "dicom")
# Without a salt, UIDs are hashed under this key: unreadable, but whoever holds a list of UIDs can find them again.
_PUBLIC_KEY = "humerus"
_MURA_STUDY = re.compile(r"(?:.*/)?patient\d+/study[^/]*(?=/)")


@dataclasses.dataclass(frozen=True)
class StudyKey:
    """Names the study of an image. Where the asked key says nothing of an image, that image is a study of its own.

    Attributes:
      by: `folder` (the parent folder), `path` (MURA's patientNNNNN/studyK), `dicom` (a pseudonym of StudyInstanceUID), the name of
        a manifest's column as the rows have it, or `auto`: the manifest's column `study`, else `dicom`, else `path`, else `folder`, but for files
        that lie in the root of the input itself: those are studies of their own.
      salt: the secret that pseudonyms are made with.
    """

    by: str = "auto"
    salt: str | None = dataclasses.field(default=None, repr=False)

    def __call__(self, source: Source, tags: Mapping[str, str]) -> str:
        """The study of an input, whose DICOM tags (if it has any) are those of `Radiograph.tags`."""
        return printable(self._named(source, tags) or source.name)

    def _named(self, source: Source, tags: Mapping[str, str]) -> str:
        uid = tags.get("study_uid")
        if self.by == "folder":
            return posixpath.dirname(source.name) or posixpath.basename(
                posixpath.dirname(source.uri)
            )
        if self.by == "path":
            return _mura(source)
        if self.by == "dicom":
            return self.pseudonym(uid) if uid else ""
        if self.by != "auto":
            return (
                source.study if self.by == manifest.STUDY_COLUMN else dict(source.carried)[self.by]
            )
        return source.study or (
            self.pseudonym(uid) if uid else _mura(source) or posixpath.dirname(source.name)
        )

    def pseudonym(self, uid: str) -> str:
        """16 hexadecimal digits: the start of HMAC-SHA256 of the UID, keyed with the salt in UTF-8."""
        key = (self.salt or _PUBLIC_KEY).encode("utf-8", "surrogateescape")
        return hmac.new(key, uid.encode("utf-8"), hashlib.sha256).hexdigest()[:16]

    def mark_of_salt(self) -> str | None:
        """What tells that two runs had the same salt, for the record of a run; None without a salt. It can't be turned back."""
        return f"hmac-sha256:{self.pseudonym('')}" if self.salt else None


def make_study_key(by: str, salt: str | None, location: str) -> StudyKey:
    """The key that the command line asks for.

    Raises:
      ConfigError: neither one of `KEYS` nor a column of the manifest, or an empty salt.
      DataError: the manifest's columns are wrong.
    """
    columns = manifest.read_study_columns(location)
    if by not in (*KEYS, *columns):
        raise ConfigError(
            f"--study_key={by}: expected {', '.join(KEYS)} or a column of the manifest ({', '.join(columns) or 'there is none'})"
        )
    if salt == "":
        raise ConfigError("--id_salt is empty; give it a secret text, or leave the option out")
    return StudyKey(by, salt)


def _mura(source: Source) -> str:
    """The path up to MURA's study folder; below the root of the input, or wherever the root lies inside of a patient's folder."""
    match = _MURA_STUDY.match(source.name)
    if match:
        return match[0]
    inside = _MURA_STUDY.match(source.uri)
    return "/".join(inside[0].split("/")[-2:]) if inside else ""
