import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from jlebm.data.formats import ImageSource, read_image_folder, read_image_zip
from jlebm.data.labels import Labels
from jlebm.errors import UserError

KINDS = ["zip", "folder"]


@pytest.fixture(params=KINDS)
def opened(request: pytest.FixtureRequest, make, tmp_path: Path):
    """Write files in one of the two formats and open them."""

    def open_files(files, shape=None) -> ImageSource:
        if request.param == "zip":
            return read_image_zip(make.zip(tmp_path / "x.zip", files), shape)
        return read_image_folder(make.folder(tmp_path / "x", files), shape)

    return open_files


def test_pixels_order_and_labels_survive(opened, make, images, labels) -> None:
    """Breaks if an image moves, changes, or loses its label."""
    source = opened(make.edm(images, labels))
    assert (source.count, source.shape) == (7, (32, 32, 3))
    np.testing.assert_array_equal(source.array(), images.transpose(0, 3, 1, 2))
    assert source.labels is not None
    np.testing.assert_array_equal(source.labels, labels)
    assert [name for name, _ in source] == sorted(name for name, _ in source)


def test_order_is_by_name_whatever_the_order_of_the_files(opened, make, images, labels) -> None:
    """Breaks if images come as the archive or the disk lists them, or labels do not follow their images."""
    files = make.edm(images, labels)
    source = opened(dict(reversed(files.items())))
    np.testing.assert_array_equal(source.array(), images.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(source.labels, labels)


@pytest.mark.parametrize("labelling", [b'{"labels": null}', b"{}", None])
def test_labels_may_be_absent(opened, make, images, labelling) -> None:
    """Breaks if an unlabelled dataset, as EDM writes it, is refused."""
    files = make.edm(images, None)
    del files["dataset.json"]
    source = opened(files if labelling is None else files | {"dataset.json": labelling})
    assert source.labels is None


def test_size_comes_from_the_first_image_where_none_is_asked(opened, make) -> None:
    """Breaks if samples of any size cannot be read, or a second size among them slips through."""
    grey = make.noise(2, 11, 5, 1)
    files = {"a.png": make.png(grey[0]), "b.png": make.png(grey[1])}
    assert opened(files).array().shape == (2, 1, 11, 5)
    with pytest.raises(UserError, match=r"c\.png in .* is 5 x 5 pixels .* must be 11 x 5"):
        opened(files | {"c.png": make.png(grey[0, :5])}).array()


def test_other_files_are_passed_over(opened, make, images) -> None:
    """Breaks if a note beside the images, or what an operating system leaves, is decoded."""
    others = {"README.txt": b"mine", "__MACOSX/._a.png": b"fork", ".hidden.png": b"no"}
    assert opened({"a.png": make.png(images[0])} | others).count == 1


def test_a_file_with_an_image_suffix_must_be_an_image(opened, make, images) -> None:
    """Breaks if a damaged image is skipped, which would shift all those after it."""
    source = opened({"a.png": make.png(images[0]), "b.png": b"not a picture"}, (32, 32, 3))
    with pytest.raises(UserError, match=r"b\.png in .* is not a whole image"):
        source.array()


def test_a_cut_image_names_its_file(opened, make, images) -> None:
    """Breaks if a PNG that is cut inside a sound zip or folder is decoded to grey, or the file is not named."""
    source = opened({"a.png": make.png(images[0]), "b.png": make.png(images[1])[:-500]}, (32, 32, 3))
    with pytest.raises(UserError, match=r"b\.png in .* is not a whole image"):
        source.array()


def test_nothing_to_read(opened) -> None:
    """Breaks if an empty dataset is given instead of a sentence."""
    with pytest.raises(UserError, match="holds no images"):
        opened({"README.txt": b"soon"})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b'{"labels": [["00000/img0', "is not valid JSON"),
        (b"\xff\xfe\xff", "is not valid JSON"),
        (b'{"labels": {"a.png": 1}}', "must be"),
        (b'{"labels": [["00000/img00000000.png", 0.5]]}', "must be"),
        (b"[1, 2]", "must be"),
        (b'{"labels": [["elsewhere.png", 3]]}', "names 'elsewhere.png', which is not there"),
        (b'{"labels": [["00000/img00000000.png", 3]]}', "has 1 labels for 7 images"),
    ],
)
def test_unfit_label_files_are_refused(opened, make, images, text: bytes, sentence: str) -> None:
    """Breaks if labels are guessed where dataset.json is damaged or does not fit the images."""
    with pytest.raises(UserError, match=rf"dataset\.json in .* {sentence}"):
        opened(make.edm(images, None) | {"dataset.json": text})


