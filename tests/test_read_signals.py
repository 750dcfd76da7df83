"""The signals of a file are listed, and the right one is picked."""

import pytest
from test_read import unpacked  # noqa: F401  (a fixture)

from edxdenoise.errors import FormatError
from edxdenoise.io.read import read_cube
from edxdenoise.io.signals import SignalInfo, list_signals


def test_images_before_the_map_are_passed_over(shared_data):
    first, second = list_signals(shared_data / "bruker_tem_dust_256x256.bcf")
    assert first == SignalInfo(1, "HAADF", "image", (256, 256), "uint16", "")
    assert second.kind == "spectrum image"
    assert second.signal_type == "EDS_TEM"
    assert second.nbytes == 256 * 256 * 2048


def test_listing_parses_no_counts(shared_data, monkeypatch):
    from edxdenoise.io.vendor import bruker, jeol

    monkeypatch.delattr(jeol, "_counts_of")
    monkeypatch.setattr(bruker, "check_loss", None)
    (info,) = list_signals(shared_data / "jeol_tem_64x64.pts")
    assert info.shape == (64, 64, 4096)
    assert info.nbytes == 64 * 64 * 4096
    assert len(list_signals(shared_data / "bruker_sem_dacite_22cpp.bcf")) == 3


@pytest.mark.slow
def test_x_ray_map_is_preferred_to_electron_losses(unpacked):  # noqa: F811
    path = unpacked("velox_eels_eds.zip/example_velox_EELS_EDS.emd")
    infos = list_signals(path)
    assert [info.index for info in infos] == list(range(1, len(infos) + 1))
    maps = [info for info in infos if info.kind == "spectrum image"]
    assert [info.signal_type for info in maps] == ["EELS", "EELS", "EELS", "EDS_TEM"]
    assert {info.shape for info in maps} == {(16, 20, 2048), (16, 20, 4096)}
    assert {info.kind for info in infos} == {"spectrum", "image", "spectrum image"}
    assert read_cube(path, signal=maps[-1].index).counts.shape == (16, 20, 4096)


def test_several_maps_must_be_chosen_from(shared_data):
    path = shared_data / "small" / "phenom.elid"
    with pytest.raises(FormatError, match=r"holds 3 X-ray maps.*--signal.*4 'Image 1, Map 3'.*11"):
        read_cube(path)
    by_number, by_text, by_title = (
        read_cube(path, signal=signal) for signal in (6, "6", "Image 1, Map 6")
    )
    assert by_number.counts.equals(by_title.counts)
    assert by_number.counts.equals(by_text.counts)
    assert by_number.attrs["title"] == "Image 1, Map 6"


@pytest.mark.parametrize(
    ("signal", "words"),
    [(99, "has no signal 99"), ("HAADF", "has no signal 'HAADF'"), (1, "no spectrum image in")],
)
def test_signal_that_cannot_be_read(shared_data, signal, words):
    path = shared_data / "small" / "phenom.elid"
    with pytest.raises(FormatError, match=f"phenom.elid' .*{words}.*Map 3"):
        read_cube(path, signal=signal)


def test_file_without_a_map(unpacked):  # noqa: F811
    path = unpacked("edax_sem_256x231.zip/SEM_EDS_map.spc")
    (info,) = list_signals(path)
    assert (info.kind, info.shape) == ("spectrum", (4096,))
    with pytest.raises(FormatError, match=r"\.spc' holds no X-ray map, only 1 'EDS Spectrum'"):
        read_cube(path)
    with pytest.raises(FormatError, match="pruned"):
        read_cube(unpacked("velox_v11.zip/Test SI 16x16 ReducedData 215 kx.emd"))
