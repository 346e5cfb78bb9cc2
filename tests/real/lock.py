"""Pin what the releases of chap-core need: requirements.in, resolved in the image that they will run in.

python -m tests.real.lock         the environment of build/out/env.sh must be set
"""

from __future__ import annotations

import json

from tests.real.images import PIP, REAL, WORK, fetch, pip_settings
from tests.sample.images import BASE, run

RESOLVE = (
    "python3 -m venv --without-pip /tmp/venv"
    " && PIP_CONFIG_FILE=/run/pip.conf /tmp/venv/bin/python /run/pip.whl/pip install --quiet"
    " --disable-pip-version-check --dry-run --report - -r /run/requirements.in"
)


def main() -> None:
    """Write requirements.txt: each package with the SHA-256 of the one file that is taken."""
    settings, cert = pip_settings()
    conf = WORK / "pip.conf"
    wheel = fetch(PIP, f"{PIP.replace('==', '-')}-*.whl")
    conf.write_text(settings)
    lent = {conf: "pip.conf", cert: "ca.pem", wheel: "pip.whl", REAL / "requirements.in": "requirements.in"}
    volumes = [word for path, name in lent.items() for word in ("-v", f"{path}:/run/{name}:ro")]
    report = json.loads(run("docker", "run", "--rm", *volumes, BASE, "sh", "-c", RESOLVE))
    conf.unlink()
    lines = []
    for package in report["install"]:
        name, version = package["metadata"]["name"].lower().replace("_", "-"), package["metadata"]["version"]
        if name != "chap-core":
            digest = package["download_info"]["archive_info"]["hashes"]["sha256"]
            lines.append(f"{name}=={version} \\\n    --hash=sha256:{digest}\n")
    (REAL / "requirements.txt").write_text("# Made from requirements.in.\n" + "".join(sorted(lines)))


if __name__ == "__main__":
    main()
