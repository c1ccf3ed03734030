import logging
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors

from segcontext.data.dataset import Dataset, list_files, read_image
from segcontext.errors import DatasetNotFound, LabelError, RecipeError, SampleError

RED, GREEN, BLUE = (200, 0, 0), (0, 200, 0), (0, 0, 200)


class Three(Dataset):
    name = "three"
    classes = ("a", "b", "c")
    palette = (RED, GREEN, BLUE)
    splits = ("train", "bare")

    def list_items(self):
        return self.pairs("images", "masks" if self.split == "train" else None)


class Coloured(Three):
    colours = {RED: 0, GREEN: 1, BLUE: 2, (0, 0, 0): 255}  # noqa: RUF012


class Shifted(Three):
    expected_counts = {"train": 9}  # noqa: RUF012

    def label_map(self):
        return {0: 255, 10: 0, 20: 1, 30: 2}


def save_image(path, size=(6, 4), mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = size[1], size[0]
    ramp = np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)
    Image.fromarray(ramp).convert(mode).save(path, **options)
    return ramp


def save_mask(path, values, dtype=np.uint8):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(values, dtype)).save(path)


@pytest.fixture
def root(tmp_path):
    save_image(tmp_path / "images" / "one.png")
    save_mask(tmp_path / "masks" / "one.png", np.arange(24).reshape(4, 6) % 3)
    return tmp_path


def test_sample_has_the_types_and_values_of_the_files(root):
    ramp = save_image(root / "images" / "one.png")
    data = Three(root)
    sample = data[0]
    assert len(data) == 1
    assert isinstance(sample.image, tv_tensors.Image)
    assert isinstance(sample.mask, tv_tensors.Mask)
    assert sample.image.dtype == sample.mask.dtype == torch.uint8
    assert np.array_equal(sample.image.permute(1, 2, 0).numpy(), ramp)
    assert sample.mask.tolist() == (np.arange(24).reshape(4, 6) % 3).tolist()
    assert sample.name == "one"
    assert data[-1].name == "one"
    assert torch.equal(data.read_mask(0), sample.mask)


def test_reading_past_the_end_stops_iteration(root):
    assert len(list(Three(root))) == 1


def test_unlabelled_split_needs_no_masks(root):
    (root / "masks" / "one.png").unlink()
    data = Three(root, "bare")
    assert data[0].mask is None
    assert data.read_mask(0) is None


def test_names_follow_nested_folders_and_skip_hidden_files(root):
    save_image(root / "images" / "town" / "x.y.JPG", format="JPEG")
    save_mask(root / "masks" / "town" / "x.y.png", np.zeros((4, 6)))
    (root / "images" / "._one.png").write_bytes(b"resource fork")
    (root / "images" / ".cache").mkdir()
    save_image(root / "images" / ".cache" / "z.png")
    (root / "images" / "notes.md").write_text("not an image")
    assert [item.name for item in Three(root).items] == ["one", "town/x.y"]
    assert Three(root)[1].image.shape == (3, 4, 6)


def test_pickled_copy_reads_the_same(root):
    copy = pickle.loads(pickle.dumps(Three(root)))
    assert torch.equal(copy[0].image, Three(root)[0].image)
    assert copy.items == Three(root).items


def test_exif_orientation_turns_the_image(root):
    exif = Image.Exif()
    exif[0x0112] = 6
    ramp = save_image(root / "images" / "one.png", exif=exif)
    image = read_image(root / "images" / "one.png")
    # Orientation 6: the camera was turned, and the picture has to be turned clockwise to stand upright.
    assert np.array_equal(image.permute(1, 2, 0).numpy(), np.rot90(ramp, -1))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1", "LA"])
def test_every_kind_of_image_becomes_rgb(tmp_path, mode):
    save_image(tmp_path / "a.png", mode=mode)
    assert read_image(tmp_path / "a.png").shape == (3, 4, 6)


def test_palette_image_with_transparency_reads_without_a_warning(tmp_path):
    image = Image.new("P", (3, 2), 1)
    image.putpalette([9, 9, 9, 50, 60, 70])
    image.save(tmp_path / "a.png", transparency=bytes([0, 128]))
    assert read_image(tmp_path / "a.png")[:, 0, 0].tolist() == [50, 60, 70]


def test_sixteen_bit_image_keeps_its_upper_bits(tmp_path):
    save_mask(tmp_path / "a.png", [[0, 256, 65535]], np.uint16)
    assert read_image(tmp_path / "a.png")[0].tolist() == [[0, 1, 255]]