def test_an_image_labelled_twice_is_refused(opened, make, images, labels) -> None:
    """Breaks if one of two contradicting labels silently wins."""
    files = make.edm(images, labels)
    pairs = json.loads(files["dataset.json"])["labels"]
    files["dataset.json"] = json.dumps({"labels": [*pairs, [pairs[0][0], 0]]}).encode()
    with pytest.raises(UserError, match="has 8 labels for 7 images"):
        opened(files)


@pytest.mark.parametrize("kept", [0, 100, 5000])
def test_a_zip_without_its_end_is_refused(make, images, tmp_path: Path, kept: int) -> None:
    """Breaks if a zip whose download stopped leaves as a traceback."""
    path = make.zip(tmp_path / "x.zip", make.edm(images, None))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match=r"x\.zip is not a whole zip file"):
        read_image_zip(path)


def test_altered_bytes_inside_a_zip_are_refused(make, images, tmp_path: Path) -> None:
    """Breaks if the zip's own checksum of a member is not looked at."""
    path = make.zip(tmp_path / "x.zip", make.edm(images, None))
    data = bytearray(path.read_bytes())
    data[2000] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"img00000000\.png in .*x\.zip cannot be unpacked"):
        read_image_zip(path, (32, 32, 3)).array()


def test_a_missing_zip_and_folder_are_named(tmp_path: Path) -> None:
    """Breaks if a mistyped path of samples leaves as a traceback."""
    with pytest.raises(UserError, match=r"nowhere\.zip"):
        read_image_zip(tmp_path / "nowhere.zip")
    with pytest.raises(UserError, match="nowhere is not a folder"):
        read_image_folder(tmp_path / "nowhere")


@pytest.mark.parametrize("number", ["1" + "0" * 30, "-" + "9" * 25, "9" * 5000])
def test_a_class_number_beyond_64_bits_is_refused(opened, make, images, number: str) -> None:
    """Breaks if numpy's or Python's own limits on numbers leave as theirs."""
    text = '{"labels": [["00000/img00000000.png", NUMBER]]}'.replace("NUMBER", number).encode()
    files = {"00000/img00000000.png": make.png(images[0]), "dataset.json": text}
    with pytest.raises(UserError, match=r"dataset\.json in .* (more than 64 bits|is not valid JSON)"):
        opened(files)


def test_labels_that_are_no_classes_are_left_out_where_none_is_needed(make, images, tmp_path: Path) -> None:
    """Breaks if camera poses or attributes beside faces stop a training that uses no labels."""
    files = make.edm(images, None)
    pairs = [[name, [0.5] * 25] for name in files if name.endswith("png")]
    path = make.zip(tmp_path / "x.zip", files | {"dataset.json": json.dumps({"labels": pairs}).encode()})
    source = read_image_zip(path, labels=Labels.WELCOME)
    assert source.labels is None
    assert source.left_out == {"labels that are not class numbers": 7}
    with pytest.raises(UserError, match="class number"):
        read_image_zip(path)
    assert read_image_zip(path, labels=Labels.UNUSED).count == 7


@pytest.mark.parametrize("packing", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_members_are_read_or_refused_however_they_are_packed(make, images, tmp_path: Path, packing: int) -> None:
    """Breaks if one of the formats of a zip is not read, or its own exception gets out where it is damaged."""
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", packing) as archive:
        for name, data in make.edm(images, None).items():
            archive.writestr(name, data)
        offset = archive.getinfo("00000/img00000003.png").header_offset + 60
    np.testing.assert_array_equal(read_image_zip(path).array(), images.transpose(0, 3, 1, 2))
    data = bytearray(path.read_bytes())
    data[offset : offset + 40] = b"\xff" * 40
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"img00000003\.png in .* cannot be unpacked"):
        read_image_zip(path).array()
