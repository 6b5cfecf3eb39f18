"""Which layers of a manifest are fetched, as what: decided by the manifest alone."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorafleet.api.reasons import Reason
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.artifacts.files import Limits, Wanted
from lorafleet.sources.base import SourceFile
from lorafleet.sources.oci_client import Document
from lorafleet.sources.oci_layout import choose_manifest, files

OCI = "application/vnd.oci.image.manifest.v1+json"
DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
INDEX = "application/vnd.oci.image.index.v1+json"
TAR = "application/vnd.oci.image.layer.v1.tar"
TITLE = "org.opencontainers.image.title"
CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"


def layer(name: str | None = None, kind: str = TAR, size: int = 10, digest: str = "", **more: Any) -> dict[str, Any]:
    annotations = {**({TITLE: name} if name is not None else {}), **more.pop("annotations", {})}
    number = abs(hash((name, kind, size))) % 16**64
    digest = digest or f"sha256:{number:064x}"
    return {"mediaType": kind, "digest": digest, "size": size, "annotations": annotations, **more}


def manifest(*layers: Any, media_type: str = OCI, **more: Any) -> Document:
    return Document({"layers": list(layers), **more}, f"sha256:{'0' * 64}", media_type)


def chosen(*layers: Any, subfolder: str | None = None, wanted: Wanted | None = None) -> list[str]:
    return [file.path for file in listed(*layers, subfolder=subfolder, wanted=wanted)]


def listed(*layers: Any, subfolder: str | None = None, wanted: Wanted | None = None) -> tuple[SourceFile, ...]:
    return files(manifest(*layers), subfolder, wanted or Wanted(), "source r/a:1")


def refused(*layers: Any, **more: Any) -> ArtifactError:
    with pytest.raises(ArtifactError) as caught:
        listed(*layers, **more)
    if caught.value.reason is not Reason.SIZE_LIMIT_EXCEEDED:
        assert "source r/a:1" in caught.value.message
    return caught.value


ADAPTER = (layer(CONFIG), layer(WEIGHTS))


def test_files_with_names_are_the_adapter() -> None:
    found = listed(layer(WEIGHTS), layer(CONFIG), layer("train.py"))
    assert [file.path for file in found] == [CONFIG, WEIGHTS]
    assert found[0].checksum is not None
    assert found[0].identity == found[0].locator == f"sha256:{found[0].checksum.value}" == layer(CONFIG)["digest"]
    assert found[0].size == 10


@pytest.mark.parametrize("prefix", ["", "./", "adapter/", "./a/b/"])
def test_the_folder_of_the_files_is_found(prefix: str) -> None:
    assert chosen(layer(f"{prefix}{CONFIG}"), layer(f"{prefix}{WEIGHTS}"), layer("README.md")) == sorted(
        [CONFIG, WEIGHTS, *(["README.md"] if prefix in ("", "./") else [])]
    )


def test_the_shallowest_folder_wins_and_a_subfolder_chooses() -> None:
    deeper = [layer(f"checkpoint/{name}", size=11) for name in (CONFIG, WEIGHTS)]
    assert {file.size for file in listed(*ADAPTER, *deeper)} == {10}
    assert {file.size for file in listed(*ADAPTER, *deeper, subfolder="checkpoint")} == {11}


def test_two_folders_at_one_depth_are_a_question() -> None:
    layers = [layer(f"{folder}/{name}") for folder in ("one", "two") for name in (CONFIG, WEIGHTS)]
    error = refused(*layers)
    assert error.reason is Reason.SOURCE_INVALID
    assert "one/, two/" in error.message
    assert chosen(*layers, subfolder="two") == [CONFIG, WEIGHTS]


@pytest.mark.parametrize(
    "name", ["../adapter_config.json", "/adapter_config.json", "a/../adapter_config.json", "x\0/adapter_config.json"]
)
def test_a_name_that_leads_elsewhere_never_becomes_a_path(name: str) -> None:
    for found in listed(layer(name), layer(name.replace(CONFIG, WEIGHTS))):
        assert found.path in (CONFIG, WEIGHTS)


@given(st.lists(st.text(max_size=40), max_size=8), st.one_of(st.none(), st.sampled_from(["a", "a/b"])))
def test_whatever_layers_are_called_paths_are_names_of_adapter_files(names: list[str], subfolder: str | None) -> None:
    try:
        found = chosen(*map(layer, names), *ADAPTER, subfolder=subfolder)
    except ArtifactError as error:
        assert error.reason in (Reason.CONFIG_MISSING, Reason.WEIGHTS_MISSING, Reason.SOURCE_INVALID)
        return
    assert all("/" not in name for name in found)
    assert {CONFIG, WEIGHTS} <= set(found) or found[0] == "layer-000"


@pytest.mark.parametrize(
    "kind",
    [
        TAR,
        f"{TAR}+gzip",
        f"{TAR}+zstd",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.kitops.modelkit.model.v1.tar",
        "application/vnd.kitops.modelkit.modelpart.v1.tar+gzip",
        "application/vnd.cncf.model.weight.v1.tar",
        "application/vnd.cncf.model.weight.config.v1.tar+zstd",
    ],
)
def test_layers_without_names_in_tar_are_archives(kind: str) -> None:
    (found,) = listed(layer(kind=kind))
    assert (found.path, found.archive) == ("layer-000", True)


def test_a_folder_that_is_to_be_unpacked_is_an_archive() -> None:
    (found,) = listed(layer("adapter", f"{TAR}+gzip", annotations={"io.deis.oras.content.unpack": "true"}))
    assert found.archive


@pytest.mark.parametrize("name", ["adapter.tar", "adapter.tar.gz", "adapter.tgz", "adapter.tar.zst", "adapter.zip"])
def test_a_file_that_is_an_archive_by_name_is_one(name: str) -> None:
    (found,) = listed(layer(name, "application/octet-stream"), layer("README.md"))
    assert found.archive


def test_files_are_preferred_to_archives_beside_them() -> None:
    assert chosen(*ADAPTER, layer("dataset.tar.gz")) == [CONFIG, WEIGHTS]


def test_datasets_and_code_of_a_model_are_not_fetched() -> None:
    kinds = ["kitops.modelkit.dataset.v1.tar", "kitops.modelkit.code.v1.tar", "cncf.model.dataset.v1.tar"]
    huge = [layer(kind=f"application/vnd.{kind}", size=10**12) for kind in kinds]
    (found,) = listed(*huge, layer(kind="application/vnd.kitops.modelkit.model.v1.tar"))
    assert found.size == 10


def test_the_empty_layer_of_an_artifact_is_nothing() -> None:
    assert chosen(layer(kind="application/vnd.oci.empty.v1+json", size=2), *ADAPTER) == [CONFIG, WEIGHTS]


def test_the_order_of_layers_is_the_order_of_paths() -> None:
    found = listed(*(layer(size=size) for size in range(1, 13)))
    assert [file.size for file in sorted(found, key=lambda file: file.path)] == list(range(1, 13))


def test_pickles_and_signatures_are_chosen_as_everywhere() -> None:
    pickle = (layer(CONFIG), layer("adapter_model.bin"), layer("model.sig"))
    assert refused(*pickle).reason is Reason.PICKLE_REFUSED
    assert chosen(*pickle, wanted=Wanted(pickle=True)) == [CONFIG, "adapter_model.bin"]
    assert chosen(*pickle, wanted=Wanted(pickle=True, signature=True))[-1] == "model.sig"
    assert refused(*ADAPTER, wanted=Wanted(signature=True)).reason is Reason.SIGNATURE_MISSING


@pytest.mark.parametrize(
    ("layers", "limits"),
    [
        ([layer(CONFIG), layer(WEIGHTS, size=1001)], Limits(max_bytes=1000)),
        ([layer(CONFIG, size=101), layer(WEIGHTS)], Limits(max_side_file_bytes=100)),
        ([layer(size=600), layer(size=601)], Limits(max_bytes=1000)),
        ([layer(size=size) for size in range(5)], Limits(max_entries=4)),
    ],
)
def test_limits_hold_before_anything_is_fetched(layers: list[Any], limits: Limits) -> None:
    assert refused(*layers, wanted=Wanted(limits)).reason is Reason.SIZE_LIMIT_EXCEEDED


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"digest": f"sha512:{'a' * 128}"}, "only sha256"),
        ({"digest": "sha256:../../secret"}, "only sha256"),
        ({"digest": f"sha256:{'A' * 64}"}, "only sha256"),
        ({"urls": ["https://elsewhere.example/x"]}, "outside of the registry"),
    ],
)
def test_a_layer_that_cannot_be_fetched_and_checked_is_refused(wrong: dict[str, Any], named: str) -> None:
    for layers in ([layer(CONFIG), layer(WEIGHTS, **wrong)], [layer(**wrong)]):
        error = refused(*layers)
        assert error.reason is Reason.SOURCE_INVALID
        assert named in error.message
    # It matters for what is fetched alone.
    assert chosen(*ADAPTER, layer("train.py", **wrong)) == [CONFIG, WEIGHTS]


@pytest.mark.parametrize(
    "kind",
    [
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    ],
)
def test_foreign_layers_are_refused(kind: str) -> None:
    assert "outside of the registry" in refused(layer(), layer(kind=kind)).message


@pytest.mark.parametrize("kind", ["application/vnd.cncf.helm.chart.content.v1.tar+gzip", "text/plain", ""])
def test_layers_of_other_kinds_are_named(kind: str) -> None:
    error = refused(layer(kind=kind))
    assert error.reason is Reason.SOURCE_INVALID
    assert kind in error.message


def test_the_same_file_twice_is_refused() -> None:
    assert refused(*ADAPTER, layer(WEIGHTS, size=11)).reason is Reason.SOURCE_INVALID


@pytest.mark.parametrize(
    "entry",
    [
        None,
        "layer",
        {},
        {**layer(CONFIG), "size": -1},
        {**layer(CONFIG), "size": True},
        {**layer(CONFIG), "size": "10"},
        {**layer(CONFIG), "digest": None},
        {**layer(CONFIG), "mediaType": 1},
        {**layer(CONFIG), "annotations": []} | {"annotations": ["a"]},
        {**layer(CONFIG), "annotations": {TITLE: 1}},
    ],
)
def test_a_malformed_layer_is_refused(entry: Any) -> None:
    assert refused(entry, *ADAPTER).reason is Reason.SOURCE_INVALID


@pytest.mark.parametrize(
    "document",
    [
        manifest(*ADAPTER, media_type="application/vnd.docker.distribution.manifest.v1+prettyjws"),
        manifest(*ADAPTER, media_type="text/html"),
        manifest(*ADAPTER, manifests=[]),
        Document({}, "", OCI),
        Document({"layers": {}}, "", OCI),
    ],
)
def test_what_is_no_image_manifest_is_refused(document: Document) -> None:
    with pytest.raises(ArtifactError) as caught:
        files(document, None, Wanted(), "source r/a:1")
    assert caught.value.reason is Reason.SOURCE_INVALID


def entry(number: int, os: str = "", architecture: str = "", **more: Any) -> dict[str, Any]:
    platform = {"platform": {"os": os, "architecture": architecture}} if os else {}
    return {**layer(kind=OCI, digest=f"sha256:{number:064x}"), **platform, **more}


def choice(*entries: Any) -> int:
    index = Document({"manifests": list(entries)}, "", INDEX)
    return int(choose_manifest(index, "source r/a:1").removeprefix("sha256:"), 16)


ATTESTATION = entry(9, "unknown", "unknown")
MARKED = {**entry(8), "annotations": {"vnd.docker.reference.type": "attestation-manifest"}}


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([entry(1)], 1),
        ([entry(1, "linux", "arm64")], 1),
        ([entry(1, "linux", "arm64"), ATTESTATION, MARKED], 1),
        ([entry(1, "linux", "arm64"), entry(2, "linux", "amd64"), ATTESTATION], 2),
        ([entry(1), entry(2, "linux", "amd64")], 2),
        ([{**entry(1), "mediaType": DOCKER}], 1),
    ],
)
def test_an_index_is_for_one_manifest(entries: list[Any], expected: int) -> None:
    assert choice(*entries) == expected


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [ATTESTATION],
        [entry(1), entry(2)],
        [entry(1, "linux", "arm64"), entry(2, "windows", "amd64")],
        [entry(1, "linux", "amd64"), entry(2, "linux", "amd64")],
        [{**entry(1), "mediaType": INDEX}],
        [{**entry(1), "digest": f"sha512:{'a' * 128}"}],
        [{**entry(1), "urls": ["https://elsewhere.example"]}],
        [None],
    ],
)
def test_an_index_that_leaves_a_question_is_refused(entries: list[Any]) -> None:
    with pytest.raises(ArtifactError) as caught:
        choice(*entries)
    assert caught.value.reason is Reason.SOURCE_INVALID


def test_an_index_that_is_a_manifest_too_is_refused() -> None:
    with pytest.raises(ArtifactError):
        choose_manifest(Document({"manifests": [entry(1)], "layers": []}, "", INDEX), "source r/a:1")
