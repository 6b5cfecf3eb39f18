"""What ``lorafleet inspect`` is asked, made of the options on its command line. Nothing of the adapter is read here."""

import json
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorafleet.api.model import quantity
from lorafleet.api.sources import Source as SourceSpec
from lorafleet.api.verification import CertificateTrust, ConfigMapKeyRef, SignatureTrust, SigstoreTrust
from lorafleet.artifacts.check import Expectations
from lorafleet.artifacts.files import Limits, Wanted, is_adapter_file
from lorafleet.cli.address import Options, Unusable, parse
from lorafleet.cli.local import mode_of, open_local
from lorafleet.sources import Place, Source, open_source
from lorafleet.store.proof import Trust

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_VERSION = re.compile(r"v?[0-9]+\.[0-9]+[A-Za-z0-9.+_-]*")
_OBJECT_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_CONFIG_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Question:
    """What to inspect, and what for. ``source``: a source, or a path of this machine.

    ``root``: where links of a local folder may lead. ``subfolder``: the adapter's folder in an archive. ``secret``: the
    folder of the keys of the source's Secret. ``digest``: what the files must have. ``max_loras``: how many
    slots an engine has.
    """

    source: SourceSpec | Path
    expectations: Expectations
    root: Path | None = None
    subfolder: str | None = None
    secret: Path | None = None
    pickle: bool = False
    digest: str | None = None
    trust: Trust | None = None
    max_loras: int | None = None

    @property
    def wanted(self) -> Wanted:
        """Which files to fetch."""
        return Wanted(self.expectations.limits, self.pickle, self.trust is not None)

    def open(self, wanted: Wanted) -> Source:
        """The source. Raises ArtifactError."""
        if isinstance(self.source, Path):
            return open_local(self.source, self.root, wanted)
        return open_source(self.source, Place(secret=self.secret), wanted)

    @property
    def not_asked(self) -> dict[str, str]:
        """The checks that have nothing to compare the adapter with, and why."""
        given = {
            "digest": (self.digest, "--digest"),
            "signature": (self.trust, "--public-key, --certificate or --trust-config"),
            "base model": (self.expectations.base_models or None, "--base-model"),
            "rank": (self.expectations.max_rank, "--max-lora-rank"),
            "engine version": (self.expectations.engine_version, "--engine-version"),
            "shapes": (self.expectations.base_config, "--base-config"),
        }
        return {name: f"no {option} was given" for name, (value, option) in given.items() if value is None}


def question(
    address: str,
    *,
    base_models: Sequence[str] = (),
    base_config: Path | None = None,
    max_lora_rank: int | None = None,
    max_loras: int | None = None,
    engine_version: str | None = None,
    tensor_parallel: int = 1,
    max_size: str = "64Gi",
    allow_pickle: bool = False,
    digest: str | None = None,
    public_key: Path | None = None,
    certificate: Path | None = None,
    trust_config: Path | None = None,
    identity: str | None = None,
    issuer: str | None = None,
    secret: Path | None = None,
    root: Path | None = None,
    subfolder: str | None = None,
    endpoint: str | None = None,
    region: str | None = None,
    plain_http: bool | None = None,
) -> Question:
    """The question of a command line. Raises Unusable."""
    source = _source(address, Options(subfolder, endpoint, region, plain_http or None, _secret_name(secret)))
    if root is not None and not isinstance(source, Path):
        raise Unusable("--root is given for a source that is not on this machine; leave it out")
    if digest is not None and not _DIGEST.fullmatch(digest):
        raise Unusable("--digest is no digest; expected sha256:<64 hex digits>, as `lorafleet inspect` prints it")
    if engine_version is not None and not _VERSION.fullmatch(engine_version):
        raise Unusable("--engine-version is no version of vLLM; expected one such as 0.32.0")
    try:
        limits = Limits(max_bytes=quantity(max_size))
    except ValueError as error:
        raise Unusable(f"--max-size cannot be used: {error}") from None
    expectations = Expectations(
        tuple(base_models),
        max_lora_rank,
        engine_version,
        limits,
        _base_config(base_config),
        tensor_parallel,
    )
    return Question(
        source=source,
        expectations=expectations,
        root=root,
        subfolder=subfolder,
        secret=secret,
        pickle=allow_pickle,
        digest=digest,
        trust=_trust(public_key, certificate, trust_config, identity, issuer),
        max_loras=max_loras,
    )


def _source(address: str, options: Options) -> SourceSpec | Path:
    source = parse(address, options)
    if source is not None:
        return source
    path = Path(address)
    options.only("a path", "subfolder")
    mode = mode_of(path)
    if stat.S_ISDIR(mode) and options.subfolder:
        raise Unusable("--subfolder is given for a folder; name the adapter's folder itself")
    if stat.S_ISREG(mode) and is_adapter_file(path.name):
        raise Unusable(f"{path} is one file of an adapter; expected its folder: inspect {path.parent}")
    return path


def _secret_name(folder: Path | None) -> str | None:
    """The Secret's name for messages and the entry: that of the folder, where it can be one."""
    if folder is None:
        return None
    if not stat.S_ISDIR(mode_of(folder)):
        raise Unusable(f"--secret {folder} is no folder; expected one with a file for each key of the source's Secret")
    name = folder.resolve().name
    return name if _OBJECT_NAME.fullmatch(name) else "credentials"


def _trust(
    public_key: Path | None,
    certificate: Path | None,
    trust_config: Path | None,
    identity: str | None,
    issuer: str | None,
) -> Trust | None:
    """Whose signature counts, in the words of a fleet's spec; the ConfigMap there is the file here."""
    given = {"--public-key": public_key, "--certificate": certificate, "--trust-config": trust_config}
    files = {option: file for option, file in given.items() if file is not None}
    if len(files) > 1:
        raise Unusable(f"{' and '.join(files)} are given; expected one of them: whose signature counts is one rule")
    takes = {"--identity": (identity, (certificate, trust_config)), "--issuer": (issuer, (trust_config,))}
    for option, (value, wanted_by) in takes.items():
        wanted = any(file is not None for file in wanted_by)
        if wanted and not value:
            raise Unusable(f"{next(iter(files))} is given without {option}; expected both: say who must have signed")
        if value and not wanted:
            raise Unusable(f"{option} is given without what it goes with; add --certificate or --trust-config")
    if not files:
        return None
    (option, file) = next(iter(files.items()))
    if not stat.S_ISREG(mode_of(file)):
        raise Unusable(f"{option} {file} is no file; expected the key, the authorities or the trust root")
    here = ConfigMapKeyRef(name="local", key=re.sub(r"[^-._a-zA-Z0-9]", "_", file.name)[:253])
    if public_key is not None:
        return Trust(SignatureTrust(public_key=here), file)
    if certificate is not None:
        found = CertificateTrust(authorities=here, identity=identity or "")
        return Trust(SignatureTrust(certificate=found), file)
    sigstore = SigstoreTrust(identity=identity or "", issuer=issuer or "", trust_config=here)
    return Trust(SignatureTrust(sigstore=sigstore), file)


def _base_config(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            data = file.read(_CONFIG_BYTES)
        # As leniently as the sync Job reads it.
        found = json.loads(data)
    except OSError as error:
        raise _no_config(path, f"cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        raise _no_config(path, "is no valid JSON") from None
    if not isinstance(found, dict):
        raise _no_config(path, "is no JSON object")
    return found


def _no_config(path: Path, found: str) -> Unusable:
    return Unusable(f"--base-config {path} {found}; expected the base model's config.json: name that file")
