"""Limit the size of a picture, and the memory that decoding it takes, before it is decoded."""

from trainer.decoding.refusal import refuse

MAX_PIXELS = 100_000_000
MAX_MEMORY = 900_000_000  # bytes; leaves room for the file and the result under 1 GiB


def check_size(height: int, width: int) -> None:
    """Refuse a picture of more than `MAX_PIXELS`, before any of them is decoded."""
    if height * width > MAX_PIXELS:
        refuse(
            "too_large",
            f"expected at most {MAX_PIXELS:,} pixels, the header announces {width} x {height}",
        )


def check_memory(needed: int) -> None:
    """Refuse a picture whose decoding would take more than `MAX_MEMORY` bytes."""
    if needed > MAX_MEMORY:
        refuse(
            "too_large",
            f"expected a picture that decodes within {MAX_MEMORY:,} bytes of memory, "
            f"this one takes up to {needed:,}",
        )
