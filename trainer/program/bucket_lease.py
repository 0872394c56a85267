"""Allow one run per folder of a bucket, by a lease that its holder renews and a dead run loses.

The lease is an object in the folder. It is created only where there is none, and renewed, taken
over and deleted only in the generation that was seen: of two runs, the storage lets one succeed.
Ages are measured by the storage's clock, so that the clocks of hosts may differ.
"""

import contextlib
import datetime
import email.utils
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import google.auth.exceptions
import requests.exceptions
from absl import logging
from google.api_core import exceptions
from google.api_core.retry import Retry
from google.cloud.storage import Blob, Bucket, Client
from google.cloud.storage.retry import DEFAULT_RETRY

from trainer.errors import StorageOutageError
from trainer.files import urls

RENEW_SECONDS = 10.0
"""Time between two renewals."""
GIVE_UP_SECONDS = 120.0
"""Time without a successful renewal after which the holder stops: storage that is down for longer
ends a run anyway."""
EXPIRE_SECONDS = 180.0
"""Age at which a lease may be taken over. Its holder has stopped by then."""
POLL_SECONDS = 2.0
"""Time between two looks at a lease that another run holds."""
RETRY_SECONDS = 10.0
"""Time for which one renewal is tried again."""
_TIMEOUT = (5.0, 10.0)
"""Limits on the time to connect and between two bytes."""


class LeaseError(Exception):
    """Another run holds the lease; the message names that run."""


@contextlib.contextmanager
def hold(
    folder: str,
    file_name: str,
    holder: Mapping[str, Any],
    describe: Callable[[str], str],
    when_lost: Callable[[str], None],
    make_client: Callable[[], Client],
) -> Iterator[None]:
    """Hold the lease of a folder during the block.

    Where no lease can be written the block runs without one: whatever it writes first fails for the
    same reason, and says so.

    Args:
      folder: `gs://` address.
      file_name: name of the lease in the folder.
      holder: describes this run, of JSON types.
      describe: returns the words for the holder that a lease contains.
      when_lost: called in another thread, with a reason, once this run holds the lease no longer.
      make_client: returns the client of the storage.

    Raises:
      LeaseError: another run holds the lease.
      StorageOutageError: the storage does not answer.
    """
    try:
        lease = _Lease(make_client(), f"{folder}/{file_name}", holder, describe)
        lease.acquire()
    except (
        exceptions.RetryError,
        exceptions.ServerError,
        exceptions.TooManyRequests,
        google.auth.exceptions.TransportError,
        requests.exceptions.RequestException,
    ) as error:
        raise StorageOutageError(
            f"{folder} cannot be written ({_describe_outage(error)}); when that is over, start the"
            " same command again"
        ) from error
    except exceptions.GoogleAPICallError:
        yield
        return
    except google.auth.exceptions.GoogleAuthError as error:
        # TensorFlow looks for credentials by itself, and may have others.
        logging.warning("%s is not locked against other runs: %s", folder, error)
        yield
        return
    over = threading.Event()
    keeper = threading.Thread(target=_keep, args=(lease, over, when_lost), daemon=True)
    keeper.start()
    try:
        yield
    finally:
        over.set()
        keeper.join()
        lease.release()


def _keep(lease: "_Lease", over: threading.Event, when_lost: Callable[[str], None]) -> None:
    """Renew a lease until the run is over."""
    renewed = time.monotonic()
    while not over.wait(RENEW_SECONDS):
        start = time.monotonic()
        try:
            lease.renew()
            renewed = start
        except LeaseError as error:
            when_lost(f"is being written by {error}, which took it over from this run")
            return
        except Exception as error:
            # No answer, or a refusal that may pass, as of rights that are being changed.
            logging.warning("the lease could not be renewed (%s)", type(error).__name__)
            if time.monotonic() - renewed > GIVE_UP_SECONDS:
                when_lost(
                    f"could not be reached for {GIVE_UP_SECONDS:.0f} seconds, after which another"
                    " run may take it over"
                )
                return


def _retry_briefly() -> Retry:
    return DEFAULT_RETRY.with_timeout(RETRY_SECONDS)


