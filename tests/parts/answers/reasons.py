"""The 33 failure reasons and one of the future: without and with a commandId, at once and in a command report."""

from collections.abc import Iterator

from tests.parts.answers.case import (
    ACCEPTED,
    AMBIGUOUS,
    REFUSED,
    TRANSIENT,
    Case,
    refused,
    repeated,
    settled,
    unresolved,
)

# As the API's page for cancelorder lists them.
PUBLISHED = [
    "AccountClosed",
    "AdvancedTrailingStopUnsupported",
    "AnotherCommandPending",
    "BackMonthProhibited",
    "ExecutionProviderNotConfigured",
    "ExecutionProviderUnavailable",
    "InvalidContract",
    "InvalidPrice",
    "KeyInformationDocumentRequired",
    "LiquidationOnly",
    "LiquidationOnlyBeforeExpiration",
    "MaxOrderQtyIsNotSpecified",
    "MaxOrderQtyLimitReached",
    "MaxPosLimitMisconfigured",
    "MaxPosLimitReached",
    "MaxTotalPosLimitReached",
    "MultipleAccountPlanRequired",
    "NoQuote",
    "NotEnoughLiquidity",
    "OtherExecutionRelated",
    "ParentRejected",
    "RiskCheckTimeout",
    "SSFNFAComplianceRequired",
    "SSFNFAComplianceRequiredJointOnly",
    "SSFRiskDisclosureAcknowledgmentRequired",
    "SessionClosed",
    "Success",
    "TooLate",
    "TradingLocked",
    "TrailingStopNonOrderQtyModify",
    "Unauthorized",
    "UnknownReason",
    "Unsupported",
]
FUTURE = "NewIn2027"
TRANSIENT_REASONS = {"AnotherCommandPending", "RiskCheckTimeout", "ExecutionProviderUnavailable"}
AMBIGUOUS_REASONS = {
    "TooLate",
    "UnknownReason",
    "OtherExecutionRelated",
    "ParentRejected",
    "SessionClosed",
    FUTURE,
}
FINAL_REASONS = [r for r in PUBLISHED if r not in TRANSIENT_REASONS | AMBIGUOUS_REASONS | {"Success"}]


def rule_of(reason: str) -> str:
    """The line of the table that a reason without a commandId must meet."""
    if reason == "Success":
        return "body:empty-result"
    return "reason:unlisted" if reason == FUTURE else f"reason:{reason}"


def verdict_of(reason: str) -> str:
    if reason in TRANSIENT_REASONS:
        return TRANSIENT
    return REFUSED if reason in FINAL_REASONS else AMBIGUOUS


def without_effect(reason: str) -> Case:
    """The order goes on working: POSTed again, or refused, or waited out."""
    said = {"reason": reason, "failure_text": "" if reason == "Success" else "so it is"}
    told = {"rule": rule_of(reason), "reason": reason}
    name = f"{reason}, still working"
    if reason == "SessionClosed":
        return unresolved(name, [said], [AMBIGUOUS], "seen_working Working", **told)
    if reason in FINAL_REASONS:
        return refused(name, said, evidence=f"reply {reason}: so it is", **told)
    return Case(name, [said], [verdict_of(reason), ACCEPTED], **told)


def after_its_end(reason: str) -> Iterator[Case]:
    """The order has its end, whatever the reason says: an end that is read wins."""
    # A transient answer may be followed by a POST without a read, and that one is too late.
    verdicts = [TRANSIENT, AMBIGUOUS] if reason in TRANSIENT_REASONS else [verdict_of(reason)]
    said = {"reason": reason, "failure_text": "" if reason == "Success" else "so it is"}
    told = {"rule": rule_of(reason), "reason": reason}
    yield Case(
        f"{reason}, done", [said | {"effect": "before"}], verdicts, evidence="order_read Canceled", **told
    )
    yield Case(
        f"{reason}, filled",
        [said | {"fill_first": True}],
        verdicts,
        "filled",
        "order_read Filled",
        filled=4,
        **told,
    )
    gone = {"ordStatus": "Expired"}
    yield Case(
        f"{reason}, gone", [said], verdicts, "gone", "order_read Expired", order=gone, filled=0, **told
    )


def with_a_command(reason: str) -> Iterator[Case]:
    """A command exists and a reason was given: two answers in one."""
    contradiction = {"rule": "body:reason-and-command", "reason": reason}
    if reason == "Success":
        accepted = {"rule": "reason:Success", "reason": reason}
        said = {"reason": reason, "failure_text": "", "with_command": True, "effect": "before"}
        yield Case("Success with a command", [said], [ACCEPTED], **accepted)
        text = said | {"failure_text": "but"}
        yield settled("Success with a command and a text", text, rule="body:text-without-reason")
        return
    done = {"reason": reason, "with_command": True, "effect": "before"}
    yield settled(f"{reason} with a command, done", done, **contradiction)
    idle = {"reply": {"failureReason": reason, "commandId": 77}}
    yield repeated(f"{reason} with a command, still working", idle, **contradiction)


def in_a_report(reason: str) -> Case:
    """The cancel is accepted, and its command report brings the reason later."""
    name, post = f"{reason} in a report", {"late_reject": reason}
    if reason in FINAL_REASONS:
        return Case(name, [post], [ACCEPTED], "refused", f"command_report {reason}", rule="reason:missing")
    if reason == "SessionClosed":
        return unresolved(name, [post], [ACCEPTED], "seen_working Working")
    return Case(name, [post], [ACCEPTED, ACCEPTED])


ALL = (*PUBLISHED, FUTURE)
CASES = (
    *map(without_effect, ALL),
    *(case for reason in ALL for case in after_its_end(reason)),
    *(case for reason in ALL for case in with_a_command(reason)),
    *map(in_a_report, ALL),
)
