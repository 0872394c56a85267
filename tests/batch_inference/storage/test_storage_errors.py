"""How the scorer describes what Google Cloud Storage answers."""

import http

import pytest
import requests
from google.api_core import exceptions
from google.cloud.storage.exceptions import InvalidResponse

from batch_inference.storage import gcs, storage_errors


def of_api(status: int) -> Exception:
    return exceptions.from_http_status(status, "gs://bucket/object")


def of_download(status: int) -> Exception:
    response = requests.Response()
    response.status_code = status
    return InvalidResponse(response, "gs://bucket/object")


@pytest.mark.parametrize("error", [of_api, of_download])
@pytest.mark.parametrize("status", sorted(http.HTTPStatus))
def test_a_known_status_has_its_phrase(error, status):
    if status >= 400:
        expected = f"the storage answers {int(status)} {status.phrase}"
        assert gcs.describe_error(error(status)) == expected


@pytest.mark.parametrize("error", [of_api, of_download])
@pytest.mark.parametrize("status", [418, 419, 444, 460, 499, 509, 520, 527, 599, 999])
def test_a_status_without_a_phrase_does_not_hide_the_answer(error, status):
    with pytest.raises(storage_errors.StorageError) as caught, storage_errors.translate_errors():
        raise error(status)
    assert str(caught.value).startswith(f"the storage answers {status}")
    assert "gs://" not in str(caught.value)


def test_the_last_answer_of_many_attempts_is_told():
    error = exceptions.RetryError("timeout", of_api(503))
    assert "the storage answers 503 Service Unavailable" in gcs.describe_error(error)
    assert gcs.is_temporary(error) and gcs.refuses_all_writes(error)


def test_an_error_of_something_else_is_not_described():
    assert gcs.describe_error(ValueError("x")) is None