class _Lease:
    """The object that says who writes to a folder."""

    def __init__(
        self, client: Client, uri: str, holder: Mapping[str, Any], describe: Callable[[str], str]
    ):
        bucket, _, self._name = urls.split_url(uri)[1].partition("/")
        self._bucket: Bucket = client.bucket(bucket)
        self._describe = describe
        # A process id and a host's name may come again.
        self._content = json.dumps({**holder, "id": uuid.uuid4().hex})
        self._generation = 0

    def acquire(self) -> None:
        """Create the lease; take over one that its holder has not renewed for too long.

        Raises:
          LeaseError: another run holds it and renews it.
        """
        seen = replaceable = 0
        while True:
            try:
                self._write(replaceable, DEFAULT_RETRY)
                return
            except exceptions.PreconditionFailed as error:
                now = _read_clock(error)
            replaceable = 0
            if (found := self._read(DEFAULT_RETRY)) is None:
                continue  # It was released in between.
            blob, content = found
            if content == self._content:  # The answer to the successful attempt was lost.
                self._generation = blob.generation
                return
            if seen and blob.generation != seen:
                raise LeaseError(self._describe(content))
            if not seen:
                logging.info("checking whether %s is alive", self._describe(content))
            seen = blob.generation
            if (now - blob.updated).total_seconds() > EXPIRE_SECONDS:
                replaceable = seen
            else:
                time.sleep(POLL_SECONDS)

    def renew(self) -> None:
        """Copy the lease onto itself, which makes it young.

        An upload would draw its boundary from Python's generator of random numbers, which belongs
        to all threads: Keras, which draws from it, would get other initial weights.

        Raises:
          LeaseError: it is held by another run, or gone.
        """
        blob = self._bucket.blob(self._name)
        try:
            blob.rewrite(
                blob, if_generation_match=self._generation, timeout=_TIMEOUT, retry=_retry_briefly()
            )
            self._generation = blob.generation
        except (exceptions.PreconditionFailed, exceptions.NotFound):
            found = self._read(_retry_briefly())
            if found is None:
                raise LeaseError("another run") from None
            blob, content = found
            if content != self._content:
                raise LeaseError(self._describe(content)) from None
            self._generation = blob.generation  # The answer to the last renewal was lost.

    def release(self) -> None:
        """Delete the lease, so that the next run need not wait."""
        try:
            self._delete()
        except Exception as error:
            logging.warning(
                "the lease could not be deleted (%s); it expires by itself", type(error).__name__
            )

    def _delete(self) -> None:
        """Delete the lease if this run holds it."""
        while (found := self._read(_retry_briefly())) and found[1] == self._content:
            # If this fails, an attempt whose answer was lost has deleted it.
            with contextlib.suppress(exceptions.PreconditionFailed, exceptions.NotFound):
                found[0].delete(
                    if_generation_match=found[0].generation,
                    timeout=_TIMEOUT,
                    retry=_retry_briefly(),
                )

    def _write(self, generation: int, retry: Retry) -> None:
        blob = self._bucket.blob(self._name)
        blob.upload_from_string(
            self._content,
            "application/json",
            if_generation_match=generation,
            timeout=_TIMEOUT,
            retry=retry,
        )
        self._generation = blob.generation

    def _read(self, retry: Retry) -> tuple[Blob, str] | None:
        """Return the lease and its content; None where there is none or it has just changed."""
        blob = self._bucket.get_blob(self._name, timeout=_TIMEOUT, retry=retry)
        if blob is None:
            return None
        try:
            content = blob.download_as_bytes(
                if_generation_match=blob.generation, timeout=_TIMEOUT, retry=retry
            )
        except (exceptions.NotFound, exceptions.PreconditionFailed):
            return None
        return blob, content.decode("utf-8", "replace")


def _describe_outage(error: Exception) -> str:
    cause = error.cause if isinstance(error, exceptions.RetryError) else error
    response = getattr(cause, "response", None)
    # A response that is an error counts as false.
    if response is None:
        return "no connection, or a broken one"
    return f"the storage answers {response.status_code} {response.reason}"


def _read_clock(error: exceptions.GoogleAPICallError) -> datetime.datetime:
    """Return the storage's time, which comes with each of its answers."""
    return email.utils.parsedate_to_datetime(error.response.headers["Date"])
