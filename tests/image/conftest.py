"""`make test-image` builds the image's root file system and names its folder."""

import os

if not os.environ.get("HUMERUS_IMAGE_ROOT"):
    collect_ignore_glob = ["test_*.py"]
