"""How a value is shown where room is short: spans, times, counts, and text from outside made harmless. Pure."""

from datetime import datetime, timedelta, tzinfo

from worker.report.wording import clock_time

# What a page shows of one text from outside; json and csv have it whole.
LONGEST_TEXT = 160


def printable(value: object) -> str:
    """Without the characters that drive a terminal, break XML or turn the direction of reading."""
    text = "" if value is None else str(value)
    return text if text.isprintable() else "".join(char if char.isprintable() else "\ufffd" for char in text)


def brief(value: object, longest: int = LONGEST_TEXT) -> str:
    text = printable(value)
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def short_span(span: timedelta | None) -> str:
    """`0.42 ms`, `245 ms`, `2.46 s`, `3 min 20 s`, `2 h 03 min`."""
    if span is None:
        return ""
    if not span:
        return "0 ms"
    if span < timedelta():
        return f"-{short_span(-span)}"
    milliseconds = span / timedelta(milliseconds=1)
    if milliseconds < 999.5:
        return f"{milliseconds:.2f} ms" if milliseconds < 10 else f"{milliseconds:.0f} ms"
    seconds = milliseconds / 1000
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def moment_words(moment: datetime | None, zone: tzinfo) -> str:
    return "" if moment is None else clock_time(moment, zone)


def hour_words(hour: datetime, zone: tzinfo) -> str:
    """With the offset: a clock change may repeat an hour."""
    local = hour.astimezone(zone)
    return f"{local:%Y-%m-%d %H:%M} {local.isoformat()[-6:] if local.utcoffset() else 'UTC'}"


def many(count: int, one: str, more: str | None = None) -> str:
    """`1 job`, `1,200 jobs`."""
    return f"{count:,} {one if count == 1 else more or one + 's'}"


def share_words(part: int, whole: int) -> str:
    """A percentage that says 0 % and 100 % only when it is so."""
    if not whole or part in {0, whole}:
        return "100 %" if whole and part else "0 %"
    percent = 100 * part / whole
    if percent < 1:
        return "< 1 %"
    return "> 99 %" if percent > 99 else f"{percent:.0f} %"
