"""What single rows say, in words: answers, rules, reads, times and spans. Pure."""

from datetime import datetime, timedelta, tzinfo

from worker.audit.order_story import LateRow, ReadRow, ReplyRow, VerdictRow
from worker.reasons import RULES, VERSION, Meaning, RuleName
from worker.reply import Transport

# Of a body that no verdict summed up; --json has all of it.
EXCERPT = 200


def clock_time(moment: datetime, zone: tzinfo) -> str:
    """To the millisecond; the day is there because a story may run past midnight."""
    return moment.astimezone(zone).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def span_words(span: timedelta) -> str:
    """Milliseconds while they can be read, then seconds, then hours."""
    seconds = abs(span.total_seconds())
    if seconds < 10:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 600:
        return f"{seconds:.3f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02} h"


def offset_words(span: timedelta) -> str:
    return f"{'-' if span < timedelta(0) else '+'}{span_words(span)}"


def answer_words(reply: ReplyRow, verdict: VerdictRow | None) -> str:
    """What the exchange said, as far as it was understood."""
    parts = [f"HTTP {reply.http_status}"]
    if verdict is None:
        parts.append(f"not judged yet: {excerpt(reply.body)}")
    else:
        parts += [f"commandId {verdict.command_id}"] if verdict.command_id is not None else []
        parts += [verdict.failure_reason] if verdict.failure_reason else []
        parts += [f'"{verdict.failure_text}"'] if verdict.failure_text else []
    parts += [f"({reply.error})"] if reply.error else []
    return ", ".join(parts)


def rule_words(row: VerdictRow) -> str:
    """The rule that decided and its why; a rule of another table is told as far as it is known here."""
    return f"rule {row.rule}: {rule_why(row)}"


def rule_why(row: VerdictRow) -> str:
    line = RULES.get(RuleName(row.rule))
    same_table = row.policy_version.partition("+")[0] == VERSION
    if line is None and same_table and row.verdict == Meaning.TRANSIENT:
        return "named in CANCELQ_TRANSIENT_REASONS only"
    if line is None:
        return f"unknown here, this program's table is {VERSION}"
    if line.meaning != row.verdict:
        return f"why is not known here, table {VERSION} says {line.meaning}"
    return line.why if same_table else f"{line.why}, as table {VERSION} has it"


def read_words(row: ReadRow) -> str:
    """What one look showed."""
    match row.kind:
        case "order":
            return f"order read: {_order_seen(row)}"
        case "command":
            return f"commands of the order read: {_command_seen(row)}"
        case "command_report":
            return f"command report read: {_report_seen(row)}"
    return f"{row.kind}: {row.status}"


def _order_seen(row: ReadRow) -> str:
    if row.found is None:
        return _failure(row)
    return f"{row.status}" if row.found else "not found"


def _report_seen(row: ReadRow) -> str:
    if row.found:
        return f"the cancel was rejected: {row.status}"
    return "no rejection" if _was_read(row) else _failure(row)


def _command_seen(row: ReadRow) -> str:
    if row.found:
        return f"the POST whose answer was lost had arrived, its command is {row.status}"
    return "none of ours" if row.found is not None else _failure(row)


def _was_read(row: ReadRow) -> bool:
    return row.transport == Transport.ANSWERED and 200 <= (row.http_status or 0) < 300


def _failure(row: ReadRow) -> str:
    said = row.error or f"HTTP {row.http_status}"
    return f"nothing learned, {said}"


def late_words(row: LateRow) -> str:
    """What came back when nobody waited for it any more."""
    if row.transport != Transport.ANSWERED:
        return f"{row.transport}: {row.error}"
    command = f"commandId {row.command_id}, " if row.command_id is not None else ""
    return f"HTTP {row.http_status}, {command}{excerpt(row.body)}"


def excerpt(text: str | None) -> str:
    """The beginning of a body."""
    body = text or "an empty body"
    return body if len(body) <= EXCERPT else f"{body[:EXCERPT]}… ({len(body)} characters)"