def test_palette_mask_holds_its_indices(root):
    mask = Image.fromarray(np.array([[0, 1, 2, 255, 1, 0]] * 4, np.uint8))
    mask.putpalette(list(range(256)) * 3)
    mask.save(root / "masks" / "one.png")
    with Image.open(root / "masks" / "one.png") as saved:
        assert saved.mode == "P"
    assert Three(root)[0].mask[0].tolist() == [0, 1, 2, 255, 1, 0]


def test_sixteen_bit_mask_holds_its_values(root):
    save_mask(root / "masks" / "one.png", [[0, 1, 2, 255, 1, 0]] * 4, np.uint16)
    assert Three(root)[0].mask[0].tolist() == [0, 1, 2, 255, 1, 0]


def test_one_bit_mask_holds_zero_and_one(root):
    Image.fromarray(np.array([[0, 255] * 3] * 4, np.uint8)).convert("1").save(root / "masks" / "one.png")
    assert Three(root)[0].mask[0].tolist() == [0, 1] * 3


def test_label_map_translates(root):
    save_mask(root / "masks" / "one.png", [[0, 10, 20, 30, 10, 0]] * 4)
    assert Shifted(root)[0].mask[0].tolist() == [255, 0, 1, 2, 0, 255]


def test_colours_decode_masks(root):
    save_mask(root / "masks" / "one.png", [[RED, GREEN, BLUE, (0, 0, 0), RED, RED]] * 4)
    assert Coloured(root)[0].mask[0].tolist() == [0, 1, 2, 255, 0, 0]


def test_unknown_colour_is_refused(root):
    save_mask(root / "masks" / "one.png", [[RED, GREEN, BLUE, (1, 2, 3), RED, RED]] * 4)
    with pytest.raises(LabelError, match=r"one\.png holds 4 pixels of colours that are no class, such as \(1, 2, 3\)"):
        Coloured(root)[0]


def test_colour_mask_without_colours_is_refused(root):
    save_mask(root / "masks" / "one.png", [[RED] * 6] * 4)
    with pytest.raises(SampleError, match=r"one\.png stores colours \(mode RGB\).*which colour is which class"):
        Three(root)[0]
    save_mask(root / "masks" / "one.png", [[(1, 1, 1)] * 6] * 4)
    with pytest.raises(SampleError, match="channels are all equal"):
        Three(root)[0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0, 1, 2, 7, 7, 9], r"7 \(8 pixels\), 9 \(4 pixels\). Expected 0..2 for the 3 classes and 255 for void"),
        ([1, 2, 3, 1, 2, 3], r"3 \(8 pixels\).*start at 1"),
    ],
)
def test_label_that_is_no_class_is_named_with_its_count(root, values, message):
    save_mask(root / "masks" / "one.png", [values] * 4)
    with pytest.raises(LabelError, match=message) as caught:
        Three(root)[0]
    assert str(root / "masks" / "one.png") in str(caught.value)


def test_label_above_eight_bits_is_named(root):
    save_mask(root / "masks" / "one.png", [[0, 1, 2, 300, 1, 0]] * 4, np.uint16)
    with pytest.raises(LabelError, match=r"300 \(4 pixels\)"):
        Three(root)[0]


def test_mask_that_is_a_picture_is_suspected(root):
    save_mask(root / "masks" / "one.png", np.arange(24).reshape(4, 6) * 10)
    with pytest.raises(LabelError, match="look like a picture"):
        Three(root)[0]


def test_binary_mask_with_other_values_is_suspected(tmp_path):
    class Two(Three):
        classes, palette = ("a", "b"), (RED, GREEN)

    save_image(tmp_path / "images" / "one.png")
    save_mask(tmp_path / "masks" / "one.png", [[0, 128] * 3] * 4)
    with pytest.raises(LabelError, match="binary with values 0 and 128: store 0 and 1"):
        Two(tmp_path)[0]


def test_mask_of_another_size_is_refused_with_both_sizes(root):
    save_mask(root / "masks" / "one.png", np.zeros((5, 7)))
    with pytest.raises(SampleError, match=r"masks/one\.png is 7×5 pixels, but its image .*images/one\.png is 6×4"):
        Three(root)[0]


@pytest.mark.parametrize("folder", ["images", "masks"])
def test_truncated_file_is_named(root, folder):
    path = root / folder / "one.png"
    save_image(path, size=(60, 40), mode="RGB" if folder == "images" else "L")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(SampleError, match=rf"{folder}/one\.png cannot be read as an image.*truncated"):
        Three(root)[0]


