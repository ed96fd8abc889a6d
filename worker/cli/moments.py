"""Times and zones as options."""

from datetime import UTC, datetime, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import click


class Moment(click.ParamType[datetime]):
    """An ISO 8601 time; without an offset it is UTC."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is not a time such as 2026-11-23T20:00:00Z", param, ctx)
        try:
            return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        except OverflowError:
            self.fail(f"{value!r} is beyond the years that can be told in UTC", param, ctx)


def require_shown(option: str, moment: datetime | None, zone: tzinfo) -> None:
    """Refuse what no clock of this zone shows: an hour before the first year, or after the last one."""
    try:
        if moment is not None:
            moment.astimezone(zone)
    except OverflowError:
        said = f"{moment} is beyond the years that can be told in {zone}"
        raise click.BadParameter(said, param_hint=option) from None


class Zone(click.ParamType[tzinfo]):
    """The name of a time zone."""

    name = "zone"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tzinfo:
        if isinstance(value, tzinfo):
            return value
        try:
            return UTC if value.upper() == "UTC" else ZoneInfo(value)
        except (KeyError, ValueError, OSError):
            self.fail(f"{value!r} is not a time zone such as Europe/Zurich", param, ctx)
