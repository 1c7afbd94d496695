"""WAV files: what they hold, and several of them as one without clicks between them."""

import io
import sys
import wave
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

SAMPLE_BYTES = 2
MAX_CHANNELS, RATES = 2, range(8_000, 96_001)
FADE_S = 0.005  # a waveform that is cut elsewhere than at zero clicks; in 5 ms nothing is heard to be quieter
PAUSE_S = 0.12  # as long as a voice takes between two sentences


class InvalidAudioError(ValueError):
    """It is no WAV file that is taken; the message says why, for people."""


@dataclass(frozen=True, slots=True)
class Sound:
    """What a WAV file holds: 16-bit samples, of each moment one for each channel."""

    rate: int
    channels: int
    samples: bytes

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return len(self.samples) / (SAMPLE_BYTES * self.channels * self.rate)


def read_wav(content: bytes) -> Sound:
    """Look into a file. What it says of its own length is not believed: a file that was written as a stream says any.

    Raises:
        InvalidAudioError: It is none, or not of 16-bit samples.
    """
    try:
        with wave.open(io.BytesIO(content)) as file:
            rate, channels, width = file.getframerate(), file.getnchannels(), file.getsampwidth()
            samples = file.readframes(file.getnframes())
    except (wave.Error, EOFError, RuntimeError) as error:
        raise InvalidAudioError(f"it is no WAV file of PCM samples ({error or 'it is cut'})") from None
    if width != SAMPLE_BYTES:
        raise InvalidAudioError(f"its samples have {width * 8} bits; 16 are taken")
    if not 1 <= channels <= MAX_CHANNELS or rate not in RATES:
        raise InvalidAudioError(f"it has {channels} channels at {rate} Hz")
    whole = len(samples) - len(samples) % (SAMPLE_BYTES * channels)
    return Sound(rate, channels, samples[:whole])


def write_wav(sound: Sound) -> bytes:
    """The file."""
    written = io.BytesIO()
    with wave.open(written, "wb") as file:
        file.setnchannels(sound.channels)
        file.setsampwidth(SAMPLE_BYTES)
        file.setframerate(sound.rate)
        file.writeframes(sound.samples)
    return written.getvalue()


def join(sounds: Sequence[Sound]) -> Sound:
    """One after another, with a short pause between them, and faded at every joint.

    Raises:
        InvalidAudioError: They are not of one format.
    """
    kinds = {(sound.rate, sound.channels) for sound in sounds}
    if len(kinds) != 1:
        told = ", ".join(f"{channels} channels at {rate} Hz" for rate, channels in sorted(kinds)) or "none"
        raise InvalidAudioError(f"its pieces are not of one format: {told}")
    ((rate, channels),) = kinds
    pause = bytes(int(rate * PAUSE_S) * channels * SAMPLE_BYTES)
    last = len(sounds) - 1
    faded = [
        _faded(sound, begins=place > 0, ends=place < last) for place, sound in enumerate(sounds)
    ]  # fmt: skip
    return Sound(rate, channels, pause.join(faded))


def _faded(sound: Sound, *, begins: bool, ends: bool) -> bytes:
    """Its samples, rising from silence and falling into it."""
    if not (begins or ends):
        return sound.samples
    samples = _numbers(sound.samples)
    moments = len(samples) // sound.channels
    length = min(int(sound.rate * FADE_S), moments // 2)
    for moment in range(length):
        share = moment / length
        for channel in range(sound.channels):
            if begins:
                place = moment * sound.channels + channel
                samples[place] = int(samples[place] * share)
            if ends:
                place = (moments - 1 - moment) * sound.channels + channel
                samples[place] = int(samples[place] * share)
    return _little_endian(samples).tobytes()


def _numbers(samples: bytes) -> "array[int]":
    return _little_endian(array("h", samples))


def _little_endian(numbers: "array[int]") -> "array[int]":
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
