"""Images in rows are read once, bounded, from the data file's folder, and compared by bytes."""

from __future__ import annotations

import io
import os
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support.images import BLUE, GREEN, RED, asked, claimed_png, png, row, uri
from support.rows import findings_in, job_on, write_rows

from unitune.data.check import check_file, read_job
from unitune.data.example import Example
from unitune.data.images import MAX_BYTES, BadImage, ImageUrl, embedded, image_of
from unitune.data.load import load
from unitune.data.quality.look import quality_of
from unitune.data.questions import question
from unitune.errors import DataError


def write(folder: Path, *rows: Any) -> Path:
    return write_rows(folder / "rows.jsonl", rows)


def test_a_local_file_and_its_data_uri_are_the_same_image(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b c.png").write_bytes(png())
    names = ("a.png", "sub/b c.png", f"file://{tmp_path}/a.png", "file:sub/b%20c.png", uri(png()))
    rows = load(write(tmp_path, *map(row, names))).rows
    assert {each.example.messages[0].images[0].url for each in rows} == {uri(png())}
    assert len({each.example.case_hash for each in rows}) == 1
    assert len({each.example.input_key for each in rows}) == 1
    shown = [each.example.messages[0].shown for each in rows]
    assert shown[0] == "Which colour is this? [image: a.png, 64\u00d748]"
    assert shown[4] == "Which colour is this? [image: image/png, 64\u00d748]"


def test_equal_texts_about_other_images_are_other_questions(tmp_path: Path) -> None:
    file = write(tmp_path, *(row(uri(png(colour=each)), str(each)) for each in (RED, GREEN, BLUE)))
    codes = {finding.code for finding in check_file(file).findings}
    assert not codes & {"contradiction", "duplicate"}
    again = write(tmp_path, row(uri(png()), "red"), row(uri(png()), "blue"), row(uri(png()), "red"))
    assert {finding.code for finding in check_file(again).findings} >= {
        "contradiction",
        "duplicate",
    }
    red, blue = (Example.model_validate(row(uri(png(colour=each)))) for each in (RED, BLUE))
    assert not set(question(red)[0].split()) & set(question(blue)[0].split())


def test_the_same_image_in_train_and_test_is_a_leak(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.jsonl", [row(uri(png(colour=c)), "x") for c in (RED, GREEN)])
    write_rows(tmp_path / "test.jsonl", [row(uri(png(colour=c)), "x") for c in (GREEN, BLUE)])
    job = job_on(tmp_path, {"train": "train.jsonl", "test": "test.jsonl"})
    assert [leak.line for leak in read_job(job).leaks] == [1]


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("/etc/passwd", "outside the folder"),
        ("../secret.png", "outside the folder"),
        ("file:///etc/passwd", "outside the folder"),
        ("file:%2e%2e/secret.png", "outside the folder"),
        ("link.png", "outside the folder"),
        ("linked/secret.png", "outside the folder"),
        ("a\0b.png", "NUL"),
        ("none.png", "does not have"),
        ("pipe.png", "does not have"),
        ("sub", "does not have"),
        ("loop.png", "cannot be read"),
        ("http://example.com/a.png", "use a path"),
        ("ftp://example.com/a.png", "use a path"),
        ("javascript:alert(1)", "use a path"),
        ("x" * 5000, "cannot be read"),
        ("text.png", "begins with b'hello'; save it as PNG"),
        ("short.png", "ends early"),
        ("x.bmp", "begins with b'BM"),
        ("x.svg", 'b"<svg'),
        ("x.heic", "ftypheic"),
        ("bomb.png", "80,000\u00d750,000 pixels"),
        ("large.png", "20 MiB"),
        ("x" * 300, "cannot be read: File name too long."),
        ("data:image/png;base64,!!!!", "not valid base64"),
        ("data:image/png,abc", "without ;base64"),
        ("data:image/png;base64," + "A" * (MAX_BYTES * 4 // 3 + 8), "more than 20 MiB"),
    ],
)
def test_an_unusable_image_is_refused_with_its_line(tmp_path: Path, url: str, words: str) -> None:
    folder = tmp_path / "data"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes(png())
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "linked").symlink_to(tmp_path)
    (folder / "loop.png").symlink_to("loop.png")
    os.mkfifo(folder / "pipe.png")
    contents = {
        "text.png": b"hello",
        "short.png": png()[:-9],
        "x.bmp": b"BM123456",
        "x.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "x.heic": b"\0\0\0\x18ftypheic",
        "bomb.png": claimed_png(80_000, 50_000),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    with (folder / "large.png").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    file = write(folder, row(uri(png())), row(url))
    (finding,) = findings_in(file)
    assert (finding.code, finding.line, finding.file) == ("broken-image", 2, str(file))
    assert words in finding.message
    assert "messages[0].content[1]" in finding.message
    with pytest.raises(DataError):
        load(file)


def test_only_users_show_images(tmp_path: Path) -> None:
    answer = {**asked(uri(png())), "role": "assistant"}
    file = write(tmp_path, {"messages": [{"role": "user", "content": "Draw."}, answer]})
    assert [finding.code for finding in findings_in(file)] == ["image-role"]


def test_an_image_may_be_the_whole_question_and_keys_may_be_null(tmp_path: Path) -> None:
    image = {"type": "image_url", "image_url": {"url": uri(png()), "detail": None}, "text": None}
    turns = [{"role": "user", "content": [image]}, {"role": "assistant", "content": "red"}]
    (example,) = load(write(tmp_path, {"messages": turns}))
    assert example.messages[0].text == ""
    assert example.messages[0].wire["content"] == [
        {"type": "image_url", "image_url": {"url": uri(png())}}
    ]


def test_a_secret_beside_an_image_is_found_and_the_image_is_not_read_as_text(
    tmp_path: Path,
) -> None:
    key = "AKIA" + "Q3EGU7XWLPZ4T5RB"
    noise = uri(random.Random(0).randbytes(30_000))  # noqa: S311 - as base64, it looks like many secrets
    file = write(tmp_path, row(uri(png()), f"the key {key}"))
    assert "secret" in {finding.code for finding in check_file(file).findings}
    from unitune.data.privacy.secrets import changed, strings  # noqa: PLC0415 - the seam under test

    assert list(strings({"url": noise})) == ["url"]
    assert changed({"url": noise}, str.upper) == {"URL": noise}
    assert list(strings(f"{noise} {key}")) == [f"{noise} {key}"]


def test_a_vendors_own_declaration_of_the_type_is_corrected() -> None:
    image = embedded(ImageUrl(url=uri(png(), "jpeg")), None)
    assert image.url == uri(png())
    with pytest.raises(BadImage, match="no folder"):
        embedded(ImageUrl(url="a.png"), None)
    reference = ImageUrl(url="https://user:pw@example.com/d/cat.png?sig=x")
    assert embedded(reference, None) is reference
    assert str(reference) == "[image: cat.png at example.com]"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP"])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "CMYK"])
def test_headers_say_what_pillow_says(kind: str, mode: str) -> None:
    pillow = pytest.importorskip("PIL.Image", reason="needs Pillow")
    picture = pillow.frombytes("RGB", (33, 21), random.Random(0).randbytes(33 * 21 * 3))  # noqa: S311
    content = io.BytesIO()
    try:
        picture.convert(mode).save(content, kind)
    except (OSError, ValueError):
        pytest.skip(f"{kind} has no mode {mode}")
    data = content.getvalue()
    opened = pillow.open(io.BytesIO(data))
    found = image_of(data)
    assert (found.width, found.height) == opened.size
    assert found.media_type == f"image/{kind.lower()}"
    if kind in ("PNG", "JPEG"):
        assert found.mode == opened.mode
    for cut in range(len(data) - 2):
        with pytest.raises(BadImage):
            image_of(data[:cut])


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP"])
def test_an_animated_image_is_a_warning(kind: str, tmp_path: Path) -> None:
    pillow = pytest.importorskip("PIL.Image", reason="needs Pillow")
    frames = [pillow.new("RGB", (16, 16), colour) for colour in (RED, GREEN, BLUE)]
    frames[0].save(tmp_path / "a", kind, save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "b", kind)
    assert image_of((tmp_path / "a").read_bytes()).is_animated
    assert not image_of((tmp_path / "b").read_bytes()).is_animated
    (finding,) = findings_in(write(tmp_path, row("a")))
    assert (finding.code, finding.severity) == ("animated-image", "warning")


def test_damaged_headers_never_raise_anything_else() -> None:
    chance = random.Random(0)  # noqa: S311
    starts = [png(), b"\xff\xd8\xff\xe0" + bytes(60), b"GIF89a" + bytes(60)]
    starts += [b"RIFF\x10\0\0\0WEBP" + kind + bytes(40) for kind in (b"VP8 ", b"VP8L", b"VP8X")]
    for start in starts:
        for _ in range(2000):
            data = bytearray(start)
            for _ in range(chance.randint(1, 8)):
                data[chance.randrange(4, len(data))] = chance.randrange(256)
            with suppress(BadImage):
                image_of(bytes(data[: chance.randint(1, len(data))]))


def test_the_figures_of_a_file_count_its_images(tmp_path: Path) -> None:
    report = check_file(write(tmp_path, row(uri(png())), row(uri(png(colour=BLUE)), "blue")))
    assert report.files[0].images == 2
    assert "2 images" in str(report)


def test_labels_of_images_are_not_judged_by_the_words_beside_them(tmp_path: Path) -> None:
    questions = ("Is the square red?", "Which colour has this square?")
    rows = [
        row(uri(png(64, 64, (at, 100, 3))), "blue" if at % 3 == 0 else "red", questions[at % 2])
        for at in range(40)
    ]
    quality = quality_of(str(write(tmp_path, *rows)))
    assert quality is not None
    assert "label-errors" not in {cause.code for cause in quality.causes}
