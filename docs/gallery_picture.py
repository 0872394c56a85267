"""Take the second picture of the README: the gallery of a scored folder. Needs chromium.

python -m docs.gallery_picture runs/demo/scored docs/gallery.jpg
"""

import pathlib
import sys
import tempfile
import time

import cv2

from tests.support.browser import chromium

PLACE = 6  # of the image in the queue


def main(scored: str, output: str) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        chromium(pathlib.Path(folder) / "profile") as page,
    ):
        page.open((pathlib.Path(scored) / "gallery.html").resolve(), width=1180, height=720)
        page.wait("document.querySelectorAll('#list *').length > 0")
        page.press(*"j" * PLACE)
        time.sleep(1)  # until the original is there, and with it the button that `b` stands for
        page.press("b")
        time.sleep(1)
        seen = pathlib.Path(folder) / "seen.png"
        page.screenshot(seen)
        cv2.imwrite(output, cv2.imread(str(seen)), [cv2.IMWRITE_JPEG_QUALITY, 85])


if __name__ == "__main__":
    main(*sys.argv[1:])