def test_truncated_jpeg_is_named(root):
    (root / "images" / "one.png").unlink()
    path = root / "images" / "one.jpg"
    save_image(path, size=(64, 64))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(SampleError, match=r"one\.jpg cannot be read"):
        Three(root)[0]


def test_file_that_is_no_image_is_named(root):
    (root / "images" / "one.png").write_text("hello")
    with pytest.raises(SampleError, match=r"one\.png cannot be read"):
        Three(root)[0]


def test_file_that_went_away_is_named(root):
    data = Three(root)
    (root / "images" / "one.png").unlink()
    with pytest.raises(SampleError, match=r"one\.png does not exist"):
        data[0]


def test_images_without_mask_are_found_on_opening(root):
    for name in ("two", "three", "four"):
        save_image(root / "images" / f"{name}.png")
    with pytest.raises(
        SampleError, match=r"3 of 4 images .* have no mask: images/four\.png.*Expected .*masks/four\.png"
    ):
        Three(root)


def test_lossy_mask_is_not_taken(root):
    save_image(root / "images" / "two.png")
    save_image(root / "masks" / "two.jpg", mode="L")
    with pytest.raises(SampleError, match="lossy"):
        Three(root)


class Suffixed(Three):
    def list_items(self):
        images = list_files(self.root, "images", (".png",), ending="_photo")
        return self.with_masks(images, "masks", ending="_mask")


def test_endings_are_no_part_of_the_names(tmp_path, caplog):
    for name in ("a_photo", "a_depth", "b_photo"):
        save_image(tmp_path / "images" / "town" / f"{name}.png")
    for name in ("a_mask", "a_outline", "b_mask"):
        save_mask(tmp_path / "masks" / "town" / f"{name}.png", np.zeros((4, 6)))
    data = Suffixed(tmp_path)
    assert [item.name for item in data.items] == ["town/a", "town/b"]
    assert data.items[0].mask == "masks/town/a_mask.png"
    (tmp_path / "masks" / "town" / "b_mask.png").unlink()
    with pytest.raises(SampleError, match=r"no mask: images/town/b_photo\.png\. Expected .*masks/town/b_mask\.png"):
        Suffixed(tmp_path)


class Many(Three):
    def label_map(self):
        return {number: number % 3 for number in range(0, 1000, 10)}


def test_raw_values_may_be_larger_than_bytes(root):
    save_mask(root / "masks" / "one.png", [[0, 10, 990, 500, 250, 260]] * 4, np.uint16)
    assert Many(root)[0].mask[0].tolist() == [0, 1, 0, 2, 1, 2]
    save_mask(root / "masks" / "one.png", [[0, 10, 991, 500, 1000, 65535]] * 4, np.uint16)
    expected = (
        r"991 \(4 pixels\), 1000 \(4 pixels\), 65535 \(4 pixels\)\. Expected 0, 10, 20, .*110, … for the 3 classes"
    )
    with pytest.raises(LabelError, match=expected):
        Many(root)[0]


def test_masks_without_image_are_logged(root, caplog):
    save_mask(root / "masks" / "two.png", np.zeros((4, 6)))
    with caplog.at_level(logging.INFO, "segcontext"):
        assert len(Three(root)) == 1
    assert "1 masks in" in caplog.text


def test_two_images_of_one_name_are_refused(root):
    save_image(root / "images" / "one.jpg")
    with pytest.raises(SampleError, match=r"one\.(jpg|png) and .*one\.(jpg|png) have the same name"):
        Three(root)


def test_another_count_than_the_release_is_logged(root, caplog):
    save_mask(root / "masks" / "one.png", np.zeros((4, 6)))
    Shifted(root)
    assert "split 'train' has 1 images, the release 9" in caplog.text


def test_missing_folder_says_what_lies_there(root):
    with pytest.raises(DatasetNotFound, match=rf"No folder .*nowhere/images. {root} holds: images/, masks/"):
        Three(root / "nowhere")
    with pytest.raises(DatasetNotFound, match="is a file, not a folder"):
        list_files(root, "images/one.png", (".png",))


def test_empty_split_is_refused(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    with pytest.raises(DatasetNotFound, match=r"The split 'train' of three .* is empty"):
        Three(tmp_path)


def test_unknown_split_names_the_nearest(root):
    with pytest.raises(RecipeError, match=r"three has no split 'trian'; it has train, bare. Did you mean 'train'"):
        Three(root, "trian")


def test_data_set_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        Dataset("anywhere")


def test_repr_tells_where_and_how_many(root):
    assert repr(Three(root)) == f"Three({str(root)!r}, 'train'): 1 images"
