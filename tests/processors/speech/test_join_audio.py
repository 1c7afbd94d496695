import struct

import pytest

from processors.speech.join_audio import PAUSE_S, InvalidAudioError, Sound, join, read_wav, write_wav
from tests.stand_ins.qwen_tts_api import RATE, tone
from tests.wav import hear


def test_a_file_is_read_and_written_as_it_was() -> None:
    content = tone(0.5)
    sound = read_wav(content)
    assert (sound.rate, sound.channels, sound.seconds) == (RATE, 1, 0.5)
    assert write_wav(sound) == content


def test_a_file_that_was_written_as_a_stream_is_as_long_as_what_is_there() -> None:
    content = bytearray(tone(0.25))
    content[4:8] = content[40:44] = b"\xff\xff\xff\xff"
    assert read_wav(bytes(content)).seconds == 0.25


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>", b"RIFF" + bytes(40), tone(0.1)[:30], tone(0.1, width=1), tone(0.1, rate=4000),
     tone(0.1)[:20] + b"\x03\x00" + tone(0.1)[22:]],
)  # fmt: skip
def test_what_is_no_16_bit_wav_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidAudioError):
        read_wav(content)


def test_pieces_are_joined_without_a_click_and_with_a_pause() -> None:
    pieces = [read_wav(tone(0.2)) for _ in range(3)]
    heard = hear(write_wav(join(pieces)))
    assert heard.seconds == pytest.approx(0.6 + 2 * PAUSE_S, abs=0.001)
    inside = max(hear(tone(0.2)).steps())
    assert max(heard.steps()) <= inside + 200  # nowhere a larger step than the tone itself makes
    assert heard.numbers[0] == hear(tone(0.2)).numbers[0]  # the ends of all of it are left as they were
    plain = hear(write_wav(Sound(RATE, 1, b"".join(piece.samples + bytes(1000) for piece in pieces))))
    assert max(plain.steps()) > 4 * inside  # so it would sound without


def test_two_channels_are_faded_alike() -> None:
    frames = struct.pack("<2000h", *([9000, -9000] * 1000))
    heard = hear(write_wav(join([Sound(24_000, 2, frames)] * 2)))
    left, right = heard.numbers[::2], heard.numbers[1::2]
    assert left == [-number for number in right]
    assert 0 in left


def test_pieces_shorter_than_their_fades_are_joined_too() -> None:
    tiny = Sound(24_000, 1, struct.pack("<3h", 1, 2, 3))
    assert join([tiny] * 3).seconds > 2 * PAUSE_S


def test_pieces_of_two_formats_are_refused() -> None:
    with pytest.raises(InvalidAudioError, match="16000 Hz"):
        join([read_wav(tone(0.1)), read_wav(tone(0.1, rate=16_000))])
