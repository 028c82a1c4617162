"""Fetches an archive and unpacks it: ``unpack.py URL FOLDER``."""

import io
import sys
import tarfile
import urllib.request

url, folder = sys.argv[1:]
with urllib.request.urlopen(url) as answer, tarfile.open(fileobj=io.BytesIO(answer.read())) as archive:  # noqa: S310
    archive.extractall(folder)  # noqa: S202 - the recipe names the archive
