"""The commands of docs/trust.md sign so that the policies on the same page accept it."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lorafleet.api.fleet import SpecialistFleetSpec
from lorafleet.artifacts.digest import hash_file
from lorafleet.artifacts.signature import verify
from tests.adapters import adapter

PAGE = (Path(__file__).parents[2] / "docs" / "trust.md").read_text()
COMMANDS = Path(sys.executable).parent


@pytest.mark.skipif(shutil.which("openssl") is None, reason="the page makes keys with openssl")
@pytest.mark.parametrize("heading", ["A key", "A certificate"])
def test_the_page_signs_what_its_policy_accepts(tmp_path: Path, heading: str) -> None:
    section = re.split(r"^#+ ", PAGE.split(f"### {heading}\n")[1], flags=re.MULTILINE)[0]
    (console,) = re.findall(r"```console\n(.*?)```", section, re.DOTALL)
    (block,) = re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)
    folder = adapter(tmp_path / "python-lora")
    said = []
    for line in console.splitlines():
        if line.startswith("$ ") and not line.startswith("$ kubectl "):
            run = subprocess.run(
                line[2:],
                shell=True,
                cwd=tmp_path,
                env={"PATH": f"{COMMANDS}:/usr/local/bin:/usr/bin:/bin", "HOME": str(tmp_path)},
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert run.returncode == 0, run.stderr
            said += run.stdout.splitlines()
    assert [line for line in console.splitlines() if not line.startswith("$ ")] == said
    trust = SpecialistFleetSpec.model_validate(yaml.safe_load(block)["spec"]).verification.signature
    assert trust is not None
    given = tmp_path / trust.config_map_ref.key
    assert f"--from-file={given.name}\n" in console
    files = [hash_file(folder, name) for name in ("adapter_config.json", "adapter_model.safetensors")]
    assert verify((folder / "model.sig").read_bytes(), files, folder, trust, given)
