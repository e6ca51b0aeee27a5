"""Build the Lambda's zip, stand in for AWS, read what Terraform would create. Notebook 08 calls it."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from clicklab import Missing, Trouble, servers

FUNCTION = "clickstream-ingest"
LOG_GROUP = f"/aws/lambda/{FUNCTION}"
REGION = "ap-northeast-2"
HANDLER = "lambda_function.lambda_handler"
PYTHON = "3.13"  # of the Lambda runtime; the wheels in the zip are for it
PLATFORM = "aarch64-manylinux2014"  # AWS's arm64 costs a fifth less than x86_64
# What the handler imports, and crc32c: without it kafka-python computes its checksums in Python.
PACKAGES = ("crc32c", "kafka-python", "msgspec")
LARGEST_ZIP_BYTES = 5_000_000
TERRAFORM = servers.ROOT / "lambda_src" / "terraform"


# --- The zip ---------------------------------------------------------------------------------------------------------

def package(output: Path | None = None) -> Path:
    """Build the zip that AWS runs: the handler and its packages, as wheels for arm64. The same inputs give the same bytes.

    Parameters
    ----------
    output : path
        Default: `clickstream-ingest.zip` in the build folder.

    Raises
    ------
    Trouble
        A wheel could not be had, or the zip is larger than 5 MB.
    """
    output = output or servers.build_folder() / f"{FUNCTION}.zip"
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        installed = Path(folder, "packages")
        _install(installed)
        files = {path.relative_to(installed).as_posix(): path for path in installed.rglob("*") if _is_needed(path)}
        source = servers.ROOT / "lambda_src"
        for path in (source / "lambda_function.py", *(source / "clickstream_ingest").glob("*.py")):
            files[path.relative_to(source).as_posix()] = path
        with zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as made:
            for name in sorted(files):
                # Order, date and mode are ours, so the bytes do not depend on when and where this runs: Terraform
                # compares their hash and replaces the function only for a change.
                entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
                entry.compress_type, entry.create_system, entry.external_attr = zipfile.ZIP_DEFLATED, 3, 0o100644 << 16
                made.writestr(entry, files[name].read_bytes())
    if output.stat().st_size > LARGEST_ZIP_BYTES:
        raise Trouble(f"{output.name} has {output.stat().st_size:,} bytes, more than {LARGEST_ZIP_BYTES:,}.",
                      "every cold start downloads it", "look for what is new in it:  python -m zipfile -l " + str(output))
    return output


def digest(file: Path) -> str:
    """SHA-256 of a file as AWS and Terraform show it: base64."""
    return base64.b64encode(hashlib.sha256(file.read_bytes()).digest()).decode()


def _install(target: Path) -> None:
    """Put the packages, as locked and for AWS's processor, into a folder."""
    lock = (servers.ROOT / "requirements.lock").read_text()
    wanted = target.with_name("requirements.txt")
    wanted.write_text("".join(re.search(rf"^{name}==.*?(?=^\S|\Z)", lock, re.M | re.S).group() for name in PACKAGES))
    ran = subprocess.run([sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-deps", "--require-hashes",
                          "--only-binary", ":all:", "--python-platform", PLATFORM, "--python-version", PYTHON,
                          "--target", target, "--requirement", wanted], capture_output=True, text=True)
    if ran.returncode:
        raise Trouble("The Lambda's packages could not be had.", ran.stderr.strip(),
                      "look whether this machine reaches the package index, then  python -m clicklab package")


def _is_needed(path: Path) -> bool:
    """Whether a file of an installed package belongs into the zip: code and licenses, not what the installer noted."""
    parts = PurePosixPath(path).parts
    if not path.is_file() or "bin" in parts or path.suffix in (".pyi", ".h", ".c", ".pyx"):
        return False
    noted = any(part.endswith(".dist-info") for part in parts) and path.name not in ("METADATA",)
    return not noted or "licenses" in parts or path.name.upper().startswith(("LICENSE", "COPYING"))


# --- AWS, and the stand-in -----------------------------------------------------------------------------------------------

@contextlib.contextmanager
def stand_in() -> Iterator[str]:
    """Run moto's server on a free port of 127.0.0.1 for the block, empty at its start; gives its address.

    It keeps what the API calls make, as AWS would. It does not run the function, nor answer on the API's address.
    A thread of this process: nothing is left behind, however this process ends.
    """
    import logging

    try:
        import requests
        from moto.server import ThreadedMotoServer
    except ImportError as absent:
        raise Missing("The stand-in for AWS is not installed.", str(absent), "make prepare-further") from None
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it would print a line for each request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        endpoint = "http://{}:{}".format(*server.get_host_and_port())
        requests.post(f"{endpoint}/moto-api/reset", timeout=10).raise_for_status()
        yield endpoint
    finally:
        server.stop()


def client(service: str, *, endpoint: str | None = None, region: str | None = None):
    """A boto3 client: of a stand-in when its address is given, else of the account that this machine's settings name.

    A stand-in gets made-up credentials, so that a mistake can not reach an account.
    """
    try:
        import boto3
    except ImportError as absent:
        raise Missing("AWS's client is not installed.", str(absent), "make prepare-further") from None
    made_up = {"aws_access_key_id": "stand-in", "aws_secret_access_key": "stand-in"} if endpoint else {}
    return boto3.Session(region_name=region or REGION, **made_up).client(service, endpoint_url=endpoint)


# --- The Terraform files ---------------------------------------------------------------------------------------------------

def configuration(folder: Path = TERRAFORM) -> dict[str, dict]:
    """What the Terraform files declare: each thing's address, as references write it ("var.region", "aws_vpc.clicks") → its body."""
    try:
        import hcl2
    except ImportError as absent:
        raise Missing("The reader of Terraform's language is not installed.", str(absent), "make prepare-further") from None
    declared: dict[str, dict] = {}
    for path in sorted(folder.glob("*.tf")):
        for kind, blocks in _plain(hcl2.loads(path.read_text())).items():
            for block in blocks if kind != "__comments__" else []:
                if kind in ("resource", "data"):
                    [(of, named)] = block.items()
                    [(name, body)] = named.items()
                    declared[f"{'data.' if kind == 'data' else ''}{of}.{name}"] = body
                elif kind == "locals":
                    declared |= {f"local.{name}": {"value": value} for name, value in block.items() if not name.startswith("__")}
                elif kind in ("variable", "output", "provider"):
                    [(name, body)] = block.items()
                    declared[f"{'var' if kind == 'variable' else kind}.{name}"] = body
    return declared


def planned() -> list[dict[str, str]]:
    """The resources that the Terraform files would make, and when: a row each, `resource`, `name`, `made`."""
    rows = []
    for address, body in configuration().items():
        if address.startswith("aws_"):
            condition = str(body.get("count", body.get("for_each", "")))
            made = "always" if not condition else "with msk" if "var.msk" in condition else "with a network or msk"
            rows.append({"resource": address.split(".")[0], "name": address.split(".")[1], "made": made})
    return sorted(rows, key=lambda row: row["made"])


def _plain(value: Any) -> Any:
    """hcl2's reading without the quotation marks that it keeps around strings and labels."""
    if isinstance(value, dict):
        return {_plain(key): _plain(inside) for key, inside in value.items()}
    if isinstance(value, list):
        return [_plain(inside) for inside in value]
    return value[1:-1] if isinstance(value, str) and len(value) > 1 and value[0] == value[-1] == '"' else value
