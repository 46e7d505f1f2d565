"""The reader's own pictures: every kind of file that people have, and what is no picture."""

import numpy as np
import pytest
import torch
from PIL import Image

from litrev.data import folder

RED, WHITE = (255, 0, 0), (255, 255, 255)


def save(path, colour=RED, mode="RGB", size=(40, 30), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path, **options)


def only(path, **options):
    """The one picture in a folder, as whole numbers 0..255 [C, size, size]."""
    images, labels, _ = folder.images(path, **options)
    assert images.dtype == torch.float32 and len(images) == len(labels) == 1
    return (images[0] + 1) * 127.5


def is_flat(pixels, colour, within=1.0):
    expected = torch.tensor(colour, dtype=torch.float32).reshape(-1, 1, 1)
    return bool(((pixels - expected).abs() <= within).all())


def test_shapes_classes_and_order(tmp_path):
    for name in ("dogs/b.png", "cats/z.PNG", "cats/black/a.JPG", "dogs/a.jpeg"):
        save(tmp_path / name)
    images, labels, classes = folder.images(tmp_path, size=16, grey=False)
    assert images.shape == (4, 3, 16, 16) and images.is_contiguous()
    assert classes == ("cats", "dogs") and labels.tolist() == [0, 0, 1, 1] and labels.dtype == torch.int64
    save(tmp_path / "loose.png", WHITE)
    images, labels, classes = folder.images(str(tmp_path))
    assert images.shape == (5, 1, 28, 28) and set(classes) == {"cats", "dogs", tmp_path.name}
    assert (images[-1] == 1).all() and classes[labels[-1]] == tmp_path.name  # "loose.png" sorts last
    assert torch.equal(folder.images(tmp_path).images, images)


def test_the_middle_is_cut_out_and_small_things_are_averaged(tmp_path):
    wide = np.zeros((60, 180), np.uint8)
    wide[:, 60:120:2] = 200  # lines of one pixel in the middle third: antialiasing makes them half as bright
    Image.fromarray(wide).save(tmp_path / "a.png")
    assert is_flat(only(tmp_path, size=10)[:, :, 1:-1], [100.0], within=4)


@pytest.mark.parametrize(
    ("mode", "colour", "seen", "end"),
    [
        ("RGB", RED, RED, "png"),
        ("RGBA", (255, 0, 0, 0), WHITE, "png"),
        ("RGBA", (255, 0, 0, 51), (255, 204, 204), "png"),
        ("LA", (0, 0), WHITE, "png"),
        ("CMYK", (0, 255, 255, 0), RED, "jpg"),
        ("CMYK", (0, 255, 255, 0), RED, "tif"),
        ("L", 90, (90, 90, 90), "jpg"),
        ("1", 1, WHITE, "png"),
        ("I;16", 257 * 90, (90, 90, 90), "png"),
        ("I;16", 65535, WHITE, "tif"),
        ("RGB", RED, RED, "bmp"),
        ("RGB", RED, RED, "webp"),
    ],
)
def test_colours_of_every_mode(tmp_path, mode, colour, seen, end):
    save(tmp_path / f"a.{end}", colour, mode)
    assert is_flat(only(tmp_path, grey=False), seen, within=6 if end in ("jpg", "webp") else 1)
    grey = 0.299 * seen[0] + 0.587 * seen[1] + 0.114 * seen[2]
    assert is_flat(only(tmp_path), [grey], within=6 if end in ("jpg", "webp") else 1)


def test_palettes_their_transparency_and_the_first_frame(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, WHITE)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert is_flat(only(tmp_path, grey=False), RED)
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([255, 0, 0] * 256)
    palette.save(tmp_path / "a.gif", transparency=0)
    assert is_flat(only(tmp_path, grey=False), WHITE)


def test_upright_as_exif_says(tmp_path):
    pixels = np.zeros((20, 20, 3), np.uint8)
    pixels[:10] = 255  # white above
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise: above becomes right
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    seen = only(tmp_path, size=2)
    assert seen[0, :, 1].min() > 200 and seen[0, :, 0].max() < 55


def test_one_pixel_is_a_picture(tmp_path):
    save(tmp_path / "a.png", size=(1, 1))
    assert is_flat(only(tmp_path, grey=False, size=4), RED)


def test_what_is_no_picture_is_counted_and_left_out(tmp_path, capsys):
    save(tmp_path / "good.png")
    assert only(tmp_path).shape == (1, 28, 28) and capsys.readouterr().out == ""
    (tmp_path / ".DS_Store").write_bytes(b"hidden")
    save(tmp_path / ".thumbnails/hidden.png")
    assert only(tmp_path).shape == (1, 28, 28) and capsys.readouterr().out == ""
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "damaged.png")
    whole = (tmp_path / "damaged.png").read_bytes()
    (tmp_path / "damaged.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "notes.txt").write_text("no picture")
    assert only(tmp_path).shape == (1, 28, 28)
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and said.startswith("Pictures read: 1.") and "picture: 3, such as damaged.png" in said


def test_a_folder_without_pictures_says_so(tmp_path):
    with pytest.raises(ValueError, match="holds no pictures: put PNG or JPEG"):
        folder.images(tmp_path)
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(ValueError, match=r"holds no pictures: .*picture: 1, such as notes.txt"):
        folder.images(tmp_path)
    with pytest.raises(ValueError, match="is not a folder"):
        folder.images(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="is not a folder"):
        folder.images(tmp_path / "notes.txt")


@pytest.mark.parametrize(
    "wrong", [{"size": 0}, {"size": 2.5}, {"size": "28"}, {"grey": "yes"}, {"path": None}, {"path": ""}, {"path": 3}]
)
def test_wrong_arguments(tmp_path, wrong):
    save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
        folder.images(**{"path": tmp_path} | wrong)
